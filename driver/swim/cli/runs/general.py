"""General ability: plain chat, and questions about whole clips."""

import argparse
import sys
from pathlib import Path

from rich.table import Table

from swim.cli.runs.evaluating import models_and_settings
from swim.cli.runs.roots import root_of
from swim.errors import DataError
from swim.eval.general import PLAIN_CHAT, evaluate, parse_general
from swim.eval.items import console, read_items
from swim.eval.stats import interval_words


def print_reports(reports: dict[Path, dict], output: Path):
    first = next(iter(reports.values()))
    names = [folder.name if len(reports) > 1 else first["model"] for folder in reports]
    table = Table(title=f"general ability, {first['questions']['file']}")
    for column in ("", "items", *names):
        table.add_column(column, justify="left" if not column else "right")
    for kind, scores in first["by_type"].items():
        found = [report["by_type"][kind] for report in reports.values()]
        items = str(scores["items"])
        table.add_row(f"{kind}: perplexity", items, *(f"{entry['perplexity']:.2f}" for entry in found))
        if scores["accuracy"] is not None:
            cells = (f"{e['accuracy']:.1f} ({interval_words(e['accuracy_interval_95'], '.1f')})" for e in found)
            table.add_row(f"{kind}: right, %", "", *cells)
    console.print(table)
    for report in reports.values():
        for key, reason in report["errors"].items():
            console.print(f"{report['model']}, item {key}: {reason}", style="red")
    written = "a report of each model in {}/MODEL" if len(reports) > 1 else "{}/report.json, items.jsonl"
    console.print(f"Written: {written.format(output)}")


def _run(options: argparse.Namespace) -> int:
    path = options.questions or PLAIN_CHAT
    file = read_items(path, root_of(options, path), parse_general, options.limit)
    models, settings = models_and_settings(options)
    reports = evaluate(models, settings, file, options.max_new_tokens, options.workers)
    if not reports:
        return 0
    print_reports(reports, Path(options.output))
    return int(any(report["unanswered"] for report in reports.values()))


def run(options: argparse.Namespace) -> int:
    try:
        return _run(options)
    except (DataError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
