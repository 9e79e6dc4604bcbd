"""Captions of named objects, scored against references."""

import argparse
from pathlib import Path

from rich.table import Table

from swim.cli.runs.ending import status_of
from swim.cli.runs.evaluating import answering, demo_of, models_and_settings
from swim.cli.runs.roots import root_of
from swim.demo.facts import WHAT_PATTERN
from swim.eval.captioned import SUBJECT, read_captions
from swim.eval.captions import evaluate
from swim.eval.compare import compare_with_last
from swim.eval.items import console
from swim.eval.scores_captions import HEADLINE, WORDS
from swim.eval.stats import interval_words
from swim.prompts import CAPTION_PROMPT


def print_reports(by_folder: dict[Path, dict], output: Path):
    """Metrics by model; several are compared with the last, into compare.json and compare.md in `output`."""
    reports = {folder.name: report for folder, report in by_folder.items()}
    first = next(iter(reports.values()))
    table = Table(
        title=f"captions, {first['questions']['file']}: {first['items']} items, tokenizer {first['tokenizer']}"
    )
    for column in ("", *reports):
        table.add_column(column, justify="left" if not column else "right")
    for name in first["metrics"]:
        found = [report["metrics"][name] for report in reports.values()]
        cells = (f"{each['value']:.1f} ({interval_words(each['interval_95'], '.1f')})" for each in found)
        table.add_row(name, *cells, style="bold" if name == HEADLINE else None)
    table.add_row("unanswered", *(str(report["unanswered"]) for report in reports.values()), style="dim")
    console.print(table)
    if first["tokenizer"] == WORDS:
        console.print("no Java here: METEOR is left out, and published numbers split words otherwise")
    if len(reports) > 1:
        for result, name in zip(compare_with_last(by_folder, output), reports):
            row = result["all"]
            interval = interval_words(row["interval_95"], "+.1f")
            console.print(f"{list(reports)[-1]} - {name}, {HEADLINE}: {row['difference']:+.1f} ({interval})")
    console.print(f"Written: items.jsonl and report.json in {', '.join(map(str, by_folder))}")


def _run(options: argparse.Namespace) -> int:
    path = options.questions or demo_of(options).captions
    prompt = options.prompt or (CAPTION_PROMPT if options.questions else WHAT_PATTERN.format(SUBJECT))
    file = read_captions(path, root_of(options, path), options.limit)
    models, settings = models_and_settings(options)
    reports = evaluate(answering(options), models, settings, file, prompt)
    if reports:
        print_reports(reports, Path(options.output))
    return int(any(report["unanswered"] for report in reports.values()))


def run(options: argparse.Namespace) -> int:
    return status_of(lambda: _run(options))
