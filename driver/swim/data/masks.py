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
            mask = coco.decode(coco.merge(coco.frPyObjects(segmentation, height, width)))
        elif isinstance(segmentation["counts"], list):
            mask = coco.decode(coco.frPyObjects(segmentation, *segmentation["size"]))
        else:
            mask = coco.decode({"size": segmentation["size"], "counts": _as_bytes(segmentation["counts"])})
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"segmentation: not a COCO RLE {{size, counts}} or list of polygons ({error})") from None
    off = max(abs(mask.shape[0] - height), abs(mask.shape[1] - width))
    if off > 1:
        raise DataError(f"segmentation: expected a mask of {height} x {width} as its frame, found {mask.shape[0]} x {mask.shape[1]}")
    if off:
        rows = np.minimum(np.arange(height), mask.shape[0] - 1)
        mask = mask[rows][:, np.minimum(np.arange(width), mask.shape[1] - 1)]
    return mask


def _as_bytes(counts: Any) -> bytes:
    return counts.encode() if isinstance(counts, str) else counts


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
