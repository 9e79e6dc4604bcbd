"""Reading frames: video files, folders of frames, images; resized to one pixel budget."""

import re
from dataclasses import dataclass
from pathlib import Path

import av
import decord
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from qwen_vl_utils.vision_process import FRAME_FACTOR, smart_resize
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resize

from swim.data.errors import DataError
from swim.data.frames import sample_frames

_IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
# Frame folders carry no rate of their own; DAVIS, the most common source, is 24.
FOLDER_FPS = 24.0


@dataclass(frozen=True)
class VisualBudget:
    """How much of a video the model sees; the defaults are the paper's.

    max_frames: at most so many frames. min_pixels, max_pixels: bounds of one resized frame. total_pixels: of all frames
    together. Resizing follows qwen-vl-utils: sides are multiples of 28 (patch 14, merge 2).
    """

    max_frames: int = 32
    min_pixels: int = 128 * 28 * 28
    max_pixels: int = 768 * 28 * 28
    total_pixels: int = int(128000 * 28 * 28 * 0.9)


@dataclass(frozen=True)
class Clip:
    """Sampled, resized frames.

    frames: uint8[F, 3, h, w]. numbers: their frame numbers in the file. total, fps: of the whole file.
    height, width: a frame's size in the file, in pixels.
    """

    frames: torch.Tensor
    numbers: list[int]
    total: int
    fps: float
    height: int
    width: int


def read_clip(path: Path, budget: VisualBudget, annotated: list[int] = (), factor: int = 28) -> Clip:
    """Samples, decodes and resizes the frames of a video file or frame folder; an image is a clip of one frame.

    annotated: frame numbers to keep (training only: elsewhere they would tell where the object is). factor: what the
    sides of a resized frame are multiples of. Raises DataError naming the path when it is missing or does not decode.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"no such video or image: {path}; fix the record or data_root")
    frames, numbers, total, fps = _read(path, budget.max_frames, annotated)
    height, width = frames.shape[1:3]
    resized = _resize(torch.from_numpy(frames).permute(0, 3, 1, 2), budget, factor)
    return Clip(resized, numbers, total, fps, height, width)


def _read(path: Path, max_frames: int, annotated: list[int]) -> tuple[np.ndarray, list[int], int, float]:
    """(uint8[F, H, W, 3], frame numbers, total frames, fps)."""
    if path.is_dir():
        files = sorted((p for p in path.iterdir() if p.suffix.lower() in _IMAGE_ENDINGS), key=_natural)
        if not files:
            raise DataError(f"no image in the frame folder {path}")
        numbers = sample_frames(len(files), max_frames, annotated)
        frames = [_read_image(files[n]) for n in numbers]
        sizes = sorted({frame.shape[:2] for frame in frames})
        if len(sizes) > 1:
            raise DataError(f"frames of different sizes (height, width) in the folder {path}: {sizes}")
        return np.stack(frames), numbers, len(files), FOLDER_FPS
    if path.suffix.lower() in _IMAGE_ENDINGS:
        return _read_image(path)[None], [0], 1, FOLDER_FPS
    try:
        return _read_decord(path, max_frames, annotated)
    except (decord.DECORDError, RuntimeError) as decord_error:
        try:
            return _read_pyav(path, max_frames, annotated)
        except (av.FFmpegError, IndexError, ValueError) as error:
            raise DataError(f"unreadable video {path}: {error} (decord: {str(decord_error).splitlines()[0]:.120})") from None


def _read_decord(path: Path, max_frames: int, annotated: list[int]):
    reader = decord.VideoReader(str(path), num_threads=1)
    numbers = sample_frames(len(reader), max_frames, annotated)
    return reader.get_batch(numbers).asnumpy(), numbers, len(reader), float(reader.get_avg_fps())


def _read_pyav(path: Path, max_frames: int, annotated: list[int]):
    """Decodes the whole file: slower than decord, but it reads what decord does not, such as AV1."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        fps = float(stream.average_rate or FOLDER_FPS)
        total = stream.frames or sum(1 for _ in container.decode(stream))
        container.seek(0)
        numbers = sample_frames(total, max_frames, annotated)
        wanted = set(numbers)
        decoded = enumerate(container.decode(stream))
        frames = [frame.to_ndarray(format="rgb24") for number, frame in decoded if number in wanted]
    if len(frames) != len(numbers) or not frames:
        raise ValueError(f"expected {total} frames as its header says, found fewer")
    return np.stack(frames), numbers, total, fps


def _read_image(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"unreadable image {path}: {error}") from None


def _natural(path: Path) -> list:
    """Sorts frame10 behind frame9."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _resize(frames: torch.Tensor, budget: VisualBudget, factor: int) -> torch.Tensor:
    """uint8[F, 3, h, w] within the budget, by qwen-vl-utils' rule for the bound of a single frame."""
    share = budget.total_pixels / len(frames) * FRAME_FACTOR
    most = int(max(min(budget.max_pixels, share), budget.min_pixels * 1.05))
    try:
        size = smart_resize(*frames.shape[2:], factor, budget.min_pixels, most)
    except ValueError as error:
        raise DataError(f"frame of {frames.shape[2]} x {frames.shape[3]} pixels: {error}") from None
    if tuple(frames.shape[2:]) == size:
        return frames.contiguous()
    return resize(frames, list(size), InterpolationMode.BICUBIC, antialias=True)
