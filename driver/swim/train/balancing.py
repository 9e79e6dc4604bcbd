"""Which samples of an optimiser step are read side by side, so that no process waits long for another's longer one."""

from collections.abc import Iterator
from itertools import islice

from torch.utils.data import Sampler


class SortedSteps(Sampler[int]):
    """The samples of another sampler, each optimiser step's longest first.

    Processes take turns: the first sample is the first process's, the next one the second's. So each micro-step holds
    samples of about one length; every other one is turned round, for no process to have the longest one each time. Every
    step keeps its samples, and with them its gradient, as long as each sample is a micro-batch of its own: these are
    averaged with equal weight.

    lengths: of each row, in tokens. processes: samples of a micro-step. accumulation: micro-steps of an optimiser step.
    """

    def __init__(self, sampler: Sampler[int], lengths: list[int], processes: int, accumulation: int):
        self.sampler, self.lengths = sampler, lengths
        self.processes, self.accumulation = processes, accumulation

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]  # those of a training set have a length

    def __iter__(self) -> Iterator[int]:
        rows = iter(self.sampler)
        while step := list(islice(rows, self.processes * self.accumulation)):
            step.sort(key=lambda row: -self.lengths[row])
            for number, first in enumerate(range(0, len(step), self.processes)):
                micro_step = step[first : first + self.processes]
                yield from reversed(micro_step) if number % 2 else micro_step

    def set_epoch(self, epoch: int):
        """Accelerate tells the sampler that it finds which epoch begins."""
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
