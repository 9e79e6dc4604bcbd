"""General ability: what fine-tuning on named objects costs in plain chat and in questions about whole clips."""

import json
import math
import re
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field

from swim.data.collator import TARGETS, SwimCollator
from swim.data.records import Record, Turn, Video, check_layout, describe
from swim.data.root import DataRoot, as_root
from swim.data.sample import Sample, TextSample
from swim.data.settings import DataSettings
from swim.data.tokens import IGNORE
from swim.eval.items import ItemFile, today
from swim.eval.stats import bootstrap_interval, rounded, rounded_interval
from swim.files import write_atomically
from swim.infer.answers import AnswerStore, Question
from swim.infer.generate import generate_answers
from swim.infer.local import work_locally
from swim.model_name import weights_digest
from swim.processes import processes

PLAIN_CHAT = Path(__file__).with_name("plain_chat.json")


@dataclass(frozen=True)
class General:
    """A question with its answer. record: both as turns, about a video or about none.

    accept: words or phrases, one of which a right answer contains; () when answers are not marked.
    type: what the item is counted under.
    """

    record: Record
    accept: tuple[str, ...]
    type: str

    def accepts(self, answer: str) -> bool:
        """Whether the answer contains one of `accept` as whole words, in capitals or not."""
        return any(re.search(rf"(?<!\w){re.escape(words)}(?!\w)", answer, re.IGNORECASE) for words in self.accept)


class _RawGeneral(BaseModel):
    model_config = ConfigDict(strict=True)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    accept: list[str] = []
    type: str = Field("plain chat", min_length=1)
    video: Video | None = None


def parse_general(raw: dict, where: str, root: str | Path | DataRoot) -> General:
    """Checks one item: question, answer, and perhaps accept, type and video. Raises DataError naming item and field."""
    where = describe(raw, where)
    item = check_layout(_RawGeneral, raw, where)
    path = None if item.video is None else as_root(root).locate_video(item.video)
    turns = [Turn("user", item.question, [], []), Turn("assistant", item.answer, [], [])]
    return General(Record(where, path, False, turns, []), tuple(item.accept), item.type)


def evaluate(
    models: dict[Path, str], settings: DataSettings, file: ItemFile, max_new_tokens: int, workers: int = 0
) -> dict[Path, dict]:
    """The report of each model by its folder; {} on every process but the first.

    models: by the folder of answers and report. settings: how videos are read. file: items of `parse_general`.
    max_new_tokens: of a model's own answer. workers: processes that read videos ahead.

    Raises ValueError when a folder holds another evaluation.
    """

    def work(model, collator: SwimCollator, samples: list[Sample | TextSample]) -> Iterator[dict]:
        return (_measure(model, collator, sample, max_new_tokens) for sample in samples)

    state, reports = processes(), {}
    questions = [Question(key, item.record) for key, item in file.items.items()]
    for folder, model in models.items():
        asked = {
            "questions": file.facts,
            "model": model,
            "weights": weights_digest(model),
            "max_new_tokens": max_new_tokens,
            "data": asdict(settings),
        }
        store = AnswerStore[dict](folder, asked, state.process_index)
        work_locally(questions, model, settings, store, work, workers=workers)
        state.wait_for_everyone()
        if state.is_main_process:
            answers, errors = store.finish(questions), store.write_errors(questions)
            reports[folder] = _write_report(folder, asked, score_items(file.items, answers), errors)
    return reports


@torch.no_grad()
def _measure(model, collator: SwimCollator, sample: Sample | TextSample, max_new_tokens: int) -> dict:
    """{"text": the greedy answer, "nll": natural-log loss of the item's own answer, summed over its "tokens"}."""
    batch = {name: tensor.to(model.device) for name, tensor in collator([sample]).items()}
    labels = batch["labels"][0, 1:]
    learnt = (labels != IGNORE).nonzero().flatten()
    kept = len(labels) + 1 - int(learnt[0])  # positions from the one that foretells the first of these tokens
    inputs = {name: tensor for name, tensor in batch.items() if name not in TARGETS}
    logits = model(**inputs, logits_to_keep=kept).logits[0, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits, labels[-len(logits) :], ignore_index=IGNORE, reduction="sum")
    [text] = generate_answers(model, collator, [sample], 1, max_new_tokens)
    return {"text": text, "nll": float(losses), "tokens": len(learnt)}


def score_items(items: dict[str, General], answers: dict[str, dict]) -> list[dict]:
    """One entry per item that was answered: {"id", "type", "answer", "right", "nll", "tokens"}; right is None for an
    item that accepts nothing in particular."""
    return [
        {
            "id": key,
            "type": item.type,
            "answer": answers[key]["text"],
            "right": item.accepts(answers[key]["text"]) if item.accept else None,
            "nll": answers[key]["nll"],
            "tokens": answers[key]["tokens"],
        }
        for key, item in items.items()
        if answers.get(key) is not None
    ]


def summarise(scored: Iterable[dict]) -> dict:
    """By type: items, perplexity of their answers (over tokens), and of those that are marked the share that is right, in
    per cent, with its 95 % interval over items."""
    by_type: dict[str, list[dict]] = {}
    for entry in scored:
        by_type.setdefault(entry["type"], []).append(entry)
    return {kind: _summary(entries) for kind, entries in by_type.items()}


def _summary(entries: list[dict]) -> dict:
    nll, tokens = (sum(entry[name] for entry in entries) for name in ("nll", "tokens"))
    marked = [100.0 * entry["right"] for entry in entries if entry["right"] is not None]
    return {
        "items": len(entries),
        "perplexity": rounded(math.exp(nll / tokens)),
        "accuracy": rounded(statistics.mean(marked)) if marked else None,
        "accuracy_interval_95": rounded_interval(bootstrap_interval(marked)) if marked else None,
    }


def _write_report(folder: Path, asked: dict, scored: list[dict], errors: dict) -> dict:
    """Writes items.jsonl and report.json; returns the report."""
    report = {
        "benchmark": "general ability",
        "date": today(),
        "by_type": summarise(scored),
        "unanswered": asked["questions"]["items"] - len(scored),
        "errors": errors,
        **asked,
    }
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in scored)
    write_atomically(folder / "items.jsonl", lines)
    write_atomically(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report
