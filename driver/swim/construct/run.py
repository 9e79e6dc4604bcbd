"""A run over all records of some files: concurrent, resumable, within a budget, with every record accounted for."""

import json
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from swim.concurrently import run_concurrently
from swim.construct.checks import Refusal
from swim.construct.inputs import InputFile, Item, items_of
from swim.construct.outputs import ShardWriter
from swim.construct.prompt import PROMPT_VERSION
from swim.construct.rewriter import Outcome, Rewriter
from swim.construct.tasks import Kind, NothingToRewrite, read_task
from swim.errors import DataError
from swim.files import write_atomically
from swim.llm import Asker, ServiceRefuses
from swim.lock import alone_in

REPLIES = "replies.sqlite"
REJECTED = "rejected.jsonl"
PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Finished:
    """provenance: the content of provenance.json. stopped: why the service ended the run before its end, if it did."""

    provenance: dict
    stopped: ServiceRefuses | None


class Ledger:
    """What became of the records so far, and the files that say so. Takes outcomes in the order of the input."""

    def __init__(self, files: list[InputFile], folder: Path, shard_size: int, synonyms: bool):
        self.files, self.folder = files, folder
        self.accepted: Counter[int] = Counter()  # by number of the file
        self.by_reason: list[Counter[str]] = [Counter() for _ in files]
        self.rejected: list[dict] = []
        self.replies: Counter[str] = Counter()
        self.replies_per_record: list[int] = []
        sizes = [shard_size if file.kind is Kind.CONVERSATION else None for file in files]
        self.writers = [ShardWriter(folder, file.output_name, size) for file, size in zip(files, sizes)]
        self.synonym_writers = [
            ShardWriter(folder, f"{file.output_name}-synonym", None) if synonyms and size is None else None
            for file, size in zip(files, sizes)
        ]

    def add(self, item: Item, outcome: Outcome):
        for reply in outcome.replies:
            self.replies.update(replies=1, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        if outcome.record is None:
            self._reject(item, outcome)
            return
        self.accepted[item.file] += 1
        self.replies_per_record.append(len(outcome.replies))
        self.writers[item.file].add(outcome.record)
        synonym_writer = self.synonym_writers[item.file]
        if outcome.synonym is not None and synonym_writer is not None:
            synonym_writer.add(outcome.synonym)

    def _reject(self, item: Item, outcome: Outcome):
        self.by_reason[item.file][str(outcome.refusal)] += 1
        self.rejected.append(
            {
                "file": self.files[item.file].path.name,
                "position": item.position,
                "id": item.raw.get("index", item.raw.get("id")),
                "reason": str(outcome.refusal),
                "message": outcome.message,
                "replies": [reply.text for reply in outcome.replies],
            }
        )

    def finish(self):
        """Completes every file but the provenance."""
        for writer in self._all_writers():
            writer.finish()
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in self.rejected]
        write_atomically(self.folder / REJECTED, "".join(lines))

    @property
    def outputs(self) -> dict[str, int]:
        return {name: count for writer in self._all_writers() for name, count in writer.written.items()}

    @property
    def records(self) -> int:
        return self.accepted.total() + len(self.rejected)

    def counts(self) -> dict:
        total = sum(file.records for file in self.files)
        reasons: Counter[str] = Counter()
        for counter in self.by_reason:
            reasons.update(counter)
        return {
            "records": total,
            "accepted": self.accepted.total(),
            "rejected": len(self.rejected),
            "open": total - self.records,
            "by_reason": dict(reasons.most_common()),
            "mean_replies_per_accepted": (
                round(statistics.mean(self.replies_per_record), 4) if self.replies_per_record else None
            ),
        }

    def _all_writers(self) -> list[ShardWriter]:
        return [writer for writer in (*self.writers, *self.synonym_writers) if writer is not None]


def construct(files: list[InputFile], rewriter: Rewriter, folder: Path, shard_size: int) -> Finished:
    """Rewrites every record of the files into `folder`; replies that its cache holds are not paid for again.

    When the service ends the run, what is finished in the order of the input is written, and the rest counted as open.
    """
    with alone_in(folder):
        return _construct(files, rewriter, folder, shard_size)


