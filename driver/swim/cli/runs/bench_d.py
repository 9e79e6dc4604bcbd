"""VideoRefer-Bench-D: descriptions of named objects, graded by a judge."""

import argparse
from pathlib import Path

from rich.table import Table

from swim.cli.runs.ending import status_of
from swim.cli.runs.evaluating import answering, demo_of, models_and_settings
from swim.cli.runs.roots import root_of
from swim.data.bench import parse_bench_d
from swim.demo.judge import MODEL, Judge, serving
from swim.eval.bench_d import describe, grade
from swim.eval.compare import compare_with_last
from swim.eval.items import console, read_items
from swim.eval.judge import Case, estimate
from swim.eval.published import BENCH_D, BENCH_D_ITEMS
from swim.eval.stats import interval_words
from swim.llm import Endpoint

JUDGE = "gpt-4o-2024-11-20"  # the paper's


def print_report(report: dict, folder: Path, published: bool):
    """published: the paper's numbers as well."""
    judge_model, version = report["judge"]["model"], report["judge"]["prompt_version"]
    table = Table(
        title=f"VideoRefer-Bench-D, judge {judge_model} at {report['judge']['temperature']}, prompt {version}"
    )
    table.add_column("")
    table.add_column("0 to 5", justify="right")
    for name, mean in report["dimensions"].items():
        table.add_row(name, f"{mean:.2f}")
    if report["mean"] is not None:
        interval = interval_words(report["mean_interval_95"], ".2f")
        table.add_row("mean", f"{report['mean']:.2f} ({interval})", style="bold")
    table.add_section()
    for entry in BENCH_D if published else ():
        table.add_row(f"{entry.model}, published", f"{entry.value:.2f}", style="dim")
    console.print(table)
    for words in report["judge"]["adaptations"]:
        console.print(f"the judge was asked otherwise: {words}")
    console.print(f"{report['judged']} of {report['items']} items judged. Written: {folder}/report.json, scores.jsonl")
    for key, reason in report["failed"].items():
        console.print(f"  item {key}: {reason}")
    if report["mean"] is None:
        console.print(f"no mean: coverage {report['coverage']:.3f} is below --min_coverage {report['min_coverage']}")


def print_comparison(by_folder: dict[Path, dict], output: Path):
    """Several models in one table, each compared with the last; writes compare.json and compare.md into `output`."""
    results = compare_with_last(by_folder, output)
    reports = {folder.name: report for folder, report in by_folder.items()}
    first = next(iter(reports.values()))
    table = Table(
        title=f"VideoRefer-Bench-D, {first['questions']['file']}: {first['items']} items, judge {first['judge']['model']}, 0 to 5"
    )
    for column in ("", *reports):
        table.add_column(column, justify="left" if not column else "right")
    for name in first["dimensions"]:
        table.add_row(name, *(f"{report['dimensions'][name]:.2f}" for report in reports.values()))
    table.add_row("mean", *(f"{report['mean']:.2f}" for report in reports.values()), style="bold")
    console.print(table)
    for result, name in zip(results, reports):
        row = result["all"]
        interval = interval_words(row["interval_95"], "+.2f")
        console.print(f"{list(reports)[-1]} - {name}: {row['difference']:+.2f} ({interval})")
    console.print(f"Written: {output}/compare.json, compare.md, and a report of each model in {output}/MODEL")


def say_estimate(cases: list[Case], endpoint: Endpoint):
    prompt_tokens, completion_tokens = estimate(cases)
    usd = endpoint.usd(prompt_tokens, completion_tokens)
    cost = f"about {usd:.2f} US dollars" if usd is not None else "price unknown (--usd_per_million IN OUT)"
    console.print(
        f"judging {len(cases)} items with {endpoint.model}: about {prompt_tokens:,} + {completion_tokens:,} tokens, {cost}; "
        "judgements that are stored cost nothing"
    )


def _run(options: argparse.Namespace) -> int:
    if options.questions or options.judge or options.judge_base_url:
        options.judge = options.judge or JUDGE
        return _describe_and_judge(options, options.questions or demo_of(options).bench_d)
    benches = demo_of(options)
    with serving(Judge(benches.bench_d, benches.held_out)) as url:
        options.judge, options.judge_base_url = MODEL, url
        return _describe_and_judge(options, benches.bench_d)


def _describe_and_judge(options: argparse.Namespace, path: str | Path) -> int:
    file = read_items(path, root_of(options, path), parse_bench_d, options.limit)
    models, settings = models_and_settings(options)
    cases = describe(answering(options), models, settings, file)
    if not cases:
        return 0
    endpoint = _judge_endpoint(options)
    say_estimate([case for some in cases.values() for case in some], endpoint)
    if options.dry_run:
        return 0
    output = Path(options.output)
    reports = grade(cases, file, endpoint, output / "judge" / "replies.sqlite", options.min_coverage)
    if len(reports) == 1 or any(report["mean"] is None for report in reports.values()):
        for folder, report in reports.items():
            print_report(report, folder, options.published or report["items"] == BENCH_D_ITEMS)
    else:
        print_comparison(reports, output)
    return int(any(report["mean"] is None for report in reports.values()))


def _judge_endpoint(options: argparse.Namespace) -> Endpoint:
    return Endpoint(
        model=options.judge,
        base_url=options.judge_base_url,
        temperature=options.judge_temperature,
        max_tokens=256,
        timeout_s=options.timeout_s if options.judge_timeout_s is None else options.judge_timeout_s,
        concurrency=options.judge_concurrency,
        attempts=options.judge_attempts,
        backoff_s=options.judge_backoff_s,
        prices=None if options.usd_per_million is None else tuple(options.usd_per_million),
        max_requests=options.max_requests,
        max_usd=options.max_usd,
    )


def run(options: argparse.Namespace) -> int:
    return status_of(lambda: _run(options))
