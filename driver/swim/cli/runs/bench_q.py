"""VideoRefer-Bench-Q: multiple-choice questions about named objects."""

import argparse
import statistics
from pathlib import Path

from rich.table import Table

from swim.cli.runs.ending import status_of
from swim.cli.runs.evaluating import answering, demo_of, models_and_settings
from swim.cli.runs.roots import root_of
from swim.data.bench import parse_bench_q
from swim.eval.bench_q import evaluate
from swim.eval.compare import compare_with_last
from swim.eval.items import console, read_items
from swim.eval.published import BENCH_Q, BENCH_Q_ITEMS
from swim.eval.stats import interval_words
from swim.infer.questions import ItemFile

DEMO_NOTE = (
    "These are the demo's questions, their options always in one order. Its tiny models can learn the patterns (Basic "
    "Questions); movement, places and sizes are beyond them, so that chance is what to expect there."
)


def print_report(report: dict, folder: Path, published: bool):
    """published: the paper's numbers as well."""
    table = Table(
        title=f"VideoRefer-Bench-Q, {report['questions']['file']} (sha256 {report['questions']['sha256'][:12]})"
    )
    for column in ("", "accuracy %", "right", "items"):
        table.add_column(column, justify="left" if not column else "right")
    for kind, score in report["by_type"].items():
        table.add_row(kind, f"{score['accuracy']:.1f}", str(score["right"]), str(score["items"]))
    interval = interval_words(report["micro_interval_95"], ".1f")
    table.add_row("micro", f"{report['micro']:.1f}", interval, str(report["items"]), style="bold")
    table.add_row("macro", f"{report['macro']:.1f}", "", "")
    table.add_section()
    for entry in BENCH_Q if published else ():
        table.add_row(f"{entry.model}, published", f"{entry.value:.1f}", "", "", style="dim")
    console.print(table)
    console.print(
        f"parser {report['parser']}: {report['unparsed']} answer(s) name no option; {report['unanswered']} of "
        f"{report['items']} items are unanswered. Written: {folder}/report.json, items.jsonl"
    )


def print_comparison(by_folder: dict[Path, dict], file: ItemFile, output: Path):
    """Several models in one table, each compared with the last; writes compare.json and compare.md into `output`."""
    results, chance = compare_with_last(by_folder, output), _chance(file)
    reports = {folder.name: report for folder, report in by_folder.items()}
    first = next(iter(reports.values()))
    table = Table(title=f"VideoRefer-Bench-Q, {first['questions']['file']}: accuracy in %")
    for column in ("", "items", "chance", *reports):
        table.add_column(column, justify="left" if not column else "right")
    for kind, score in first["by_type"].items():
        values = (f"{report['by_type'][kind]['accuracy']:.1f}" for report in reports.values())
        table.add_row(kind, str(score["items"]), f"{chance[kind]:.1f}", *values)
    for mean in ("micro", "macro"):
        items = str(first["items"]) if mean == "micro" else ""
        table.add_row(mean, items, "", *(f"{report[mean]:.1f}" for report in reports.values()), style="bold")
    unparsed = (str(report["unparsed"]) for report in reports.values())
    table.add_row("name no option", "", "", *unparsed, style="dim")
    console.print(table)
    for result, name in zip(results, reports):
        for kind, row in {**result["by_type"], "all": result["all"]}.items():
            if row["interval_95"] is not None and not row["interval_95"][0] <= 0 <= row["interval_95"][1]:
                console.print(
                    f"{list(reports)[-1]} - {name}, {kind}: {row['difference']:+.1f} points "
                    f"({interval_words(row['interval_95'], '+.1f')})"
                )
    console.print(f"Written: {output}/compare.json, compare.md, and a report of each model in {output}/MODEL")


def _chance(file: ItemFile) -> dict[str, float]:
    """What drawing an option by lot gets right, in per cent, by type."""
    shares: dict[str, list[float]] = {}
    for item in file.items.values():
        shares.setdefault(item.type, []).append(100 / len(item.options))
    return {kind: statistics.mean(values) for kind, values in shares.items()}


def _run(options: argparse.Namespace) -> int:
    path = options.questions or demo_of(options).bench_q
    file = read_items(path, root_of(options, path), parse_bench_q, options.limit)
    models, settings = models_and_settings(options)
    reports = evaluate(answering(options), models, settings, file, options.parser, options.prompt)
    if not reports:
        return 0
    output = Path(options.output)
    if len(reports) == 1:
        print_report(reports[output], output, options.published or reports[output]["items"] == BENCH_Q_ITEMS)
    else:
        print_comparison(reports, file, output)
    if options.questions is None:
        console.print(DEMO_NOTE)
    return int(any(report["unanswered"] for report in reports.values()))


def run(options: argparse.Namespace) -> int:
    return status_of(lambda: _run(options))
