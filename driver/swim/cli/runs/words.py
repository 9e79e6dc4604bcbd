"""Which words look at the object?"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from swim.attention.grounding import FUSED
from swim.cli.runs.reading import data_settings
from swim.cli.runs.studies import annotated_file, named_models, run_study
from swim.eval.items import console, today
from swim.eval.records import score_records
from swim.eval.stats import interval_words
from swim.eval.words import SCORES, plot, score_words, summarise
from swim.files import write_atomically


def run(options: argparse.Namespace) -> int:
    return run_study(options, evaluate, print_report)


def evaluate(options: argparse.Namespace) -> dict | None:
    """The report; None on every process but the first. Raises ValueError, DataError."""
    file, without_masks = annotated_file(options)
    settings = replace(data_settings(options), keep_annotated_frames=False)
    output = Path(options.output)
    models: dict[str, dict] = {}
    for name, model in named_models(options).items():
        found = score_records(model, file, settings, output / name, options.workers, score_words)
        if found is not None:
            scores, errors = found
            models[name] = {
                "model": model,
                "folder": str(output / name),
                "classes": summarise(scores),
                "errors": errors,
            }
    if not models:
        return None
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
    console.print(table)
    console.print(f"every layer: {output}/report.json, words.png")
