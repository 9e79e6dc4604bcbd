"""Files that survive a kill: whole or not there, and lines of which a torn one harms nothing."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def write_atomically(path: Path, text: str):
    """Writes a file that is either whole or as it was before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def append_json_lines(path: Path, entries: Iterable[dict]):
    """Appends one JSON line per entry; they are on the disk when this returns."""
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    with path.open("ab") as file:
        file.write(("\n" + lines).encode())  # the first line break ends a line that a kill tore
        file.flush()
        os.fsync(file.fileno())


def read_json_lines(path: Path) -> Iterator[dict]:
    """The entries that `append_json_lines` wrote, without torn ones; none for a missing file."""
    if not path.exists():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:  # empty or torn
            continue
