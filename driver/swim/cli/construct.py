"""NL-Refer from VideoRefer: a model turns `<objectN> <region>` into natural phrases, checked record by record.

    swim construct --input videorefer-*.json --output output/nl_refer --model gpt-4o-mini --dry_run
    swim construct --input videorefer-*.json --output output/nl_refer --model gpt-4o-mini --max_usd 20
    swim construct --input VideoRefer-Bench-*.json --output output/nl_refer --model M --synonyms --with_frames 4
    swim construct --input train.json --output output/nl_refer --model M --base_url http://localhost:8000/v1

Reads detailed captions, QA, Bench-D and Bench-Q. Any OpenAI-compatible server will do; the key comes from OPENAI_API_KEY
alone. `--dry_run` ends with an estimate. A run that was stopped goes on where it was: replies are kept in
`replies.sqlite` and never paid for twice. Writes into `--output` refined-format-NAME-00000.json, ... (a bench:
refined-NAME.json and, with `--synonyms`, refined-NAME-synonym.json), rejected.jsonl with a reason for each record that
is missing there, and, last, provenance.json. The status is 2 when the service ended the run early.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from swim.cli.roots import add_root_options, root_of
from swim.command_line import command_parser
from swim.construct.inputs import Estimate, survey
from swim.construct.rewriter import Rewriter, RewriteSettings
from swim.construct.run import REPLIES, construct
from swim.errors import DataError
from swim.llm import Asker, Endpoint, ServiceRefuses
from swim.reply_cache import ReplyCache

console = Console(soft_wrap=True)


def add_endpoint_options(parser: argparse.ArgumentParser):
    """Who is asked, and how much at most."""
    parser.add_argument("--base_url", help="of the API, such as http://localhost:8000/v1 (default: OpenAI's)")
    parser.add_argument("--temperature", type=float, default=0.0, help="of the replies; 0 is the most repeatable")
    parser.add_argument("--max_tokens", type=int, default=2048, help="of one reply")
    parser.add_argument("--timeout_s", type=float, default=120.0, help="of one request")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time")
    parser.add_argument("--attempts", type=int, default=3, help="replies for one record, each refusal with its reason")
    parser.add_argument("--request_attempts", type=int, default=6, help="of one request, with exponential back-off")
    parser.add_argument("--backoff_s", type=float, default=1.0, help="first wait")
    parser.add_argument("--usd_per_million", type=float, nargs=2, metavar=("IN", "OUT"), help="the model's prices")
    parser.add_argument("--max_usd", type=float, help="stop at this cost")
    parser.add_argument("--max_requests", type=int, help="stop after so many requests")


def endpoint_of(options: argparse.Namespace) -> Endpoint:
    return Endpoint(
        model=options.model,
        base_url=options.base_url,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        timeout_s=options.timeout_s,
        concurrency=options.concurrency,
        attempts=options.request_attempts,
        backoff_s=options.backoff_s,
        prices=None if options.usd_per_million is None else tuple(options.usd_per_million),
        max_requests=options.max_requests,
        max_usd=options.max_usd,
    )


def say_estimate(estimate: Estimate, endpoint: Endpoint):
    usd = endpoint.usd(estimate.prompt_tokens, estimate.completion_tokens)
    cost = f"about {usd:.2f} US dollars" if usd is not None else "price unknown (--usd_per_million IN OUT)"
    console.print(
        f"{estimate.requests:,} requests to {endpoint.model}: about {estimate.prompt_tokens:,} + "
        f"{estimate.completion_tokens:,} tokens, {cost}; more for each refused reply, nothing for stored ones"
    )


def print_report(provenance: dict, folder: Path):
    counts = provenance["counts"]
    table = Table(
        title=f"{counts['records']:,} records: {counts['accepted']:,} accepted, {counts['rejected']:,} rejected"
    )
    table.add_column("reason")
    table.add_column("records", justify="right")
    for reason, count in counts["by_reason"].items():
        table.add_row(reason, f"{count:,}")
    if counts["open"]:
        table.add_row("not asked yet", f"{counts['open']:,}", style="bold")
    console.print(table)
    for name, count in provenance["outputs"].items():
        console.print(f"  {folder / name}: {count:,} records")
    console.print(f"written: {folder}/provenance.json, rejected.jsonl")


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim construct")
    parser.add_argument("--input", nargs="+", required=True, help="VideoRefer-layout files (.json, .jsonl, .gz)")
    parser.add_argument("--output", required=True, help="folder of the refined files")
    parser.add_argument("--model", required=True, help="name of the model that is asked")
    add_root_options(parser, "the videos are")
    parser.add_argument("--with_frames", type=int, default=0, metavar="K", help="outlined frames to show with a record")
    parser.add_argument("--synonyms", action="store_true", help="a synonym variant of the benches too")
    parser.add_argument("--shard_size", type=int, default=10_000, help="records in one output file")
    parser.add_argument("--limit", type=int, help="the first N records of each file only")
    parser.add_argument("--dry_run", action="store_true", help="an estimate, nothing asked")
    add_endpoint_options(parser)
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (DataError, ValueError, ServiceRefuses) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    if options.shard_size < 1:
        raise ValueError(f"--shard_size must be 1 or more, found {options.shard_size}")
    settings = RewriteSettings(options.attempts, options.with_frames, options.synonyms)
    endpoint, folder = endpoint_of(options), Path(options.output)
    inputs = [(Path(file), root_of(options, file)) for file in options.input]
    files, estimate = survey(inputs, settings, options.limit)
    say_estimate(estimate, endpoint)
    if options.dry_run:
        return 0
    rewriter = Rewriter(Asker(endpoint, ReplyCache(folder / REPLIES)), settings)
    finished = construct(files, rewriter, folder, options.shard_size)
    print_report(finished.provenance, folder)
    if finished.stopped is not None:
        raise finished.stopped
    return 0