def _construct(files: list[InputFile], rewriter: Rewriter, folder: Path, shard_size: int) -> Finished:
    (folder / PROVENANCE).unlink(missing_ok=True)  # written last: a folder with one is complete
    ledger = Ledger(files, folder, shard_size, rewriter.settings.synonyms)
    stopped = None
    try:
        for item, outcome in _in_order(_outcomes(files, rewriter, ledger)):
            ledger.add(item, outcome)
    except ServiceRefuses as error:
        stopped = error
    ledger.finish()
    provenance = _provenance(ledger, rewriter, shard_size, stopped)
    write_atomically(folder / PROVENANCE, json.dumps(provenance, indent=1, ensure_ascii=False) + "\n")
    return Finished(provenance, stopped)


def _outcomes(files: list[InputFile], rewriter: Rewriter, ledger: Ledger) -> Iterator[tuple[Item, Outcome]]:
    """As they get ready, with a progress bar."""

    def work(item: Item) -> Outcome:
        file = files[item.file]
        try:
            task = read_task(item.raw, item.where(file), file.root)
        except NothingToRewrite as error:
            return Outcome(refusal=Refusal.NO_PLACEHOLDER, message=error.message)
        except DataError as error:
            return Outcome(refusal=Refusal.BAD_INPUT, message=error.message)
        return rewriter.rewrite(task)

    asker, done, accepted = rewriter.asker, 0, 0
    total = sum(file.records for file in files)
    with tqdm(total=total, desc=f"rewriting ({asker.endpoint.model})", unit="record") as bar:
        for item, outcome in run_concurrently(items_of(files), work, asker.endpoint.concurrency):
            done, accepted = done + 1, accepted + (outcome.record is not None)
            cost = {} if asker.usd is None else {"usd": f"{asker.usd:.2f}"}
            bar.set_postfix(accepted=f"{100 * accepted / done:.1f} %", requests=asker.requests, **cost, refresh=False)
            bar.update()
            yield item, outcome


def _in_order(outcomes: Iterator[tuple[Item, Outcome]]) -> Iterator[tuple[Item, Outcome]]:
    """By number from 0; what comes early waits."""
    waiting, number = {}, 0
    for item, outcome in outcomes:
        waiting[item.number] = (item, outcome)
        while number in waiting:
            yield waiting.pop(number)
            number += 1


def _provenance(ledger: Ledger, rewriter: Rewriter, shard_size: int, stopped: ServiceRefuses | None) -> dict:
    asker: Asker = rewriter.asker
    endpoint, replies = asker.endpoint, ledger.replies
    tokens = replies["prompt_tokens"], replies["completion_tokens"]
    inputs = [
        {
            "file": file.path.name,
            "sha256": file.sha256,
            "layout": str(file.kind),
            "records": file.records,
            "accepted": ledger.accepted[place],
            "rejected": ledger.by_reason[place].total(),
        }
        for place, file in enumerate(ledger.files)
    ]
    return {
        "complete": stopped is None,
        "stopped": None if stopped is None else str(stopped),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": endpoint.model,
        "host": None if endpoint.base_url is None else urlsplit(endpoint.base_url).netloc.rpartition("@")[2],
        "temperature": endpoint.temperature,
        "adaptations": asker.adaptations,
        "prompt_version": PROMPT_VERSION,
        "settings": {**asdict(rewriter.settings), "shard_size": shard_size, "max_tokens": endpoint.max_tokens},
        "inputs": inputs,
        "outputs": ledger.outputs,
        "counts": ledger.counts(),
        "all_replies": {
            "replies": replies["replies"],
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "usd": endpoint.usd(*tokens),
        },
        "this_run": {
            "requests": asker.requests,
            "prompt_tokens": asker.prompt_tokens,
            "completion_tokens": asker.completion_tokens,
            "usd": asker.usd,
        },
    }
