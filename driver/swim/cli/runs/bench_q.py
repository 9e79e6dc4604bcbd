"""VideoRefer-Bench-Q: multiple-choice questions about named objects."""

import argparse
import sys
from pathlib import Path

from rich.table import Table

from swim.cli.runs.evaluating import answer_all, demo_of
from swim.cli.runs.roots import root_of
from swim.data.bench import parse_bench_q
from swim.errors import DataError
from swim.eval.bench_q import write_report
from swim.eval.items import as_question, console, read_items
from swim.eval.published import BENCH_Q, BENCH_Q_ITEMS
from swim.eval.scores_q import prompt_of, score_items
from swim.eval.stats import interval_words
from swim.llm import ServiceRefuses

DEMO_NOTE = (
    "These are the demo's questions, and its model was taught one-word answers, never option letters: near 0 % is what to "
    "expect of it. Its own score is in output/demo/summary.json; here give --model one that talks."
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


def run(options: argparse.Namespace) -> int:
    try:
        path = options.questions or demo_of(options).bench_q
        file = read_items(path, root_of(options, path), parse_bench_q, options.limit)
        questions = [as_question(key, item, prompt_of(item, options.prompt)) for key, item in file.items.items()]
        answers = answer_all(options, file, questions, options.prompt)
    except (DataError, ValueError, ServiceRefuses) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if answers is None:
        return 0
    folder = Path(options.output)
    report = write_report(folder, file, score_items(file.items, answers, options.parser), options.parser)
    print_report(report, folder, options.published or report["items"] == BENCH_Q_ITEMS)
    if options.questions is None:
        console.print(DEMO_NOTE)
    return int(report["unanswered"] > 0)
