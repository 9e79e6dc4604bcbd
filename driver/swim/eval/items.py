"""Items of an evaluation's file, and the questions that they become."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from swim.data.root import DataRoot
from swim.errors import DataError
from swim.files import parse_json, read_file
from swim.infer.answers import Question
from swim.infer.questions import ItemFile, question_record

console = Console(soft_wrap=True)


def read_items(
    path: str | Path, root: str | Path | DataRoot | None, parse: Callable, limit: int | None = None
) -> ItemFile:
    """Reads a JSON list of items with `parse(raw, where, root)`; root defaults to the file's folder.

    Raises DataError for a file that is missing or no list, for an item that does not fit, and for an id given twice.
    """
    path = Path(path)
    content = read_file(path, "fix the path on the command line")
    raws = parse_json(content, str(path))
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


def today() -> str:
    return datetime.now(UTC).date().isoformat()
