"""Files that survive a kill: whole or not there, and lines of which a torn one harms nothing; sizes for people."""

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


def to_disk(path: Path):
    """Brings a file's content, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_json_lines(path: Path, entries: Iterable[dict]):
    """Appends one JSON line per entry; they are on the disk when this returns. Lines of several processes do not mix."""
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                lines = "\n" + lines  # ends a line that a kill tore
        file.write(lines.encode())
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


def human_bytes(count: float) -> str:
    """1500000000 -> "1.50 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1e3:,.1f} kB"
