"""Referring segmentation by attention: scores of models on an annotated file, at a threshold that was learnt elsewhere."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from swim.attention.grounding import THRESHOLDS
from swim.attention.segmentation import (
    Segmented,
    boundary,
    box_of,
    box_overlap,
    region,
    region_by_threshold,
    segment,
    true_masks,
    upsampled,
)
from swim.data.settings import DataSettings
from swim.eval.records import score_records
from swim.eval.stats import bootstrap_means, rounded, rounded_interval
from swim.infer.questions import ItemFile

MAPS = "maps"  # a folder
SCORES = ("J&F", "J", "F", "box_iou", "box_at_0.5", "whole_frame_J")

Values = dict[str, Any]


def score_maps(
    model: str, file: ItemFile, settings: DataSettings, folder: Path, workers: int
) -> tuple[dict[str, Values], dict[str, str]] | None:
    """See `score_records`: J of each object by threshold. The maps go to maps/ in `folder`.

    A score: {"objects": [instance], "iou": [object][threshold], means over the object's frames, "left_out": frames in which an
    object is annotated as covering nothing}.
    """
    (folder / MAPS).mkdir(parents=True, exist_ok=True)

    def score(model, collator, sample, place) -> Values:
        found = segment(model, collator, sample)
        torch.save(asdict(found), folder / MAPS / f"{place}.pt")
        return _by_threshold(found, sample.record.instances)

    return score_records(model, file, settings, folder, workers, score)


def choose_threshold(scores: dict[str, Values]) -> float:
    """That of THRESHOLDS with the highest J, mean over objects. Raises ValueError without any object."""
    curves = [curve for found in scores.values() for curve in found["iou"]]
    if not curves:
        raise ValueError("no object of these records is annotated in a frame that is shown: no threshold can be learnt")
    return THRESHOLDS[int(np.mean(curves, axis=0).argmax())]


def score_masks(scores: dict[str, Values], file: ItemFile, folder: Path, threshold: float | None) -> dict[str, Values]:
    """{id: {"threshold", "objects": [{score: value}]}}, means over an object's frames.

    threshold: None learns two, on the records of even and of odd place, and uses each on the others.
    """
    keys = list(scores)
    halves = {key: place % 2 for place, key in enumerate(keys)}
    if threshold is None:
        learnt = [choose_threshold({key: scores[key] for key in keys if halves[key] != half}) for half in (0, 1)]
    else:
        learnt = [threshold, threshold]
    places = {key: number for number, key in enumerate(file.items)}
    found = {}
    for key in tqdm(keys, desc="masks", unit="item"):
        content = torch.load(folder / MAPS / f"{places[key]}.pt", weights_only=True)
        maps, at = Segmented(**content), learnt[halves[key]]
        found[key] = {"threshold": at, "objects": _objects(maps, file.items[key].instances, at)}
    return found


def summarise(found: dict[str, Values]) -> Values:
    """Means over objects with 95 % intervals over records. Raises ValueError without any object."""
    used = [values["objects"] for values in found.values() if values["objects"]]
    if not used:
        raise ValueError("no object is annotated in a frame that is shown: nothing to score")
    rows, weights = _rows(used)
    means = bootstrap_means(rows, weights)
    edges = zip(SCORES, means.value, means.low, means.high)
    return {
        "records": len(used),
        "objects": int(weights.sum()),
        "thresholds": sorted({values["threshold"] for values in found.values()}),
        "scores": {name: _entry(value, low, high, len(used)) for name, value, low, high in edges},
    }


def compare(first: dict[str, Values], second: dict[str, Values]) -> dict[str, Values]:
    """Second less first over the objects of records that both scored, with 95 % intervals."""
    both = [key for key in first if first[key]["objects"] and second.get(key, {}).get("objects")]
    if not both:
        return {}
    means = [bootstrap_means(*_rows([each[key]["objects"] for key in both])) for each in (first, second)]
    low, high = np.quantile(means[1].draws - means[0].draws, [0.025, 0.975], axis=0)
    difference = means[1].value - means[0].value
    edges = zip(SCORES, difference, low, high)
    return {name: _entry(value, below, above, len(both)) for name, value, below, above in edges}


def _by_threshold(found: Segmented, instances: list[dict]) -> Values:
    curves: dict[int, list[np.ndarray]] = {}
    empty = 0
    for instance, heat, mask in zip(found.instances, found.maps, true_masks(found, instances)):
        if not mask.any():
            empty += 1
            continue
        curves.setdefault(instance, []).append(region_by_threshold(upsampled(heat, *mask.shape), mask))
    means = [np.round(np.mean(some, axis=0), 6).tolist() for some in curves.values()]
    return {"objects": list(curves), "iou": means, "left_out": empty}


def _objects(found: Segmented, instances: list[dict], threshold: float) -> list[dict[str, float]]:
    by_object: dict[int, list[list[float]]] = {}
    for instance, heat, mask in zip(found.instances, found.maps, true_masks(found, instances)):
        if not mask.any():
            continue
        chosen = upsampled(heat, *mask.shape) >= np.float32(threshold)
        j, f = region(chosen, mask), boundary(chosen, mask)
        box = box_overlap(box_of(chosen), box_of(mask))
        values = [(j + f) / 2, j, f, box, float(box >= 0.5), float(mask.mean())]
        by_object.setdefault(instance, []).append(values)
    means = (np.mean(values, axis=0) for values in by_object.values())
    return [{name: rounded(float(value)) for name, value in zip(SCORES, some)} for some in means]


def _rows(used: list[list[dict[str, float]]]) -> tuple[np.ndarray, np.ndarray]:
    """(float64[records, scores], means over a record's objects, how many it has)."""
    rows = [[np.mean([one[name] for one in objects]) for name in SCORES] for objects in used]
    return np.array(rows), np.array([len(objects) for objects in used])


def _entry(value: float, low: float, high: float, records: int) -> Values:
    return {"value": rounded(float(value)), "interval_95": rounded_interval((low, high) if records > 1 else None)}
