"""A clip: sampled frames of a source, resized to one pixel budget."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from threading import Thread
from typing import TypeVar

import numpy as np
import torch
from qwen_vl_utils.vision_process import FRAME_FACTOR, smart_resize
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

from swim.errors import DataError, Reason
from swim.video import Reader
from swim.video.frames import frame_limit, sample_frames
from swim.video.sources import FOLDER_FPS, describe_source, open_source

Result = TypeVar("Result")


@dataclass(frozen=True)
class VisualBudget:
    """How much of a video the model sees; the defaults are the paper's.

    max_frames: maximum frames per clip.
    min_pixels, max_pixels: bounds of one resized frame.
    total_pixels: maximum of all frames together.
    fps: maximum frames per second of the clip, though never fewer than 2 frames; None for no limit.

    Resizing follows qwen-vl-utils: sides are multiples of a cell's, such as 28 (patch 14, merge 2).
    """

    max_frames: int = 32
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    total_pixels: int = int(128000 * 28 * 28 * 0.9)
    fps: float | None = None

    @property
    def contradiction(self) -> str | None:
        """Where the bounds cannot both be kept; frames would be larger than max_pixels without a word."""
        if self.min_pixels <= self.max_pixels:
            return None
        return f"min_pixels, {self.min_pixels}, is more than max_pixels, {self.max_pixels}; give both"


@dataclass(frozen=True)
class ClipLimits:
    """What one clip may take of a model's input.

    budget: of its frames and pixels.
    factor: what the sides of a resized frame are multiples of, in px (patch 14, merge 2).
    max_tokens: most tokens, ceil(F / 2) * ((h / factor) * (w / factor) + step_tokens); None: any number. A clip that would
    have more first shrinks, down to min_pixels, then has fewer frames.
    step_tokens: at most so many text tokens stand beside each step's visual ones.
    """

    budget: VisualBudget = VisualBudget()
    factor: int = 28
    max_tokens: int | None = None
    step_tokens: int = 0

    def fitting_frames(self, frames: int, height: int, width: int) -> int:
        """How many of `frames` frames of height x width px fit max_tokens, as small as the budget allows.

        Raises DataError (TOO_LONG) where not even one temporal step fits.
        """
        if self.max_tokens is None:
            return frames
        least = self.tokens(1, self._smart_size(height, width, 0)) + self.step_tokens
        steps = self.max_tokens // least
        if steps < 1:
            raise _Misfit(
                f"{least} visual tokens at least for a frame of {height} x {width}, {self.max_tokens} fit; raise "
                "max_length or lower min_pixels",
                reason=Reason.TOO_LONG,
            )
        return min(frames, FRAME_FACTOR * steps)

    def frame_size(self, height: int, width: int, frames: int) -> tuple[int, int]:
        """(h, w) in px of each of `frames` resized frames: by qwen-vl-utils' rule, the largest that is allowed.

        Two frames share a step, so each may have total_pixels / frames * 2. With max_tokens a step's cells must fit too.
        Example: ClipLimits().frame_size(720, 1280, 32) -> (560, 1008). Raises DataError for a shape thinner than 1 : 200.
        """
        most = min(self.budget.max_pixels, self.budget.total_pixels / frames * FRAME_FACTOR)
        size = self._smart_size(height, width, most)
        if self.max_tokens is not None:
            steps = self.tokens(frames, (self.factor, self.factor))
            cells = self.max_tokens // steps - self.step_tokens  # in each step
            if self.tokens(1, size) > cells:
                size = self._smart_size(height, width, cells * self.factor**2)
        return size

    def tokens(self, frames: int, size: tuple[int, int]) -> int:
        """Visual tokens of `frames` frames of (h, w) px: one for each cell of each step of two frames."""
        return -(-frames // FRAME_FACTOR) * (size[0] // self.factor) * (size[1] // self.factor)

    def _smart_size(self, height: int, width: int, most: float) -> tuple[int, int]:
        least = self.budget.min_pixels
        try:
            # qwen-vl-utils' 1.05: room for the rounding to whole cells
            size = smart_resize(height, width, self.factor, least, max(most, int(least * 1.05)))
        except ValueError as error:
            raise _Misfit(f"frame of {height} x {width} pixels: {error}", reason=Reason.UNREADABLE) from None
        if 0 in size:
            raise _Misfit(f"frame of {height} x {width} pixels: too thin for max_pixels", reason=Reason.UNREADABLE)
        return size


@dataclass(frozen=True)
class Clip:
    """Sampled, resized frames.

    frames: uint8[F, 3, h, w].
    numbers: their frame numbers in the file.
    total, fps: of the whole file.
    height, width: a frame's size in the file, upright, in pixels.
    """

    frames: torch.Tensor
    numbers: list[int]
    total: int
    fps: float
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in px."""
        return self.frames.shape[2], self.frames.shape[3]


