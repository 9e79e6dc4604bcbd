"""What ends a run early, each in a message that says what was found and what to do."""

import errno
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import distributed

from swim.files import human_bytes
from swim.train.checkpoints import Checkpoints
from swim.train.skipping import unpack
from swim.train.worker_notes import WorkerNotes


class TrainingFault(Exception):
    """A run that cannot continue; `str(error)` says why. The same command resumes it once the cause is gone."""


@contextmanager
def saving(folder: Path, what: str, needed_bytes: int) -> Iterator[None]:
    """Around the writing of `what` into a run's existing `folder`: what keeps it from being written becomes a
    TrainingFault that says whether the disk is full. Faults of another kind, of a GPU or its network, pass through."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _concerns_a_file(error):
            raise
        free = shutil.disk_usage(folder).free
        found = str(error).splitlines()[0]
        last = Checkpoints(folder).last()
        start = "the start" if last is None else f"{last.name}, which is complete"
        if _quota_is_used_up(error):
            problem, remedy = f"the disk quota is used up ({found})", "Make room"
        elif _disk_is_full(error) or free < needed_bytes:
            needed = f"{human_bytes(free)} free, about {human_bytes(needed_bytes)} needed"
            problem, remedy = f"the disk is full, {needed} ({found})", "Make room"
        else:
            problem, remedy = found, f"Fix that ({human_bytes(free)} of the disk are free)"
        raise TrainingFault(
            f"{folder}: cannot save {what}: {problem}. {remedy} and rerun the same command: it resumes from {start}"
        ) from error


def _concerns_a_file(error: Exception) -> bool:
    """Whether a file could not be written. torch's writer, which is C++, reports that as a RuntimeError too."""
    if not isinstance(error, RuntimeError):
        return True
    return any(sign in str(error) for sign in ("PytorchStreamWriter", "inline_container", "iostream error"))


def _disk_is_full(error: Exception) -> bool:
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error)


def _quota_is_used_up(error: Exception) -> bool:
    return getattr(error, "errno", None) == errno.EDQUOT or "Disk quota exceeded" in str(error)


@contextmanager
def report_faults(notes: WorkerNotes, timeout_s: float) -> Iterator[None]:
    """Around training: what torch reports of data workers and other processes becomes a TrainingFault."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingFault(
            f"the memory of the GPU is full ({str(error).split('. ')[0]}). Set activation_checkpointing, lower "
            "per_device_train_batch_size, max_pixels, max_frames or max_length, or share the run among more GPUs"
        ) from error
    except RuntimeError as error:
        text = str(error)
        if "DataLoader timed out" in text:
            raise TrainingFault(
                f"a data worker hangs: no batch for {timeout_s:g} s (dataloader_timeout_s); {notes.tell()}"
            ) from error
        if "DataLoader worker" in text:
            raise TrainingFault(f"{text.splitlines()[0]} (out of memory?); {notes.tell()}") from error
        if isinstance(error, distributed.DistError) or "gloo" in text:
            raise TrainingFault(
                "another process of this run is lost or hangs; its own message, or that of the launcher, says why "
                f"(found here: {text.splitlines()[0]})"
            ) from error
        raise


class FiniteGuard:
    """Stops a run whose loss or gradient is not finite, naming the records of that step.

    `note` keeps what a micro-step used without waiting for the device. `check` is called with the gradient norm, the same
    number on every rank: before the optimiser's step, or after it under DeepSpeed. Either way no checkpoint holds it.
    """

    def __init__(self):
        self._steps: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def note(self, loss: torch.Tensor, names: torch.Tensor | None):
        """loss: of one micro-step. names: `record_names` of its batch."""
        self._steps.append((loss.detach(), names))

    def check(self, norm: torch.Tensor | float | None, step: int):
        """Raises TrainingFault on every rank when `norm` is not finite. DeepSpeed calls such a norm -1 or infinite."""
        steps, self._steps = self._steps, []
        if norm is None or 0 <= float(norm) < math.inf:
            return
        found = [(float(loss), [] if names is None else unpack(names)) for loss, names in steps]
        everywhere = gather_object(found)
        blamed = [entry for entry in everywhere if not math.isfinite(entry[0])]
        what = "the loss" if blamed else "the gradient"
        names = [name for _, records in blamed or everywhere for name in records]
        raise TrainingFault(
            f"step {step}: {what} is not finite (gradient norm {float(norm)}); no checkpoint holds this step. Its records: "
            f"{'; '.join(names) or 'unknown'}"
        )
