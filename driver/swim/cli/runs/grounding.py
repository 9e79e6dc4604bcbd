"""Grounding: does a model look at the object that is named?"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from rich.table import Table

from swim.attention.grounding import FUSED
from swim.cli.runs.reading import data_settings
from swim.cli.runs.studies import annotated_file, named_models, run_study
from swim.eval.grounding import COLUMNS, KINDS, compare, score_file, summarise
from swim.eval.items import console, today
from swim.eval.stats import interval_words
from swim.files import write_atomically
from swim.processes import processes


def print_report(report: dict, output: Path):
    models = report["models"]
    for kind in KINDS[:2] if any(entry["scores"]["answer"]["pairs"] for entry in models.values()) else KINDS[:1]:
        table = Table(title=f"grounding of {kind} mentions, {report['data']['file']}, fused layers")
        table.add_column("")
        table.add_column("model", overflow="fold")
        table.add_column("mean", justify="right", no_wrap=True)
        table.add_column("95 % interval", justify="right", no_wrap=True)
        for column in COLUMNS:
            for place, (name, value, interval) in enumerate(_lines(report, kind, column)):
                table.add_row("" if place else column, name, value, interval)
            table.add_section()
        for name, entry in models.items():
            counted = entry["scores"][kind]
            chance = f"{counted.get('chance', float('nan')):.3f}"
            table.add_row("chance", name, chance, f"{counted['pairs']:,} pairs", style="dim")
        console.print(table)
    for name, entry in models.items():
        layers = entry["scores"]["all"].get("maps", {})
        pointing = ", ".join(f"{layer} {scores['pointing']['value']:.3f}" for layer, scores in layers.items())
        console.print(f"{name}: pointing by layer: {pointing}")
        missed = entry["scores"]["all"]["records_without_pairs"]
        if missed:
            console.print(
                f"{name}: {missed} record(s) show no annotated frame or object; --keep_annotated_frames shows more"
            )
    if report["records_without_annotation"]:
        console.print(f"{report['records_without_annotation']} record(s) have no mask and were left out")
    told = "the sampler knows" if report["keep_annotated_frames"] else "the sampler does not know"
    console.print(f"{told} which frames are annotated. Written: {output}/report.json")


def _lines(report: dict, kind: str, column: str) -> Iterator[tuple[str, str, str]]:
    """(model or difference, value, interval) of one score."""
    for name, entry in report["models"].items():
        if "maps" not in entry["scores"][kind]:
            yield name, "-", ""
            continue
        found = entry["scores"][kind]["maps"][FUSED][column]
        yield name, f"{found['value']:.3f}", interval_words(found["interval_95"], ".3f")
    for other in report["differences"]:
        found = other["fused"].get(kind, {}).get(column)
        if found is not None:
            interval = interval_words(found["interval_95"], "+.3f")
            yield f"{other['second']} - {other['first']}", f"{found['difference']:+.3f}", interval


def evaluate(options: argparse.Namespace) -> dict | None:
    """The report; None on every process but the first. Raises ValueError, DataError."""
    models = named_models(options)
    file, without_masks = annotated_file(options)
    settings = replace(data_settings(options), keep_annotated_frames=options.keep_annotated_frames)
    output = Path(options.output)
    found = {
        name: score_file(model, file, settings, options.layers, output / name, options.workers)
        for name, model in models.items()
    }
    if not processes().is_main_process:
        return None
    first, *others = models
    report = {
        "benchmark": "grounding",
        "date": today(),
        "data": {"file": file.path.name, "sha256": file.sha256, "records": len(file.items)},
        "records_without_annotation": without_masks,
        "keep_annotated_frames": options.keep_annotated_frames,
        "reading": asdict(settings),
        "models": {
            name: {
                "model": model,
                "folder": str(output / name),
                "scores": summarise(found[name][0]),
                "errors": found[name][1],
            }
            for name, model in models.items()
        },
        "differences": [
            {"first": first, "second": name, "fused": compare(found[first][0], found[name][0])} for name in others
        ],
    }
    write_atomically(output / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def run(options: argparse.Namespace) -> int:
    return run_study(options, evaluate, print_report)
