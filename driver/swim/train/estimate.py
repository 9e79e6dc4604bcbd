"""What a run needs of memory and disk, said before its first step."""

import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from swim.files import human_bytes
from swim.train.checkpoints import Checkpoints
from swim.train.config import ConfigError
from swim.video.clip import VisualBudget

_ADAM_STATES = 2


@dataclass(frozen=True)
class Parallelism:
    """How processes share a run. zero: stage of DeepSpeed, 0 without; fsdp shares as stage 3. offload: to host memory."""

    processes: int = 1
    zero: int = 0
    fsdp: bool = False
    offload_optimizer: bool = False
    offload_weights: bool = False

    @property
    def name(self) -> str:
        """Such as "ZeRO-3" or "FSDP2"."""
        if self.zero:
            return f"ZeRO-{self.zero}"
        if self.fsdp:
            return "FSDP2"
        return "DDP" if self.processes > 1 else "not shared"


@dataclass(frozen=True)
class Estimate:
    """Bytes.

    weights, gradients, optimizer: of one process.
    host: the part of these that is in host memory, per process, although there is a GPU.
    checkpoint, model: on the disk; of a checkpoint, and of the weights alone.
    """

    weights: int
    gradients: int
    optimizer: int
    host: int
    checkpoint: int
    model: int

    @property
    def resuming(self) -> int:
        """Of host memory, per process and for a while: the optimiser's part of a checkpoint that is being loaded."""
        return self.optimizer


def estimate(parameters: Iterable[tuple[int, int, bool]], sharing: Parallelism, adapter: bool = False) -> Estimate:
    """Estimate of training with Adam, without activations.

    parameters: (numbers, bytes of one, whether it is trained) of each. DeepSpeed keeps the trained ones in float32 beside
    the weights, and their gradients too where the optimiser is offloaded. adapter: checkpoints hold trained weights alone.
    """
    parameters = list(parameters)
    everything = sum(count * size for count, size, _ in parameters)
    learnt = [(count, size) for count, size, trained in parameters if trained]
    learnt_bytes = sum(count * size for count, size in learnt)
    learnt_count = sum(count for count, _ in learnt)
    gradients = learnt_bytes
    if sharing.zero and sharing.offload_optimizer:
        gradients += learnt_count * 4
    if sharing.zero:
        optimizer = learnt_count * 4 * (_ADAM_STATES + 1)
    else:
        optimizer = learnt_bytes * _ADAM_STATES
    split_weights = sharing.processes if sharing.zero == 3 or sharing.fsdp else 1
    split_gradients = sharing.processes if sharing.zero >= 2 or sharing.fsdp else 1
    split_optimizer = sharing.processes if sharing.zero or sharing.fsdp else 1
    per_process = everything // split_weights, gradients // split_gradients, optimizer // split_optimizer
    in_host = per_process[0] * sharing.offload_weights + (per_process[1] + per_process[2]) * sharing.offload_optimizer
    model = learnt_bytes if adapter else everything
    # DeepSpeed and FSDP save weights a second time, for themselves; stage 3 has the trained ones in its optimizer's part.
    if sharing.zero == 3:
        own = 0 if adapter else everything - learnt_bytes
    else:
        own = model if sharing.zero or sharing.fsdp else 0
    return Estimate(*per_process, in_host, model + own + optimizer, model)


def parallelism_of(accelerator) -> Parallelism:
    """How the processes of Accelerate's `accelerator` share a run."""
    plugin = accelerator.state.deepspeed_plugin
    if plugin is None:
        return Parallelism(accelerator.num_processes, fsdp=accelerator.is_fsdp2)
    offloads = (
        device not in (None, "none") for device in (plugin.offload_optimizer_device, plugin.offload_param_device)
    )
    return Parallelism(accelerator.num_processes, plugin.zero_stage, False, *offloads)


def numbers_of(model: torch.nn.Module) -> list[tuple[int, int, bool]]:
    """The parameters for `estimate`; of the whole model, also when it is sharded."""
    return [
        (getattr(parameter, "ds_numel", parameter.numel()), parameter.element_size(), parameter.requires_grad)
        for parameter in model.parameters()
    ]


