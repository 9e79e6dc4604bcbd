"""Gives the pages of memory-mapped rows back, so that a worker that reads for hours stays as small as it began."""

import ctypes
import mmap
from functools import cache
from pathlib import Path

from datasets import Dataset


class GiveBackPages:
    """A transform for `Dataset.with_transform` that leaves the rows as they are.

    mapped: the memory-mapped datasets whose pages go. Reading a row maps its pages into the process, and as much as a
    megabyte around them; without an end to it every worker comes to hold the whole file. After each fetch they are
    unmapped: the kernel's cache still has them, for all processes once. Does nothing where there is no /proc.
    """

    def __init__(self, mapped: list[Dataset]):
        self.mapped = mapped
        self._ranges: list[tuple[int, int]] | None = None

    def __call__(self, batch: dict) -> dict:
        if self._ranges is None:
            self._ranges = [found for dataset in self.mapped if (found := _mapping(dataset)) is not None]
        for start, size_bytes in self._ranges:
            _madvise()(start, size_bytes, mmap.MADV_DONTNEED)
        return batch

    def __getstate__(self):  # addresses mean nothing to another process; a forked one keeps them
        return {"mapped": self.mapped, "_ranges": None}


def _mapping(dataset: Dataset) -> tuple[int, int] | None:
    """(address, bytes) of the file mapping that the dataset's first column lies in; it lasts as long as the dataset.

    Nothing but that mapping may be named to madvise: of other memory it would drop the content.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists() or not len(dataset):
        return None
    values = dataset.data.column(0).chunk(0).buffers()[1]
    for line in maps.read_text().splitlines():
        addresses, _, _, _, inode, *path = line.split(maxsplit=5)
        start, end = (int(address, 16) for address in addresses.split("-"))
        if start <= values.address < end:
            return (start, end - start) if inode != "0" and path else None
    return None


@cache
def _madvise():
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
