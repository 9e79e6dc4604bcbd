"""A sample: one record with its pixels and its masks, ready for the processor."""

import json
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from swim.data.chat import SYSTEM_PROMPT
from swim.data.errors import DataError
from swim.data.masks import cover_cells, decode_mask
from swim.data.records import Record, parse_record
from swim.data.video import Clip, VisualBudget, read_clip


@dataclass(frozen=True)
class DataSettings:
    """How records become samples.

    mask_resolution: r, mask cells per grid cell and side. keep_annotated_frames: tell the frame sampler where the masks
    are (training; elsewhere it would leak the answer). cache_gb: decoded clips kept in memory, per worker process.
    """

    budget: VisualBudget = field(default_factory=VisualBudget)
    system_prompt: str = SYSTEM_PROMPT
    mask_resolution: int = 1
    keep_annotated_frames: bool = True
    cache_gb: float = 0.0


@dataclass(frozen=True)
class Sample:
    """record, clip and, for a supervised record, its masks on the grid.

    masks: float32[N, T, r * H, r * W], mean over the step's annotated frames; None without supervision.
    mask_index: bool[N, T], True where an instance has a non-empty mask.
    """

    record: Record
    clip: Clip
    masks: np.ndarray | None
    mask_index: np.ndarray | None


class SampleReader:
    """Turns rows of the mixture into samples, keeping up to `cache_gb` of decoded clips."""

    def __init__(self, settings: DataSettings, patch_size: int = 14, merge_size: int = 2, temporal_patch_size: int = 2):
        self.settings = settings
        self.cell_px = patch_size * merge_size
        self.temporal_patch_size = temporal_patch_size
        self._cache: OrderedDict[tuple, Clip] = OrderedDict()
        self._cached_bytes = 0

    def __call__(self, row: dict[str, str]) -> Sample:
        """The sample of one row of `load_mixture`. Raises DataError naming the record."""
        return self.read(parse_record(json.loads(row["record"]), row["where"], row["data_root"]))

    def read(self, record: Record) -> Sample:
        """Frames and masks of a record. Raises DataError naming the record."""
        try:
            annotated = record.annotated_frames if self.settings.keep_annotated_frames else []
            clip = self._clip(record.path, annotated)
            if not record.instances:
                return Sample(record, clip, None, None)
            masks, mask_index = self._masks_on_grid(record, clip)
        except DataError as error:
            raise error.at(record.where) from None
        if self.settings.keep_annotated_frames and not mask_index.any():
            raise DataError("no instance has a usable, non-empty mask within the video's frames", record.where)
        return Sample(record, clip, masks, mask_index)

    def _masks_on_grid(self, record: Record, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        resolution = self.settings.mask_resolution
        rows, columns = (size // self.cell_px * resolution for size in clip.frames.shape[2:])
        steps = -(-len(clip.numbers) // self.temporal_patch_size)
        masks = np.zeros((len(record.instances), steps, rows, columns), dtype=np.float32)
        for instance, frames in enumerate(record.instances):
            for step in range(steps):
                numbers = clip.numbers[step * self.temporal_patch_size : (step + 1) * self.temporal_patch_size]
                covers = [
                    cover_cells(decode_mask(frames[number], clip.height, clip.width), rows, columns)
                    for number in numbers
                    if number in frames
                ]
                if covers:
                    masks[instance, step] = np.mean(covers, axis=0)
        masks = masks.clip(0.0, 1.0)  # sums of float32 shares may pass 1 in the last digit
        return masks, masks.any(axis=(2, 3))

    def _clip(self, path: Path, annotated: list[int]) -> Clip:
        """The clip of a video, from the cache when its frames were chosen alike before."""
        key = (path, *annotated)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        clip = read_clip(path, self.settings.budget, annotated, self.cell_px)
        limit = self.settings.cache_gb * 1e9
        if clip.frames.nbytes <= limit:
            self._cache[key] = clip
            self._cached_bytes += clip.frames.nbytes
        while self._cached_bytes > limit:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.frames.nbytes
        return clip
