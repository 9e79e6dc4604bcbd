"""A sample: one record with its pixels and its masks, ready for the processor."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from swim.data.masks import check_mask, cover_cells, decode_mask, is_off_by_one
from swim.data.mixture import row_record
from swim.data.records import Record
from swim.data.settings import DataSettings
from swim.errors import DataError, Reason
from swim.video.archives import find_member, split_member
from swim.video.clip import Clip, ClipLimits, Header, read_clip, read_header
from swim.video.remote import is_stored, stat
from swim.video.sources import FOLDER_FPS, local_file

# A shared disk that does not answer in time is not the record's fault: the read is retried with more time.
_TIME_LIMITS = (1, 2, 2)  # times the setting's; all of them fit well into `dataloader_timeout_s`
_PAUSE_S = 2.0
USUAL_CELL_PX = 28  # where no model says how large its cells are
_LATEST_S = 99_999.9  # a time as long as any to be told in words

Read = TypeVar("Read")

logger = logging.getLogger(__name__)

NO_USABLE_MASK = "no instance has a usable, non-empty mask within the video's frames"


@dataclass(frozen=True)
class GridMasks:
    """The masks of a record's N instances on the grid of its clip's T steps.

    shares: float32[N, T, r * H, r * W], how much of each cell is covered, mean over the step's annotated frames.
    index: bool[N, T], True where an instance has a non-empty mask.
    resized: how many masks were one pixel off their frame.
    """

    shares: np.ndarray
    index: np.ndarray
    resized: int = 0


@dataclass(frozen=True)
class TextSample:
    """A record without a clip."""

    record: Record


@dataclass(frozen=True)
class Sample:
    """A record with its clip.

    masks: on the grid; None without supervision.
    frames_past_end: annotated frames that the file does not have.
    """

    record: Record
    clip: Clip
    masks: GridMasks | None = None
    frames_past_end: int = 0

    @property
    def resized_masks(self) -> int:
        return 0 if self.masks is None else self.masks.resized

    @property
    def stray_placeholders(self) -> int:
        """Of the record's questions."""
        return self.record.stray_placeholders


def _no_tokens(_: float) -> int:
    return 0


