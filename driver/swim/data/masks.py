"""Masks: COCO RLE or polygons to pixels, pixels to the share of each grid cell that the object covers."""

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from pycocotools import mask as coco

from swim.errors import DataError, Reason

_MOST_CHARACTERS = 7  # of a run length: 35 bits hold any that pycocotools can store
_LONGEST_RUN = 2**32 - 1


def decode_mask(segmentation: dict | list, height: int, width: int) -> np.ndarray:
    """uint8[height, width] of a COCO RLE (compressed or not) or of polygons in pixels.

    A mask one pixel off its frame is resized to it (nearest), see `is_off_by_one`. Raises DataError (BAD_MASK) when it
    does not decode, or differs more.
    """
    try:
        if isinstance(segmentation, list):
            if not segmentation or any(len(polygon) < 6 or len(polygon) % 2 for polygon in segmentation):
                raise ValueError("a polygon is x, y of at least three points")
            mask = coco.decode(coco.merge(coco.frPyObjects(segmentation, height, width)))
        else:
            rle = {"size": segmentation["size"], "counts": _as_bytes(segmentation)}
            found, expected = _pixels(rle["counts"]), rle["size"][0] * rle["size"][1]
            if found != expected:  # of a short one pycocotools leaves the rest as it found the memory
                raise ValueError(f"{found} pixels in counts, {expected} in size")
            mask = coco.decode(rle)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        problem = f"segmentation: not a COCO RLE {{size, counts}} or list of polygons ({error})"
        raise DataError(problem, reason=Reason.BAD_MASK) from None
    off = max(abs(mask.shape[0] - height), abs(mask.shape[1] - width))
    if off > 1:
        problem = f"expected a mask of {height} x {width} as its frame, found {mask.shape[0]} x {mask.shape[1]}"
        raise DataError(f"segmentation: {problem}", reason=Reason.BAD_MASK)
    if off:
        rows = np.minimum(np.arange(height), mask.shape[0] - 1)
        mask = mask[rows][:, np.minimum(np.arange(width), mask.shape[1] - 1)]
    return mask


def is_off_by_one(segmentation: dict | list, height: int, width: int) -> bool:
    """Whether `decode_mask` resizes this mask, one that it decodes. Polygons are drawn on the frame and always fit."""
    return isinstance(segmentation, dict) and tuple(segmentation["size"]) != (height, width)


def _as_bytes(segmentation: dict[str, Any]) -> bytes:
    """The compressed counts of an RLE of any form."""
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return coco.frPyObjects(segmentation, *segmentation["size"])["counts"]
    return counts.encode() if isinstance(counts, str) else counts


def _pixels(counts: bytes) -> int:
    """Pixels that compressed run lengths add up to. Raises ValueError where they are cut off, negative or too large.

    A run is five bits a character, the low ones first, with a sign; 32 says that another character follows. From the
    fourth on a run is stored as the difference to the run two before, so the odd ones are one running sum and the even
    ones behind the first another.
    """
    if not counts:
        return 0
    bits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
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
    tall, wide = _extent(mask.any(axis=1)), _extent(mask.any(axis=0))  # most objects are small: their box is enough
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
