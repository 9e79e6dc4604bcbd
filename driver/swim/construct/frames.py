"""Frames of a video with the masks of its instances outlined, each in its own colour."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from swim.data.masks import decode_mask, outline_of
from swim.data.root import Source
from swim.errors import DataError, Reason
from swim.video.clip import ClipLimits, VisualBudget, read_clip
from swim.video.encoder import jpeg_uri
from swim.video.sources import FOLDER_FPS

COLOURS = {
    "red": (230, 25, 75),
    "green": (60, 180, 75),
    "blue": (0, 90, 255),
    "yellow": (255, 225, 25),
    "magenta": (240, 50, 230),
    "cyan": (70, 240, 240),
    "orange": (245, 130, 48),
    "white": (255, 255, 255),
}
_LEAST_PIXELS = 28 * 28


@dataclass(frozen=True)
class OutlinedFrame:
    """number: in the file. uri: the picture as a JPEG data URI."""

    number: int
    uri: str


def colour_of(instance: int) -> str:
    """The name of an instance's colour; they repeat after the last one."""
    return list(COLOURS)[instance % len(COLOURS)]


def outlined_frames(
    source: Source,
    instances: list[dict[int, Any]],
    count: int,
    fps: float | None = None,
    max_pixels: int = 512 * 512,
) -> list[OutlinedFrame]:
    """At most `count` annotated frames, evenly spread, with every mask outlined and marked with its instance's number.

    instances: for each {frame number: segmentation}. Raises DataError for a source that cannot be read, a mask that does
    not fit its frame, or when no annotated frame lies within the file.
    """
    annotated = sorted({number for frames in instances for number in frames})
    budget = VisualBudget(max_frames=min(count, len(annotated)), min_pixels=_LEAST_PIXELS, max_pixels=max_pixels)
    clip = read_clip(source, ClipLimits(budget), annotated, folder_fps=fps or FOLDER_FPS)
    outlined = []
    for number, frame in zip(clip.numbers, clip.frames):
        masks = {instance: frames[number] for instance, frames in enumerate(instances) if number in frames}
        if masks:
            decoded = {i: decode_mask(rle, clip.height, clip.width) for i, rle in masks.items()}
            outlined.append(OutlinedFrame(number, jpeg_uri(outline(frame.permute(1, 2, 0).numpy(), decoded))))
    if not outlined:
        raise DataError(
            f"none of the annotated frames {annotated[:5]} lies within {clip.total} frames", reason=Reason.NO_MASK
        )
    return outlined


def outline(frame: np.ndarray, masks: dict[int, np.ndarray]) -> Image.Image:
    """The frame uint8[h, w, 3] with a line around each mask uint8[H, W] and its instance's number beside it."""
    picture = Image.fromarray(frame)
    width = max(3, round(max(picture.size) / 170) | 1)
    for instance, mask in masks.items():
        colour = COLOURS[colour_of(instance)]
        picture.paste(colour, mask=Image.fromarray(outline_of(mask, picture.height, picture.width, width)))
        if mask.any():
            corner = [int(pixels.min()) for pixels in mask.nonzero()[::-1]]
            x, y = (c * size / whole for c, size, whole in zip(corner, picture.size, mask.shape[::-1]))
            ImageDraw.Draw(picture).text((x, y), str(instance), colour, stroke_width=2, stroke_fill="black")
    return picture
