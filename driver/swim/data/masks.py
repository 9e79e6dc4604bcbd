"""Masks: COCO RLE or polygons to pixels, pixels to the share of each grid cell that the object covers."""

from functools import lru_cache
from typing import Any

import numpy as np
from pycocotools import mask as coco

from swim.data.errors import DataError


def decode_mask(segmentation: dict | list, height: int, width: int) -> np.ndarray:
    """uint8[height, width] of a COCO RLE (compressed or not) or of polygons in pixels.

    A mask one pixel off its frame is resized to it (nearest). Raises DataError when it does not decode, or differs more.
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
        raise DataError(f"segmentation: not a COCO RLE {{size, counts}} or list of polygons ({error})") from None
    off = max(abs(mask.shape[0] - height), abs(mask.shape[1] - width))
    if off > 1:
        raise DataError(f"segmentation: expected a mask of {height} x {width} as its frame, found {mask.shape[0]} x {mask.shape[1]}")
    if off:
        rows = np.minimum(np.arange(height), mask.shape[0] - 1)
        mask = mask[rows][:, np.minimum(np.arange(width), mask.shape[1] - 1)]
    return mask


def _as_bytes(segmentation: dict[str, Any]) -> bytes:
    """The compressed counts of an RLE of any form."""
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return coco.frPyObjects(segmentation, *segmentation["size"])["counts"]
    return counts.encode() if isinstance(counts, str) else counts


def _pixels(counts: bytes) -> int:
    """Pixels that compressed run lengths add up to.

    A run is five bits a character, the low ones first, with a sign; from the fourth on it is stored as the difference
    to the run two before.
    """
    runs, value, shift = [], 0, 0
    for character in counts:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return sum(runs)


def cover_cells(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """float32[rows, columns]: the exact share of each cell that the mask uint8[h, w] covers.

    Cells need not align with pixels; a pixel that two cells cut counts for each by its part.
    Example: a 1 x 3 mask [1, 1, 0] on one row of two cells -> [1.0, 1/3].
    """
    return _overlaps(mask.shape[0], rows) @ mask.astype(np.float32) @ _overlaps(mask.shape[1], columns).T


@lru_cache(maxsize=64)
def _overlaps(pixels: int, cells: int) -> np.ndarray:
    """float32[cells, pixels]: the part of each cell's length that each pixel fills; every row sums to 1."""
    edges = np.arange(cells + 1) * (pixels / cells)
    pixel = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (overlap.clip(min=0) * (cells / pixels)).astype(np.float32)
