"""VideoRefer-Bench-D: descriptions of named objects, graded by a judge.

    python -m swim.eval.bench_d --model output/demo --questions bench_d.json --output output/bench_d --judge gpt-4o-2024-11-20

First the model describes, then the judge grades; both go on where an interrupted run stopped, and no judgement is paid
for twice. The judge's key comes from OPENAI_API_KEY alone. `--dry_run` ends before the judge is asked, with an estimate of
tokens and cost. Writes answers.jsonl, scores.jsonl and report.json. Below `--min_coverage` there is no headline number
and the status is 1.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from rich.table import Table
from tqdm import tqdm

from swim.command_line import command_parser
from swim.concurrently import run_concurrently
from swim.data.bench import BenchD, parse_bench_d
from swim.data.root import root_of
from swim.errors import DataError
from swim.eval.command import add_model_options, answer_all, as_question, console, demo_of, read_items, today
from swim.eval.judge import PROMPT_VERSION, Case, estimate, judge
from swim.eval.published import BENCH_D
from swim.eval.scores_d import make_cases, summarise
from swim.eval.stats import interval_words, rounded
from swim.files import write_atomically
from swim.infer.answers import AnswerStore
from swim.infer.remote import server_notes
from swim.llm import Asker, AskFailed, Endpoint, ServiceRefuses
from swim.processes import processes
from swim.reply_cache import ReplyCache


def judge_all(cases: list[Case], asker: Asker, folder: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """(scores by id, reasons of failure by id). Scores are kept in `folder` as they come.

    Raises swim.llm.ServiceRefuses when the judge will answer nothing more; what was graded is kept.
    """
    endpoint = asker.endpoint
    settings = {"judge": endpoint.model, "temperature": endpoint.temperature, "prompt_version": PROMPT_VERSION}
    store = AnswerStore(folder / "judge", settings)
    predictions = {case.id: case.prediction for case in cases}
    still_open = [case for case in cases if store.answers.get(case.id, {}).get("prediction") != case.prediction]

    def grade(case: Case) -> dict:
        try:
            return {"id": case.id, "answer": {"scores": judge(case, asker), "prediction": case.prediction}}
        except AskFailed as error:
            return {"id": case.id, "error": str(error)}

    failures = {}
    graded = run_concurrently(still_open, grade, endpoint.concurrency)
    bar = tqdm(graded, total=len(still_open), desc=f"judging ({endpoint.model})", unit="item")
    for case, entry in bar:
        store.add([entry])
        if "error" in entry:
            failures[case.id] = entry["error"]
        means = [statistics.mean(kept["scores"].values()) for kept in store.answers.values()]
        bar.set_postfix(mean=f"{statistics.mean(means):.2f}" if means else "-", failed=len(failures))
    scores = {
        key: kept["scores"]
        for key, kept in store.answers.items()
        if kept["prediction"] == predictions.get(key) and key not in failures
    }
    return scores, failures


def write_report(
    folder: Path, items: dict[str, BenchD], scores: dict, summary: dict, endpoint: Endpoint, asker: Asker
) -> dict:
    """Writes scores.jsonl and report.json; returns the report."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    report = {
        "benchmark": "VideoRefer-Bench-D",
        "date": today(),
        "judge": {
            "model": endpoint.model,
            "base_url": endpoint.base_url,
            "temperature": endpoint.temperature,
            "adaptations": asker.adaptations,
            "prompt_version": PROMPT_VERSION,
            "requests": asker.requests,
            "prompt_tokens": asker.prompt_tokens,
            "completion_tokens": asker.completion_tokens,
            "usd": rounded(asker.usd),
        },
        **summary,
        **settings,
        **server_notes(folder),
        "published": [vars(entry) for entry in BENCH_D],
    }
    lines = [json.dumps({"id": key, "scores": scores[key]}) + "\n" for key in items if key in scores]
    write_atomically(folder / "scores.jsonl", "".join(lines))
    write_atomically(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def print_report(report: dict, folder: Path):
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
    for entry in BENCH_D:
        table.add_row(f"{entry.model}, published", f"{entry.value:.2f}", style="dim")
    console.print(table)
    for words in report["judge"]["adaptations"]:
        console.print(f"the judge was asked otherwise: {words}")
    console.print(f"{report['judged']} of {report['items']} items judged. Written: {folder}/report.json, scores.jsonl")
    for key, reason in report["failed"].items():
        console.print(f"  item {key}: {reason}")
    if report["mean"] is None:
        console.print(f"no mean: coverage {report['coverage']:.3f} is below --min_coverage {report['min_coverage']}")


def say_estimate(cases: list[Case], endpoint: Endpoint):
    prompt_tokens, completion_tokens = estimate(cases)
    usd = endpoint.usd(prompt_tokens, completion_tokens)
    cost = f"about {usd:.2f} US dollars" if usd is not None else "price unknown (--usd_per_million IN OUT)"
    console.print(
        f"judging {len(cases)} items with {endpoint.model}: about {prompt_tokens:,} + {completion_tokens:,} tokens, {cost}; "
        "judgements that are stored cost nothing"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim.eval.bench_d")
    add_model_options(parser, "output/bench_d", max_new_tokens=1024)
    parser.add_argument("--judge", default="gpt-4o-2024-11-20", help="the judge's model name")
    parser.add_argument("--judge_base_url", help="of the judge's API (default: OpenAI's)")
    parser.add_argument("--judge_temperature", type=float, default=0.0, help="of the judge's replies")
    parser.add_argument("--judge_concurrency", type=int, default=8, help="requests to the judge at a time")
    parser.add_argument("--judge_timeout_s", type=float, help="of one request to the judge (default: --timeout_s)")
    parser.add_argument("--judge_attempts", type=int, default=6, help="of one request, with exponential back-off")
    parser.add_argument("--judge_backoff_s", type=float, default=1.0, help="first wait")
    parser.add_argument("--usd_per_million", type=float, nargs=2, metavar=("IN", "OUT"), help="the judge's prices")
    parser.add_argument("--max_usd", type=float, help="stop judging at this cost")
    parser.add_argument("--max_requests", type=int, help="stop judging after so many requests")
    parser.add_argument("--min_coverage", type=float, default=1.0, help="share of the items that must be judged for a mean")
    parser.add_argument("--dry_run", action="store_true", help="answers and an estimate, no judging")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (DataError, ValueError, ServiceRefuses) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    path = options.questions or demo_of(options).bench_d
    file = read_items(path, root_of(options, path), parse_bench_d, options.limit)
    questions = [as_question(key, item, item.question) for key, item in file.items.items()]
    answers = answer_all(options, file, questions, "the item's own question")
    if not processes().is_main_process:
        return 0
    folder, cases, endpoint = Path(options.output), make_cases(file.items, answers), _judge_endpoint(options)
    say_estimate(cases, endpoint)
    if options.dry_run:
        return 0
    asker = Asker(endpoint, ReplyCache(folder / "judge" / "replies.sqlite"))
    scores, failures = judge_all(cases, asker, folder)
    summary = summarise(file.items, scores, failures, options.min_coverage)
    report = write_report(folder, file.items, scores, summary, endpoint, asker)
    print_report(report, folder)
    return int(report["mean"] is None)


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


if __name__ == "__main__":
    sys.exit(main())
