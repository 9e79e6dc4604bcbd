"""What the evaluation commands share: options, items of a file, answers from a model, the report's heading."""

import argparse
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from swim.data.root import DataRoot, add_root_options
from swim.demo.bench import Benches
from swim.demo.inputs import demo_benches
from swim.errors import DataError
from swim.files import decode_text, read_file
from swim.infer.answers import Question
from swim.infer.command import add_answer_options, answer_questions
from swim.infer.questions import ItemFile, question_record
from swim.model_name import check_model_name
from swim.processes import processes

console = Console(soft_wrap=True)


def read_items(path: str | Path, root: str | Path | DataRoot | None, parse: Callable, limit: int | None = None) -> ItemFile:
    """Reads a JSON list of items with `parse(raw, where, root)`; root defaults to the file's folder.

    Raises DataError for a file that is missing or no list, for an item that does not fit, and for an id given twice.
    """
    path = Path(path)
    try:
        content = read_file(path, "fix the path on the command line")
        raws = json.loads(decode_text(content, str(path)))
    except ValueError as error:
        raise DataError(f"malformed JSON: {error}", str(path)) from None
    if not isinstance(raws, list) or not raws:
        raise DataError(f"expected a JSON list of items, found {type(raws).__name__}", str(path))
    items = {}
    for position, raw in enumerate(raws[:limit]):
        where = f"{path}, item {position}"
        item = parse(raw, where, path.parent if root is None else root)
        key = str(next((raw[name] for name in ("id", "index") if raw.get(name) is not None), position))
        if key in items:
            raise DataError(f"the id {key!r} is given twice; ids must be unique", where)
        items[key] = item
    return ItemFile(path, hashlib.sha256(content).hexdigest(), items)


def as_question(key: str, item: Any, text: str) -> Question:
    """What the model sees of an item: its video and `text` without tags. Its masks stay behind."""
    return Question(key, question_record(item.where, item.path, text, fps=item.fps))


def add_model_options(parser: argparse.ArgumentParser, output: str, max_new_tokens: int):
    """--questions, --model and everything that decides its answers."""
    parser.add_argument("--questions", help="the benchmark's JSON file (default: the demo's)")
    add_answer_options(parser, max_new_tokens)
    add_root_options(parser, "the items' videos are")
    parser.add_argument("--output", default=output, help="folder of answers and report")
    parser.add_argument("--limit", type=int, help="the first N items only")


def demo_of(options: argparse.Namespace) -> Benches:
    """The demo's benches, made when missing; not before the model is there that they are for. Raises NoModel."""
    if options.backend == "local":
        check_model_name(options.model)
    return demo_benches()


def answer_all(
    options: argparse.Namespace, file: ItemFile, questions: list[Question], prompt: str
) -> dict[str, str] | None:
    """Answers of the model by id, in the file's order; None on every process but the first.

    Raises ValueError when `--output` holds another evaluation, swim.llm.ServiceRefuses when the server gives up.
    """
    store = answer_questions(options, file, questions, prompt)
    return store.finish(questions) if processes().is_main_process else None


def today() -> str:
    return datetime.now(UTC).date().isoformat()
