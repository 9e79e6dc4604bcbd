"""How fast a run is and what it needs: step time by part, peak memory; and its curves in TensorBoard and W&B."""

import os
import resource
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from swim.files import write_atomically
from swim.train.faults import saving

PARTS = ("data", "compute", "optimizer")
STEP_TIME = tuple(f"{part}_s" for part in PARTS)  # their keys in the log
_ROOM_FOR_CURVES = 1_000_000  # bytes


class StepClock(TrainerCallback):
    """Seconds of training steps, without evaluation and saving, by part:

    data: waiting for batches; compute: forward and backward, with what processes exchange; optimizer: the update.
    """

    def __init__(self):
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._optimizer = _OptimizerTime()
        self._begin = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        with self._optimizer.running():
            yield

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self._seconds["data"] += time.perf_counter() - begin

    def on_step_begin(self, args, state, control, **kwargs):
        self._begin = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self._seconds["compute"] += time.perf_counter() - self._begin

    def seconds(self) -> dict[str, float]:
        """By part, since `restart`."""
        update = self._optimizer.take()
        self._seconds["optimizer"] += update
        self._seconds["compute"] -= update
        return dict(self._seconds)

    def restart(self, seconds: dict[str, float] | None = None):
        """Counts from here, or on from what `seconds` returned before the run was interrupted."""
        self._seconds = dict(seconds or dict.fromkeys(PARTS, 0.0))


class _OptimizerTime:
    """Seconds inside the steps of torch's optimisers, also of those that DeepSpeed calls; on a GPU by its own clock."""

    def __init__(self):
        self._seconds = 0.0
        self._marks = []
        self._events: list[tuple] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        before = register_optimizer_step_pre_hook(lambda *_: self._marks.append(_now()))
        after = register_optimizer_step_post_hook(lambda *_: self._add(self._marks.pop(), _now()))
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _add(self, begin, end):
        if isinstance(end, float):
            self._seconds += end - begin
        else:
            self._events.append((begin, end))

    def take(self) -> float:
        if self._events:
            self._events[-1][1].synchronize()
        seconds = self._seconds + sum(begin.elapsed_time(end) / 1000 for begin, end in self._events)
        self._seconds, self._events = 0.0, []
        return seconds


def _now():
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def peak_memory_bytes() -> int:
    """The most that this process has held: allocated on its GPU, else resident in memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def most_of_ranks(accelerator: Accelerator, *values: float) -> list[float]:
    """Of each value the largest of all processes, which all have to ask, in float32."""
    return accelerator.gather(torch.tensor([values], device=accelerator.device)).amax(0).tolist()


class TensorBoard(TensorBoardCallback):
    """Curves below `folder`; those of steps after the checkpoint that a run resumes from are replaced.

    Raises TrainingFault when the disk is full.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.logging_dir = str(folder)
        self._run_folder = folder.parent

    def on_train_begin(self, args, state, control, **kwargs):
        with self._writing():
            if state.is_world_process_zero:
                self.tb_writer = self._SummaryWriter(self.logging_dir, purge_step=state.global_step + 1)
            super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, args, state, control, logs=None, **kwargs):
        with self._writing():
            super().on_log(args, state, control, logs, **kwargs)

    def on_save(self, args, state, control, **kwargs):
        if self.tb_writer is not None:
            with self._writing():
                self.tb_writer.flush()  # a resumed run writes only what comes after the checkpoint

    def on_train_end(self, args, state, control, **kwargs):
        with self._writing():
            super().on_train_end(args, state, control, **kwargs)

    def _writing(self):
        return saving(self._run_folder, "the curves for TensorBoard", _ROOM_FOR_CURVES)


def keep_wandb_run(folder: Path):
    """Lets a resumed run continue the same run of Weights & Biases, unless the user names one by WANDB_RUN_ID."""
    path = folder / "wandb_run_id.txt"
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex)
    os.environ.setdefault("WANDB_RUN_ID", path.read_text())
    os.environ.setdefault("WANDB_RESUME", "allow")
