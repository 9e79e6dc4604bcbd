"""Masks: COCO RLE or polygons to pixels, pixels to the share of each grid cell that the object covers."""

import math
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain

import numpy as np
import torch
from PIL import Image, ImageFilter
from pycocotools import mask as coco

from swim.errors import DataError, Reason

_UNITS = 1.0  # a polygon whose coordinates all lie below is in shares of the frame
_BEYOND_PX = 1.0  # by how much a polygon may leave its frame: annotators' tools round, and count from 0 or 1
_MOST_CHARACTERS = 7  # of a run length: 35 bits hold any that pycocotools can store
_LONGEST_RUN = 2**32 - 1
_LONGEST_SIDE = 2**16  # px: the area of a square of this side is the longest run


def decode_mask(segmentation: dict | list, height: int, width: int) -> np.ndarray:
    """uint8[height, width] of a COCO RLE (compressed or not) or of polygons in pixels.

    A mask one pixel off its frame is resized to it (nearest), see `is_off_by_one`. Raises DataError (BAD_MASK) when it
    does not decode, when an RLE's size differs more, or when a polygon leaves the frame by more than a pixel. No number
    reaches pycocotools unchecked: its C code trusts them all.
    """
    with _refusing():
        if isinstance(segmentation, list):
            polygons = _polygons(segmentation)
            _refuse_polygons_off(polygons, height, width)
            return coco.decode(coco.merge(coco.frPyObjects(polygons, height, width)))
        size, counts = _checked_rle(segmentation)
    off = max(abs(size[0] - height), abs(size[1] - width))
    if off > 1:
        problem = f"expected a mask of {height} x {width} as its frame, found {size[0]} x {size[1]}"
        raise DataError(f"segmentation: {problem}", reason=Reason.BAD_MASK)
    mask = coco.decode({"size": size, "counts": counts})
    if off:
        rows = np.minimum(np.arange(height), mask.shape[0] - 1)
        mask = mask[rows][:, np.minimum(np.arange(width), mask.shape[1] - 1)]
    return mask


def check_mask(segmentation: dict | list):
    """Raises DataError (BAD_MASK) for what `decode_mask` takes on a frame of no size; nothing is decoded."""
    with _refusing():
        _polygons(segmentation) if isinstance(segmentation, list) else _checked_rle(segmentation)


@contextmanager
def _refusing():
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        problem = f"segmentation: not a COCO RLE {{size, counts}} or list of polygons ({error})"
        raise DataError(problem, reason=Reason.BAD_MASK) from None


def is_off_by_one(segmentation: dict | list, height: int, width: int) -> bool:
    """Whether `decode_mask` resizes this mask, one that it decodes. Polygons are drawn on the frame and always fit."""
    return isinstance(segmentation, dict) and tuple(segmentation["size"]) != (height, width)


def _polygons(segmentation: list) -> list[list[float]]:
    """The polygons, each x, y, x, y, ... in finite numbers. Raises ValueError or TypeError for others."""
    if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
        raise ValueError("a polygon is x, y of at least three points")
    for number in chain.from_iterable(segmentation):
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise ValueError(f"a polygon is made of finite numbers, found {str(number)[:40]}")
    return segmentation


def _refuse_polygons_off(polygons: list[list[float]], height: int, width: int):
    """Raises ValueError for polygons in shares of the frame, and for one that leaves the frame."""
    if max(map(max, polygons)) <= _UNITS and min(map(min, polygons)) >= 0 and min(height, width) > 1:
        raise ValueError(f"a polygon is in pixels; found all of it from 0 to 1: multiply by {width} and {height}")
    for name, start, side in (("x", 0, width), ("y", 1, height)):
        numbers = [number for polygon in polygons for number in polygon[start::2]]
        for number in (min(numbers), max(numbers)):
            if not -_BEYOND_PX <= number <= side + _BEYOND_PX:
                raise ValueError(
                    f"a polygon leaves its frame of {height} x {width}: {name} = {number:g}; cut it off there"
                )


