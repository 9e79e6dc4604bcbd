"""Which words look at the object?"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from swim.attention.grounding import FUSED
from swim.cli.runs.grounding import annotated_file
from swim.cli.runs.reading import data_settings
from swim.errors import DataError
from swim.eval.items import console, today
from swim.eval.stats import interval_words
from swim.eval.words import SCORES, plot, score_file, summarise
from swim.files import write_atomically
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
    file, without_masks = annotated_file(options)
    settings = replace(data_settings(options), keep_annotated_frames=False)
    output, models = Path(options.output), {}
    for name, model in zip(names, options.model):
        scores, errors = score_file(model, file, settings, output / name, options.workers)
        models[name] = {"model": model, "classes": summarise(scores), "errors": errors}
    report = {
        "study": "words",
        "date": today(),
        "data": file.facts,
        "records_without_annotation": without_masks,
        "models": models,
    }
    write_atomically(output / "report.json", json.dumps(report, indent=1) + "\n")
    plot({name: entry["classes"] for name, entry in models.items()}, output / "words.png")
    return report


def print_report(report: dict, output: Path):
    table = Table(title=f"words of referring phrases, {report['data']['file']}, fused layers")
    for column in ("", "class", "words", *SCORES):
        table.add_column(column)
    for name, entry in report["models"].items():
        for place, (kind, found) in enumerate(entry["classes"].items()):
            fused = found["maps"][FUSED]
            cells = (f"{fused[s]['value']:.3f} ({interval_words(fused[s]['interval_95'], '.3f')})" for s in SCORES)
            table.add_row("" if place else name, kind, f"{found['words']:,}", *cells)
        table.add_section()
        if entry["errors"]:
            console.print(
                f"{name}: {len(entry['errors'])} record(s) could not be read, see {output}/{name}/errors.jsonl",
                style="red",
            )
    console.print(table)
    console.print(f"every layer: {output}/report.json, words.png")
