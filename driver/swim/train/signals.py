"""SIGTERM and SIGUSR1: finish the step, save, and end."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(Exception):
    """A run that was asked to stop and did, after a checkpoint. status: of the command, 128 + the signal's number."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.status = 128 + number


class StopOnSignal(TrainerCallback):
    """Saves and ends training after the step in which any process got one of SIGNALS; all stop at the same step.

    agreed: number of the signal that ended training, 0 for none.
    """

    def __init__(self):
        self.agreed = 0
        self._got = 0
        self._before: dict[int, Any] = {}
        os.register_at_fork(after_in_child=self._forget)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Around training. Only a main thread can listen; elsewhere signals do what they always do."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        """Here the device has been waited for already: the gradient norm was read."""
        if args.world_size == 1:
            self.agreed = self._got
        else:
            got = torch.tensor([float(self._got)], device=PartialState().device)
            torch.distributed.all_reduce(got, torch.distributed.ReduceOp.MAX)
            self.agreed = int(got)

    def on_step_end(self, args, state, control, **kwargs):
        if self.agreed:
            control.should_save = control.should_training_stop = True

    def _note(self, number, frame):
        self._got = number

    def _forget(self):
        """In a data worker: a signal ends it, also one that hangs."""
        for number in self._before:
            signal.signal(number, signal.SIG_DFL)