def check_room(needs: Estimate, folder: Path, keep: int | None, processes: int) -> list[str]:
    """Lines to print: the needs and what is free. Raises ConfigError when the disk cannot hold another checkpoint.

    keep: checkpoints that stay, None for all. processes: on this machine.
    """
    free = shutil.disk_usage(folder).free
    memory = psutil.virtual_memory().available
    gpu = free_gpu_bytes()
    parts = f"weights {human_bytes(needs.weights)}, gradients {human_bytes(needs.gradients)}, "
    together = needs.weights + needs.gradients + needs.optimizer
    room = f"host {human_bytes(memory)} for {processes} process(es)"
    if gpu is not None:
        room = f"GPU {human_bytes(gpu)}, {room}"
    lines = [
        f"memory of a process: {parts}optimizer {human_bytes(needs.optimizer)}, together {human_bytes(together)}"
        + (f", {human_bytes(needs.host)} of it in host memory" if needs.host else "")
        + f"; activations come on top, and {human_bytes(needs.resuming)} of host memory while resuming. Free: {room}",
    ]
    # An old checkpoint is deleted only after a new one is complete, and the final weights lie beside them.
    most = None if keep is None else keep + 1
    count = "each" if most is None else f"{most} at most"
    lines.append(
        f"disk: a checkpoint takes about {human_bytes(needs.checkpoint)} ({count}), the final weights "
        f"{human_bytes(needs.model)}. Free: {human_bytes(free)} in {folder}"
    )
    if free < needs.checkpoint:
        raise ConfigError(
            f"{folder}: {human_bytes(free)} free, a checkpoint needs about {human_bytes(needs.checkpoint)}; make room, or "
            "choose another --output_dir"
        )
    saved = len(Checkpoints(folder).complete())
    wanted = needs.model + needs.checkpoint * max((most or 1) - saved, 1)
    if free < wanted:
        lines.append(f"warning: the disk will run full: about {human_bytes(wanted)} needed")
    return lines + memory_warnings(needs, memory, gpu, processes)


def memory_warnings(needs: Estimate, host_free: int, gpu_free: int | None, processes: int) -> list[str]:
    """A line for each memory that is too small, before any activation.

    host_free: bytes for all `processes` of this machine. gpu_free: bytes of each process's GPU, None without GPUs: then
    everything is in host memory.
    """
    together = needs.weights + needs.gradients + needs.optimizer
    host = (together if gpu_free is None else needs.host) * processes
    on_gpu = 0 if gpu_free is None else together - needs.host
    warnings = []
    if host_free < host:
        warnings.append(f"warning: not enough memory: {human_bytes(host)} needed, without activations")
    if gpu_free is not None and gpu_free < on_gpu:
        warnings.append(
            f"warning: not enough GPU memory: {human_bytes(on_gpu)} needed, without activations, "
            f"{human_bytes(gpu_free)} free; share the run (deepspeed, fsdp), offload, or train with LoRA"
        )
    return warnings


_SHARED = Path("/dev/shm")
_CHANNELS = 3


def shared_memory_warnings(
    budget: VisualBudget, batch_size: int, workers: int, prefetch: int | None, processes: int, folder: Path = _SHARED
) -> list[str]:
    """A line where the shared memory of this machine cannot hold the pixels that its data workers have ready.

    workers: of each of the machine's `processes`. prefetch: batches that each of them has ready; None as torch has it.
    folder: where the system keeps shared memory; without one there is nothing to say.
    """
    if not workers or not folder.is_dir():
        return []
    pixels = min(budget.max_frames * budget.max_pixels, budget.total_pixels)
    needed = pixels * _CHANNELS * batch_size * workers * (2 if prefetch is None else prefetch) * processes
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return []
    return [
        f"warning: {human_bytes(free)} of shared memory free in {folder}, the batches of the longest videos that data workers "
        f"have ready may take {human_bytes(needed)}, and a worker that finds none dies of a bus error; give a container "
        f"more (docker run --shm-size {math.ceil(needed / 2**30)}g), or lower dataloader_num_workers"
    ]


def free_gpu_bytes() -> int | None:
    """What this process can have of its GPU, with what it has already; None without one."""
    if not torch.cuda.is_available():
        return None
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