def read_clip(
    source,
    limits: ClipLimits = ClipLimits(),
    annotated: Sequence[int] = (),
    *,
    folder_fps: float = FOLDER_FPS,
    time_limit_s: float = 60.0,
    reader: Reader = "pyav",
) -> Clip:
    """Samples, decodes and resizes the frames of a source; an image is a clip of one frame.

    source: the path of a video, of an image or of a folder of frames (sorted as people count); the http(s) URL or base64
    data URI of a video or image; a PIL image; an array or tensor uint8[H, W, 3], uint8[F, H, W, 3] or [F, 3, H, W]; a
    list of frames, each a path, URL, PIL image or array.
    annotated: frame numbers to keep (training only: elsewhere they would tell where the object is).
    folder_fps: the rate of folders, lists and arrays, which carry none.
    time_limit_s: for everything together.
    reader: the library that reads video files.

    Raises DataError naming the source, by reason: MISSING, UNREADABLE (broken, cut off, no picture in it), TIMEOUT,
    TOO_LONG (not even two smallest frames fit max_tokens); TypeError for what can be no source.
    """

    def read() -> Clip:
        end = time.monotonic() + time_limit_s
        with open_source(source, folder_fps, time_limit_s, reader) as opened:
            numbers = sample_frames(opened.total, _frame_count(opened, limits), annotated)
            frames, height, width = _resized(opened.frames(numbers), numbers, limits, end)
            return Clip(frames, numbers, opened.total, opened.fps, height, width)

    return _within(time_limit_s, source, read)


@dataclass(frozen=True)
class Header:
    """What is known of a source before its frames are read.

    total, fps, height, width: as in Clip.
    numbers, size: frame numbers of the clip that `read_clip` would make of it, and (h, w) of a frame in px.
    """

    total: int
    fps: float
    height: int
    width: int
    numbers: list[int]
    size: tuple[int, int]


def read_header(
    source,
    limits: ClipLimits = ClipLimits(),
    annotated: Sequence[int] = (),
    *,
    folder_fps: float = FOLDER_FPS,
    time_limit_s: float = 60.0,
    reader: Reader = "pyav",
) -> Header:
    """The source's header, from its index and first frame. Arguments and errors are those of `read_clip`."""

    def read() -> Header:
        with open_source(source, folder_fps, time_limit_s, reader) as opened:
            _, frame = next(opened.frames([0]))
            height, width = frame.shape[:2]
            numbers = sample_frames(opened.total, _frame_count(opened, limits), annotated)
            size = limits.frame_size(height, width, len(numbers))
            return Header(opened.total, opened.fps, height, width, numbers, size)

    return _within(time_limit_s, source, read)


class _Misfit(DataError):
    """Frames that do not fit the budget or each other; the source's name is still to be added."""


def _within(limit_s: float, source, work: Callable[[], Result]) -> Result:
    """The result of `work` on a source. Raises DataError naming the source: what `work` raises, or TIMEOUT.

    Nothing can interrupt a C library that waits for a file or is caught in a loop. So it runs in a thread of its own, and
    one that is late is abandoned: a daemon, which does not keep the process from ending.
    """
    result: Future[Result] = Future()

    def run():
        try:
            result.set_result(work())
        except BaseException as error:  # raised again where the result is asked for
            result.set_exception(error)

    Thread(target=run, name="read_clip", daemon=True).start()
    try:
        return result.result(limit_s)
    except TimeoutError:
        raise DataError(
            f"{describe_source(source)}: not read after {limit_s:g} s; it hangs, or raise the limit",
            reason=Reason.TIMEOUT,
        ) from None
    except _Misfit as error:
        raise DataError(f"{describe_source(source)}: {error}", reason=error.reason) from None


def _frame_count(opened, limits: ClipLimits) -> int:
    """How many frames of an open source the limits allow."""
    count = frame_limit(opened.total, opened.fps, limits.budget.max_frames, limits.budget.fps)
    if limits.max_tokens is None:  # then the size, which may cost a decoded picture, is not needed
        return count
    return limits.fitting_frames(count, opened.height, opened.width)


def _resized(
    frames: Iterator[tuple[int, np.ndarray]], numbers: list[int], limits: ClipLimits, end: float
) -> tuple[torch.Tensor, int, int]:
    """(uint8[F, 3, h, w] in the order of `numbers`, height and width in the file).

    One after the other, so that frames of the file's size never lie in memory together. After `end` (monotonic seconds)
    it stops by itself: nothing waits for it any more.
    """
    first = next(frames)
    height, width = first[1].shape[:2]
    size = limits.frame_size(height, width, len(numbers))
    resized = torch.empty(len(numbers), 3, *size, dtype=torch.uint8)
    place = {number: place for place, number in enumerate(numbers)}
    for number, frame in chain([first], frames):
        if frame.shape[:2] != (height, width):
            found = f"{height} x {width} and {frame.shape[0]} x {frame.shape[1]}"
            raise _Misfit(f"frames of different sizes, {found} (number {number})", reason=Reason.UNREADABLE)
        if time.monotonic() > end:
            raise TimeoutError
        resized[place[number]] = resize_frame(frame, size)
    return resized, height, width


def resize_frame(frame: np.ndarray, size: Sequence[int]) -> torch.Tensor:
    """uint8[3, h, w] of uint8[H, W, 3]: bicubic with antialiasing, as qwen-vl-utils resizes."""
    pixels = torch.from_numpy(np.require(frame, requirements=["C", "W"])).permute(2, 0, 1)
    if pixels.shape[1:] == torch.Size(size):
        return pixels
    # bytes with the channels last are what torchvision resizes fastest
    return resize(pixels[None], list(size), InterpolationMode.BICUBIC, antialias=True)[0]