class SampleReader:
    """Turns rows of the mixture into samples, keeping up to `cache_gb` of decoded clips.

    cell_px: side of a cell of the grid, in px of the resized frame. step_frames: frames of a temporal step. step_tokens:
    function of a time in seconds; text tokens that stand beside the visual ones of a video's step then.
    """

    def __init__(
        self,
        settings: DataSettings,
        cell_px: int,
        step_frames: int = 2,
        step_tokens: Callable[[float], int] = _no_tokens,
    ):
        self.settings = settings
        self.cell_px = cell_px
        self.step_frames = step_frames
        self._step_tokens = step_tokens
        self._cache: OrderedDict[tuple, Clip] = OrderedDict()
        self._cached_bytes = 0

    @classmethod
    def of_model(
        cls, settings: DataSettings, model_config, step_tokens: Callable[[float], int] = _no_tokens
    ) -> "SampleReader":
        """The reader with a model's cells and steps."""
        vision = model_config.vision_config
        return cls(settings, vision.patch_size * vision.spatial_merge_size, vision.temporal_patch_size, step_tokens)

    def __call__(self, row: dict) -> Sample:
        """The sample of one row of `load_mixture`. Raises DataError naming the record."""
        return self.read(row_record(row))

    def read(self, record: Record, max_tokens: int | None = None) -> Sample:
        """Frames and masks of a record; its clip takes at most `max_tokens`. Raises DataError naming the record."""
        try:
            clip = self._clip(record, max_tokens)
            if record.is_image and clip.total > 1:
                message = f"expected a picture, found an animation of {clip.total} frames; give it as video"
                raise DataError(message, reason=Reason.UNREADABLE)
            if not record.instances:
                return Sample(record, clip)
            masks = self._masks_on_grid(record, clip)
            if self.settings.keep_annotated_frames and not masks.index.any():
                raise DataError(NO_USABLE_MASK, reason=Reason.NO_MASK)
        except DataError as error:
            raise _told(error, record) from None
        past_end = sum(number >= clip.total for number in record.annotated_frames)
        return Sample(record, clip, masks, past_end)

    def check_header(self, record: Record, max_tokens: int | None = None) -> tuple[int, int, int]:
        """(tokens of the clip, masks one pixel off, annotated frames past the end) from the source's index and first frame.

        Every mask within the file is decoded and must fit. Raises DataError naming the record.
        """
        try:
            annotated = self._kept_frames(record)
            read = partial(self._reading(read_header, record, max_tokens), annotated=annotated)
            header = self._patiently(record, read)
            used = [rle for frames in record.instances for number, rle in frames.items() if number < header.total]
            found = [decode_mask(rle, header.height, header.width).any() for rle in used]
            if record.instances and not any(found):
                raise DataError(NO_USABLE_MASK, reason=Reason.NO_MASK)
        except DataError as error:
            raise _told(error, record) from None
        resized = sum(is_off_by_one(rle, header.height, header.width) for rle in used)
        past_end = sum(number >= header.total for number in record.annotated_frames)
        return self.clip_tokens(record, header), resized, past_end

    def clip_tokens(self, record: Record, clip: Clip | Header) -> int:
        """Tokens that take the place of a record's placeholder: the visual ones, and the text of each step of a video."""
        height, width = clip.size
        steps = _split(clip.numbers, self.step_frames)
        visual = len(steps) * (height // self.cell_px) * (width // self.cell_px)
        if record.is_image:
            return visual
        # as the processor computes times, to the digit
        return visual + sum(self._step_tokens((step[0] / clip.fps + step[-1] / clip.fps) / 2) for step in steps)

    def check_files(self, record: Record):
        """Raises DataError naming the record when its source is not there or a mask does not decode."""
        try:
            for path in record.path if isinstance(record.path, tuple) else (record.path,):
                self._patiently(record, partial(_find, path))
            for rle in (rle for frames in record.instances for rle in frames.values()):
                check_mask(rle)
        except DataError as error:
            raise _told(error, record) from None

    def _reading(self, read: Callable[..., Read], record: Record, max_tokens: int | None) -> Callable[..., Read]:
        """`read_clip` or `read_header` of a record, by the settings."""
        step_tokens = 0 if record.is_image else self._step_tokens(_LATEST_S)
        limits = ClipLimits(self.settings.budget, self.cell_px, max_tokens, step_tokens)
        folder_fps, reader = record.fps or FOLDER_FPS, self.settings.video_reader
        return partial(read, record.path, limits, folder_fps=folder_fps, reader=reader)

    def _patiently(self, record: Record, read: Callable[..., Read]) -> Read:
        """What `read(time_limit_s=...)` returns; a read that may succeed later is tried again with a longer limit."""
        *early, last = (self.settings.time_limit_s * factor for factor in _TIME_LIMITS)
        for limit_s in early:
            try:
                return read(time_limit_s=limit_s)
            except DataError as error:
                if not error.reason.may_pass:
                    raise
                logger.warning("%s: %s; trying again", record.where, error)
                time.sleep(_PAUSE_S)
        return read(time_limit_s=last)

    def _kept_frames(self, record: Record) -> list[int]:
        """The annotated frames that the frame sampler keeps."""
        return record.annotated_frames if self.settings.keep_annotated_frames else []

    def _masks_on_grid(self, record: Record, clip: Clip) -> GridMasks:
        resolution = self.settings.mask_resolution
        rows, columns = (size // self.cell_px * resolution for size in clip.frames.shape[2:])
        steps = _split(clip.numbers, self.step_frames)
        shares = np.zeros((len(record.instances), len(steps), rows, columns), dtype=np.float32)
        resized = 0
        for instance, frames in enumerate(record.instances):
            for step, numbers in enumerate(steps):
                used = [frames[number] for number in numbers if number in frames]
                covers = [cover_cells(decode_mask(rle, clip.height, clip.width), rows, columns) for rle in used]
                resized += sum(is_off_by_one(rle, clip.height, clip.width) for rle in used)
                if covers:
                    shares[instance, step] = np.mean(covers, axis=0)
        shares = shares.clip(0.0, 1.0)  # sums of float32 may pass 1 in the last digit
        return GridMasks(shares, np.any(shares, axis=(2, 3)), resized)

    def _clip(self, record: Record, max_tokens: int | None) -> Clip:
        """The clip of a record, from the cache when its frames were chosen alike before."""
        annotated = self._kept_frames(record)
        key = (record.path, record.fps, max_tokens, *annotated)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        clip = self._patiently(record, partial(self._reading(read_clip, record, max_tokens), annotated=annotated))
        limit = self.settings.cache_gb * 1e9
        if clip.frames.nbytes <= limit:
            self._cache[key] = clip
            self._cached_bytes += clip.frames.nbytes
        while self._cached_bytes > limit:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.frames.nbytes
        return clip


def _split(numbers: list[int], length: int) -> list[list[int]]:
    """The temporal steps: the numbers, so many at a time; the last may have fewer."""
    return [numbers[first : first + length] for first in range(0, len(numbers), length)]


def _find(path, time_limit_s: float):
    """Raises DataError where a source is not there. What lies elsewhere is looked up, and not fetched where that tells."""
    if packed := split_member(str(path)):
        find_member(*packed, time_limit_s)
    elif is_stored(str(path)):
        stat(str(path), time_limit_s)
    else:
        with local_file(path, time_limit_s):
            pass


def _told(error: DataError, record: Record) -> DataError:
    """The error with its record, and with the next step where a file is missing."""
    if error.reason != Reason.MISSING or error.where is not None:
        return error.at(record.where)
    on_command_line = record.where.startswith("--")
    step = (
        f"a relative path starts at {Path.cwd()}" if on_command_line else "fix the record, or data_root (--video_root)"
    )
    return DataError(f"{error.message}; {step}", record.where, error.reason)
