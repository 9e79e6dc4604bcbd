"""Referring segmentation: the attention of a named object as its mask."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from swim.cli.runs.reading import data_settings
from swim.cli.runs.studies import annotated_file, named_models, run_study
from swim.eval.items import console, today
from swim.eval.segmentation import SCORES, choose_threshold, compare, score_maps, score_masks, summarise
from swim.eval.stats import interval_words
from swim.files import decode_text, read_file, write_atomically


def run(options: argparse.Namespace) -> int:
    return run_study(options, evaluate, print_report)


def evaluate(options: argparse.Namespace) -> dict | None:
    """The report; None on every process but the first. Raises ValueError, DataError."""
    named = named_models(options)
    thresholds = _thresholds(options.threshold_from, list(named))
    file, without_masks = annotated_file(options)
    settings = replace(data_settings(options), keep_annotated_frames=options.keep_annotated_frames)
    output, models, masks = Path(options.output), {}, {}
    for name, model in named.items():
        found = score_maps(model, file, settings, output / name, options.workers)
        if found is None:
            continue
        scores, errors = found
        masks[name] = score_masks(scores, file, output / name, thresholds.get(name))
        models[name] = {
            "model": model,
            "folder": str(output / name),
            **summarise(masks[name]),
            "best_threshold": choose_threshold(scores),
            "left_out": sum(each["left_out"] for each in scores.values()),
            "errors": errors,
        }
    if not models:
        return None
    first, *others = models
    report = {
        "benchmark": "segmentation",
        "date": today(),
        "data": file.facts,
        "records_without_annotation": without_masks,
        "keep_annotated_frames": options.keep_annotated_frames,
        "threshold_from": options.threshold_from,
        "models": models,
        "differences": [{"first": first, "second": name, **compare(masks[first], masks[name])} for name in others],
    }
    write_atomically(output / "report.json", json.dumps(report, indent=1) + "\n")
    return report


def _thresholds(path: str | None, names: list[str]) -> dict[str, float]:
    """That of each model in another report. Raises ValueError for a report without one of them."""
    if path is None:
        return {}
    try:
        models = json.loads(decode_text(read_file(Path(path), "fix --threshold_from"), path))["models"]
        return {name: float(models[name]["best_threshold"]) for name in names}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"--threshold_from: expected the report of swim segmentation with {', '.join(names)}, found {path}, which lacks "
            f"{error}"
        ) from None


def print_report(report: dict, output: Path):
    table = Table(title=f"masks from attention, {report['data']['file']}")
    for column in ("", *report["models"]):
        table.add_column(column)
    for score in SCORES:
        found = [entry["scores"][score] for entry in report["models"].values()]
        table.add_row(score, *(f"{one['value']:.3f} ({interval_words(one['interval_95'], '.3f')})" for one in found))
    table.add_row("threshold", *(", ".join(map(str, entry["thresholds"])) for entry in report["models"].values()))
    console.print(table)
    for other in report["differences"]:
        found = other.get("J&F")
        if found is not None:
            edges = interval_words(found["interval_95"], "+.3f")
            console.print(f"{other['second']} - {other['first']}: J&F {found['value']:+.3f} ({edges})")
    objects = next(iter(report["models"].values()))["objects"]
    console.print(f"{objects:,} objects. Written: {output}/report.json")
