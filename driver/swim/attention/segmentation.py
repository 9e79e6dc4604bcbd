"""A fused map as a mask, and how good a mask it is: J and F as DAVIS defines them, and boxes."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from swim.attention.grounding import THRESHOLDS, nouns_of
from swim.data.collator import SwimCollator
from swim.data.masks import decode_mask
from swim.data.sample import Sample
from swim.models.supervision import fuse_layers, log_attention_maps, supervision_of

# Share of a frame's diagonal within which a boundary counts as found (Perazzi et al., 2016).
BOUNDARY_SHARE = 0.008
_LEVELS = np.array(THRESHOLDS, dtype=np.float32)


@dataclass(frozen=True)
class Segmented:
    """The maps of one record's objects in the annotated frames that its clip shows.

    instances, frames: of each map. maps: float32[M, H, W], each with its lowest cell at 0 and its highest at 1.
    height, width: of a frame.
    """

    instances: list[int]
    frames: list[int]
    maps: torch.Tensor
    height: int
    width: int


@torch.no_grad()
def segment(model, collator: SwimCollator, sample: Sample) -> Segmented:
    """The fused map of each object, mean over the tokens that name it in the question, or else in the answer."""
    nouns, clip, record = nouns_of(model, collator, sample), sample.clip, sample.record
    instances, frames, maps = [], [], []
    fused = None
    for instance, annotated in enumerate(record.instances):
        named = nouns.instances == instance
        asked = named & ~nouns.answer
        rows = (asked if asked.any() else named).nonzero().flatten()
        shown = [number for number in clip.numbers if number in annotated]
        if not len(rows) or not shown:
            continue
        if fused is None:
            fused = _fused(model, nouns)
        mean = fused[rows].mean(0)
        low, high = mean.amin((1, 2), keepdim=True), mean.amax((1, 2), keepdim=True)
        scaled = torch.where(high > low, (mean - low) / (high - low), 0.0)
        for number in shown:
            instances.append(instance)
            frames.append(number)
            maps.append(scaled[clip.numbers.index(number) // collator.reader.step_frames].cpu())
    stacked = torch.stack(maps) if maps else torch.empty(0, 0, 0)
    return Segmented(instances, frames, stacked, clip.height, clip.width)


def upsampled(heat: torch.Tensor, height: int, width: int) -> np.ndarray:
    """float32[height, width] of float32[H, W], bilinear between the middles of the cells."""
    whole = torch.nn.functional.interpolate(heat[None, None], (height, width), mode="bilinear", align_corners=False)
    return whole[0, 0].numpy()


def region_by_threshold(heat: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """float64[len(THRESHOLDS)]: J of `heat >= threshold` for each of THRESHOLDS. heat: float32[h, w]. mask: bool[h, w]."""
    level = np.searchsorted(_LEVELS, heat, side="right")  # how many thresholds a pixel reaches
    count = len(_LEVELS) + 1
    inside, whole = np.bincount(level[mask], minlength=count), np.bincount(level.ravel(), minlength=count)
    common, chosen = (np.cumsum(each[::-1])[::-1][1:] for each in (inside, whole))
    union = chosen + mask.sum() - common
    return np.where(union > 0, common / np.maximum(union, 1), 1.0)


def region(found: np.ndarray, mask: np.ndarray) -> float:
    """DAVIS' J: intersection over union of bool[h, w]; 1 where both are empty."""
    union = (found | mask).sum()
    return float((found & mask).sum() / union) if union else 1.0


def boundary(found: np.ndarray, mask: np.ndarray) -> float:
    """DAVIS' F of bool[h, w]: the harmonic mean of how much of either boundary lies near the other.

    Near is within BOUNDARY_SHARE of the diagonal, rounded up to whole px. Without a boundary on one side it is 0, without
    any it is 1.
    """
    radius = math.ceil(BOUNDARY_SHARE * math.hypot(*mask.shape))
    lines = [_boundary_of(found), _boundary_of(mask)]
    if not all(line.any() for line in lines):
        return float(not any(line.any() for line in lines))
    near = [ndimage.distance_transform_edt(~line) <= radius for line in lines]
    precision, recall = lines[0][near[1]].sum() / lines[0].sum(), lines[1][near[0]].sum() / lines[1].sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def box_of(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """(top, left, bottom, right) around the largest connected part of bool[h, w], the last two exclusive; None if empty."""
    parts, count = ndimage.label(mask)
    if not count:
        return None
    largest = int(np.bincount(parts.ravel())[1:].argmax())
    rows, columns = ndimage.find_objects(parts)[largest]
    return rows.start, columns.start, rows.stop, columns.stop


def box_overlap(one: tuple[int, int, int, int] | None, other: tuple[int, int, int, int] | None) -> float:
    """Intersection over union of two boxes; 0 without one of them."""
    if one is None or other is None:
        return 0.0
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    common = max(height, 0) * max(width, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def true_masks(found: Segmented, instances: list[dict]) -> list[np.ndarray]:
    """bool[h, w] for each map: what is annotated there."""
    pairs = zip(found.instances, found.frames)
    return [decode_mask(instances[i][number], found.height, found.width).astype(bool) for i, number in pairs]


def _fused(model, nouns) -> torch.Tensor:
    """float32[Q, T, H, W]."""
    config = supervision_of(model.config)
    config.eps = "auto"
    log_maps, cells = log_attention_maps(model, nouns.positions, None, **nouns.inputs)
    rows = log_maps.flatten(3).unbind(2)
    return fuse_layers(list(rows), cells, config)[0]


def _boundary_of(mask: np.ndarray) -> np.ndarray:
    """bool[h, w]: pixels that differ from the one to the right, below, or diagonally below; as DAVIS draws it, one px wide."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here != padded[:-1, 1:]) | (here != padded[1:, :-1]) | (here != padded[1:, 1:])