def _checked_rle(segmentation: dict) -> tuple[list[int], bytes]:
    """(size, compressed counts) of an RLE of any form, whose runs fill the size. Raises ValueError and its like."""
    size, counts = segmentation["size"], segmentation["counts"]
    if len(size) != 2 or not all(_is_whole(side) and 0 < side <= _LONGEST_SIDE for side in size):
        raise ValueError(f"expected size: [height, width] in pixels, found {str(size)[:40]}")
    size = [int(side) for side in size]
    if isinstance(counts, list):
        if not all(_is_whole(run) and run >= 0 for run in counts):
            raise ValueError("counts are whole numbers, none below 0")
        _refuse_gaps(int(sum(counts)), size)
        return size, coco.frPyObjects({"size": size, "counts": [int(run) for run in counts]}, *size)["counts"]
    counts = counts.encode() if isinstance(counts, str) else counts
    if not isinstance(counts, bytes):
        raise TypeError(f"counts: expected text or a list of numbers, found {type(counts).__name__}")
    _refuse_gaps(_pixels(counts), size)
    return size, counts


def _refuse_gaps(found: int, size: list[int]):
    """Of a short one pycocotools leaves the rest as it found the memory."""
    if found != size[0] * size[1]:
        raise ValueError(f"{found} pixels in counts, {size[0] * size[1]} in size")


def _is_whole(number) -> bool:
    if isinstance(number, float):  # 3.0 as JavaScript writes it
        return number.is_integer()
    return isinstance(number, int) and not isinstance(number, bool)


def _pixels(counts: bytes) -> int:
    """Pixels that compressed run lengths add up to. Raises ValueError where they are cut off, negative or too large.

    A run is five bits a character, the low ones first, with a sign; 32 says that another character follows. From the
    fourth on a run is stored as the difference to the run two before, so the odd ones are one running sum and the even
    ones after the first another.
    """
    if not counts:
        return 0
    bits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if bits.min() < 0 or bits.max() > 63:
        raise ValueError("counts holds a character that no RLE has")
    (ends,) = np.nonzero(bits & 32 == 0)
    if not len(ends) or ends[-1] != len(bits) - 1:
        raise ValueError("counts is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_CHARACTERS:
        raise ValueError("a run length in counts is too large")
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    runs = np.add.reduceat((bits & 31) << shifts, starts) - ((bits[ends] & 16) << (shifts[ends] + 1))
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    if runs.min() < 0 or runs.max() > _LONGEST_RUN:
        raise ValueError("a run length in counts is negative or too large")
    return int(runs.sum())


def outline_of(mask: np.ndarray, height: int, width: int, line_px: int) -> np.ndarray:
    """bool[height, width]: a line around the mask uint8[H, W], resized to that picture. line_px: odd; half of it shows."""
    shape = Image.fromarray(mask * np.uint8(255)).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(shape.filter(ImageFilter.MaxFilter(line_px))) > np.asarray(shape)


def cover_cells(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """float32[rows, columns]: the exact share of each cell that the mask uint8[h, w] covers.

    Cells need not align with pixels; a pixel that two cells cut counts for each by its part.
    Example: a 1 x 3 mask [1, 1, 0] on one row of two cells -> [1.0, 1/3].
    """
    # most objects are small: their box is enough
    tall, wide = _extent(np.any(mask, axis=1)), _extent(np.any(mask, axis=0))
    box = torch.from_numpy(mask[tall, wide].astype(np.float32))
    down, across = _overlaps(mask.shape[0], rows)[:, tall], _overlaps(mask.shape[1], columns)[:, wide]
    # torch has one thread in a worker process, while numpy would multiply on every core of the machine in each of them
    return (torch.from_numpy(down) @ box @ torch.from_numpy(across).T).numpy()


def _extent(occupied: np.ndarray) -> slice:
    """From the first to the last True; nothing where there is none."""
    (places,) = np.nonzero(occupied)
    return slice(places[0], places[-1] + 1) if len(places) else slice(0, 0)


@lru_cache(maxsize=64)
def _overlaps(pixels: int, cells: int) -> np.ndarray:
    """float32[cells, pixels]: the part of each cell's length that each pixel fills; every row sums to 1."""
    edges = np.arange(cells + 1) * (pixels / cells)
    pixel = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (overlap.clip(min=0) * (cells / pixels)).astype(np.float32)
