"""What the evaluation commands share: options, items of a file, answers from a model, the report's heading."""

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console

from swim.data.errors import DataError
from swim.data.records import Record, Turn
from swim.data.sample import DataSettings
from swim.data.tags import strip_tags
from swim.infer.answers import AnswerStore, Question
from swim.infer.local import answer_locally
from swim.infer.options import add_data_options, data_settings
from swim.infer.remote import answer_remotely
from swim.llm import Asker, Endpoint, ReplyCache

console = Console(soft_wrap=True)


@dataclass(frozen=True)
class ItemFile:
    """The items of a benchmark file in its order, under unique ids; sha256 of its bytes."""

    path: Path
    sha256: str
    items: dict[str, Any]


def read_items(path: str | Path, root: str | Path | None, parse: Callable, limit: int | None = None) -> ItemFile:
    """Reads a JSON list of items with `parse(raw, where, root)`; root defaults to the file's folder.

    Raises DataError for a file that is missing or no list, for an item that does not fit, and for an id given twice.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        raws = json.loads(content)
    except FileNotFoundError:
        raise DataError("no such file; fix --questions", str(path)) from None
    except ValueError as error:
        raise DataError(f"malformed JSON: {error}", str(path)) from None
    if not isinstance(raws, list) or not raws:
        raise DataError(f"expected a JSON list of items, found {type(raws).__name__}", str(path))
    items = {}
    for position, raw in enumerate(raws[:limit]):
        item = parse(raw, f"{path}, item {position}", path.parent if root is None else root)
        key = str(position if item.id is None else item.id)
        if key in items:
            raise DataError(f"the id {key!r} is given twice; ids must be unique", item.where)
        items[key] = item
    return ItemFile(path, hashlib.sha256(content).hexdigest(), items)


def as_question(key: str, item: Any, text: str) -> Question:
    """What the model sees of an item: its video and `text` without tags. Its masks stay behind."""
    turns = [Turn("user", strip_tags(text)[0], [], []), Turn("assistant", "", [], [])]
    return Question(key, Record(item.where, item.path, False, turns, [], item.fps))


def add_model_options(parser: argparse.ArgumentParser, output: str, max_new_tokens: int):
    """--model and everything that decides its answers."""
    parser.add_argument("--questions", help="the benchmark's JSON file (default: the demo's)")
    parser.add_argument(
        "--model", default="output/demo", help="checkpoint, LoRA folder or hub name; or the server's model"
    )
    parser.add_argument("--video_root", help="what the items' videos are relative to (default: the file's folder)")
    parser.add_argument("--output", default=output, help="folder of answers and report")
    parser.add_argument("--limit", type=int, help="the first N items only")
    add_data_options(parser)
    parser.add_argument("--max_new_tokens", type=int, default=max_new_tokens)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that read videos ahead, per process")
    parser.add_argument("--backend", choices=("local", "openai"), default="local", help="openai: any compatible server")
    parser.add_argument("--base_url", help="of the server, such as http://localhost:8000/v1")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time")


def answer_all(
    options: argparse.Namespace, file: ItemFile, questions: list[Question], prompt: str
) -> dict[str, str] | None:
    """Answers of the model by id, in the file's order; None on every process but the first.

    Raises ValueError when `--output` holds another evaluation, swim.llm.ServiceRefuses when the server gives up.
    """
    state, settings = PartialState(), data_settings(options)
    asked = inference_settings(options, file, settings, prompt)
    store = AnswerStore(options.output, asked, state.process_index)
    if options.backend == "local":
        answer_locally(
            questions, options.model, settings, store, options.batch_size, options.max_new_tokens, options.workers
        )
    elif state.is_main_process:
        endpoint = Endpoint(
            options.model, options.base_url, max_tokens=options.max_new_tokens, concurrency=options.concurrency
        )
        answer_remotely(questions, Asker(endpoint, ReplyCache(store.folder / "replies.sqlite")), settings, store)
    state.wait_for_everyone()
    return store.finish(questions) if state.is_main_process else None


def inference_settings(options: argparse.Namespace, file: ItemFile, settings: DataSettings, prompt: str) -> dict:
    """Everything that decides the answers, for settings.json and the report."""
    return {
        "questions": {"file": file.path.name, "sha256": file.sha256, "items": len(file.items)},
        "model": str(options.model),
        "backend": options.backend,
        "prompt": prompt,
        "decoding": {"greedy": True, "max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size},
        "data": asdict(settings),
    }


def today() -> str:
    return datetime.now(UTC).date().isoformat()
