"""Grounding of models on an annotated file: scores with intervals, and differences of two models."""

from pathlib import Path

import numpy as np

from swim.attention.grounding import FIXED_THRESHOLD, FUSED, SCORES, THRESHOLDS, ground
from swim.data.settings import DataSettings
from swim.eval.records import score_records
from swim.eval.stats import WeightedMeans, bootstrap_means, rounded_interval
from swim.infer.questions import ItemFile

KINDS = ("question", "answer", "all")
COLUMNS = (*SCORES, "miou_fixed", "miou_best")


def score_file(
    model: str, file: ItemFile, settings: DataSettings, layers: list[int] | None, folder: Path, workers: int
):
    """({id: scores of `ground`}, {id: reason of failure}) of one model; None on every process but the first.

    Raises ValueError when `folder` holds another evaluation.
    """
    facts = {"file": file.path.name, "sha256": file.sha256, "records": len(file.items)}

    def score(model, collator, sample, place) -> dict:
        return dict(ground(model, collator, sample, layers))

    return score_records(model, file, settings, folder, workers, score, data=facts, layers=layers)


def summarise(scores: dict[str, dict]) -> dict[str, dict]:
    """For "question", "answer" and "all" mentions: counts, chance and, for each map, values with 95 % intervals.

    Means are over (noun token, step) pairs; records are what the intervals draw. miou_best is at the one threshold of
    THRESHOLDS that is best for the whole file, which is named.
    """
    return {kind: _summary(_parts(scores, kind)) for kind in KINDS}


def _parts(scores: dict[str, dict], kind: str) -> dict[str, dict]:
    """The scores of one kind by record; "all" is the mean of both, by their pairs."""
    if kind != "all":
        return {key: entry[kind] for key, entry in scores.items()}
    return {key: _together(entry["question"], entry["answer"]) for key, entry in scores.items()}


def _together(first: dict, second: dict) -> dict:
    counts = {name: first[name] + second[name] for name in ("pairs", "left_out")}
    used = [part for part in (first, second) if part["pairs"]]
    if len(used) < 2:
        return {**(used[0] if used else first), **counts}
    weights = [part["pairs"] / counts["pairs"] for part in used]

    def mean(values):
        return np.average(np.asarray(values), axis=0, weights=weights).tolist()

    maps = {
        name: {score: mean([part["maps"][name][score] for part in used]) for score in first["maps"][name]}
        for name in first["maps"]
    }
    return {**counts, "chance": mean([part["chance"] for part in used]), "maps": maps}


def _summary(parts: dict[str, dict]) -> dict:
    used = [part for part in parts.values() if part["pairs"]]
    summary = {
        "records": len(used),
        "records_without_pairs": len(parts) - len(used),
        "pairs": sum(part["pairs"] for part in used),
        "left_out": sum(part["left_out"] for part in parts.values()),
    }
    if not used:
        return summary
    summary["chance"] = _rounded(np.average([part["chance"] for part in used], weights=[p["pairs"] for p in used]))
    summary["maps"] = {}
    for name in used[0]["maps"]:
        means, best = _means(used, name)
        values = {
            column: {
                "value": _rounded(means.value[n]),
                "interval_95": _interval(means.low[n], means.high[n], len(used)),
            }
            for n, column in enumerate(COLUMNS)
        }
        values["miou_fixed"]["threshold"] = FIXED_THRESHOLD
        values["miou_best"]["threshold"] = THRESHOLDS[best]
        summary["maps"][name] = values
    return summary


def _means(used: list[dict], name: str) -> tuple[WeightedMeans, int]:
    """Means of COLUMNS over records, and the place of the best threshold."""
    pairs = np.array([part["pairs"] for part in used])
    overlaps = np.array([part["maps"][name]["iou"] for part in used])
    best = int((pairs @ overlaps).argmax())
    columns = [np.array([part["maps"][name][score] for part in used]) for score in SCORES]
    columns += [overlaps[:, THRESHOLDS.index(FIXED_THRESHOLD)], overlaps[:, best]]
    return bootstrap_means(np.array(columns).T, pairs), best


def compare(first: dict[str, dict], second: dict[str, dict]) -> dict[str, dict]:
    """For each kind, of the fused map: second minus first over the records that both scored, with 95 % intervals."""
    result = {}
    for kind in KINDS:
        parts = [_parts(scores, kind) for scores in (first, second)]
        both = [key for key in parts[0] if all(part.get(key, {}).get("pairs") for part in parts)]
        if both:
            means = [_means([part[key] for key in both], FUSED)[0] for part in parts]
            draws = means[1].draws - means[0].draws
            low, high = np.quantile(draws, [0.025, 0.975], axis=0)
            difference = means[1].value - means[0].value
            result[kind] = {"records": len(both)} | {
                column: {
                    "difference": _rounded(difference[n]),
                    "interval_95": _interval(low[n], high[n], len(both)),
                }
                for n, column in enumerate(COLUMNS)
            }
    return result


def _rounded(value: float) -> float:
    return round(float(value), 4)


def _interval(low: float, high: float, records: int) -> list[float] | None:
    """Of one record nothing can be drawn anew."""
    return rounded_interval((low, high) if records > 1 else None)
