"""NL-Refer from VideoRefer: a model turns `<objectN> <region>` into natural phrases, checked record by record."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from swim.cli.runs.ending import status_of
from swim.cli.runs.roots import root_of
from swim.construct.inputs import Estimate, survey
from swim.construct.rewriter import Rewriter, RewriteSettings
from swim.construct.run import REPLIES, construct
from swim.llm import Asker, Endpoint
from swim.reply_cache import ReplyCache

console = Console(soft_wrap=True)


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


def _run(options: argparse.Namespace) -> int:
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


def run(options: argparse.Namespace) -> int:
    return status_of(lambda: _run(options))
