"""Referring segmentation: the attention of a named object as its mask."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from swim.cli.runs.grounding import annotated_file
from swim.cli.runs.reading import data_settings
from swim.errors import DataError
from swim.eval.items import console, today
from swim.eval.segmentation import SCORES, choose_threshold, compare, score_maps, score_masks, summarise
from swim.eval.stats import interval_words
from swim.files import decode_text, read_file, write_atomically
from swim.model_name import check_model_name, short_names


def run(options: argparse.Namespace) -> int:
    try:
        report = evaluate(options)
    except (DataError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(report, Path(options.output))
    return int(any(entry["errors"] for entry in report["models"].values()))


def evaluate(options: argparse.Namespace) -> dict:
    """The report. Raises ValueError, DataError."""
    names = short_names(options.model)
    for model in options.model:
        check_model_name(model)
    thresholds = _thresholds(options.threshold_from, names)
    file, without_masks = annotated_file(options)
    settings = replace(data_settings(options), keep_annotated_frames=options.keep_annotated_frames)
    output = Path(options.output)
    models, masks = {}, {}
    for name, model in zip(names, options.model):
        scores, errors = score_maps(model, file, settings, output / name, options.workers)
        masks[name] = score_masks(scores, file, output / name, thresholds.get(name))
        models[name] = {
            "model": model,
            **summarise(masks[name]),
            "best_threshold": choose_threshold(scores),
            "left_out": sum(found["left_out"] for found in scores.values()),
            "errors": errors,
        }
    report = {
        "benchmark": "segmentation",
        "date": today(),
        "data": file.facts,
        "records_without_annotation": without_masks,
        "keep_annotated_frames": options.keep_annotated_frames,
        "threshold_from": options.threshold_from,
        "models": models,
        "differences": [
            {"first": names[0], "second": name, **compare(masks[names[0]], masks[name])} for name in names[1:]
        ],
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
    for name, entry in report["models"].items():
        if entry["errors"]:
            console.print(
                f"{name}: {len(entry['errors'])} record(s) could not be read, see {output}/{name}/errors.jsonl",
                style="red",
            )
    objects = next(iter(report["models"].values()))["objects"]
    console.print(f"{objects:,} objects. Written: {output}/report.json")
