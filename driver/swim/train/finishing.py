"""Flushes checkpoints to disk and marks them as complete while training continues."""

from concurrent.futures import Future, ThreadPoolExecutor

from accelerate import PartialState
from transformers import TrainerCallback

from swim.train.checkpoints import Checkpoints
from swim.train.faults import saving


class FinishCheckpoints(TrainerCallback):
    """Finishes each checkpoint when all processes have saved. To be added last: others save files of their own.

    A thread of the first process does it, since a disk takes minutes for the checkpoint of a large model. Leaving the
    context waits for it. A checkpoint that cannot be finished raises TrainingFault there, or when the next one is saved.

    keep: complete checkpoints that stay, None for all. needed_bytes: about what a checkpoint needs, for the message of a
    full disk.
    """

    def __init__(self, checkpoints: Checkpoints, keep: int | None, needed_bytes: int):
        self.checkpoints, self.keep, self.needed_bytes = checkpoints, keep, needed_bytes
        self._thread = ThreadPoolExecutor(1, "finish-checkpoint")
        self._under_way: Future | None = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        self._thread.shutdown()
        if kind is None:
            self._settle()

    def _settle(self):
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def on_save(self, args, state, control, **kwargs):
        processes = PartialState()
        processes.wait_for_everyone()
        if processes.is_main_process:
            self._settle()
            saved = state.global_step, state.best_model_checkpoint, processes.num_processes
            self._under_way = self._thread.submit(self._finish, *saved)

    def _finish(self, step: int, best: str | None, processes: int):
        path = self.checkpoints.path(step)
        with saving(self.checkpoints.folder, path.name, self.needed_bytes):
            self.checkpoints.finish(path, self.keep, best, processes)
