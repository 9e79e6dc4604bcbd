"""Heat over a frame: its colours, how much of the frame they cover, and the line around an object."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from matplotlib import colormaps

from swim.data.masks import outline_of

COLOURS = "plasma"  # perceptually uniform, and bright from end to end
OUTLINE, OUTLINE_EDGE = (255, 255, 255), (0, 0, 0)  # white edged with black: seen on any frame and any heat
_COVERED = 0.7  # the most of a frame that heat covers
_OPAQUE_FROM = 0.6  # of the scale: hotter cells differ in colour alone
_CLEARING = 1.5  # above 1 keeps a veil off what is hardly looked at
_LINE_PX = 5  # of each of the two lines, half of which shows


@dataclass(frozen=True)
class Scale:
    """What the colours mean: from 0 to `highest`; hotter cells have the last colour. label: printed in the picture."""

    label: str
    highest: float


def blend(frame: np.ndarray, heat: np.ndarray, highest: float) -> np.ndarray:
    """uint8[h, w, 3]: heat float[H, W], smoothly enlarged, over a frame uint8[h, w, 3] in its own colours.

    A frame that nothing looks at stays as it is.
    """
    heat = np.ascontiguousarray(heat, np.float32)
    added, kept = _layer(heat.tobytes(), heat.shape, frame.shape[:2], highest)
    return (frame * kept + added).round().astype(np.uint8)


@lru_cache(maxsize=16)  # all frames of a temporal step are under the same heat
def _layer(cells: bytes, grid: tuple[int, ...], size: tuple[int, int], highest: float) -> tuple[np.ndarray, np.ndarray]:
    """(float32[h, w, 3] that heat adds to a frame, float32[h, w, 1] how much of the frame stays)."""
    heat = np.frombuffer(bytearray(cells), np.float32).reshape(grid)
    shares = np.clip(enlarge(heat, size) / highest, 0, 1)
    alpha = opacity(shares)[..., None].astype(np.float32)
    return colormaps[COLOURS](shares)[..., :3].astype(np.float32) * 255 * alpha, 1 - alpha


def enlarge(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32[h, w] of float[H, W]: bicubic, kept between the lowest and the highest cell."""
    cells = torch.from_numpy(np.ascontiguousarray(heat))[None, None].float()
    smooth = torch.nn.functional.interpolate(cells, size=size, mode="bicubic")[0, 0]
    return smooth.clamp(cells.min(), cells.max()).numpy()


def opacity(shares: np.ndarray) -> np.ndarray:
    """How much of the frame the colour covers, for heat as a share of the scale: at 0 nothing."""
    return _COVERED * np.clip(shares / _OPAQUE_FROM, 0, 1) ** _CLEARING


def colour_strip(height: int, width: int) -> np.ndarray:
    """uint8[height, width, 3]: the colours from 0 at the left to the highest at the right, as they look on a light frame."""
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (height, 1))
    return blend(np.full((height, width, 3), 225, np.uint8), ramp, 1.0)


def paint_outline(picture: np.ndarray, mask: np.ndarray):
    """Draws a line around a mask uint8[H, W], resized to the picture, into uint8[h, w, 3]."""
    height, width = picture.shape[:2]
    picture[outline_of(mask, height, width, 2 * _LINE_PX - 3)] = OUTLINE_EDGE
    picture[outline_of(mask, height, width, _LINE_PX)] = OUTLINE
