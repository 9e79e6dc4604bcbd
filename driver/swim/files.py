"""Files that survive a kill: whole or not there, and lines of which a torn one harms nothing; texts of any editor; sizes
for people."""

import codecs
import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from swim.errors import DataError, Reason

# How the text of an editor begins that does not write UTF-8; the longer marks first.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def cache_root() -> Path:
    """Where everything lies that can be made or fetched again."""
    return Path(os.environ.get("SWIM_CACHE") or "~/.cache/swim").expanduser()


def parse_json(content: bytes, where: str) -> Any:
    """What a file of JSON holds. Raises DataError naming `where`."""
    try:
        return json.loads(decode_text(content, where))
    except ValueError as error:
        raise DataError(f"malformed JSON: {error}", where) from None


def file_sha256(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_or_not_there(path: Path) -> Iterator[Path]:
    """Where to write what is to be at `path`, a file or a folder: it gets its name at the end, on the disk. After an error
    nothing is left of it, after a kill a hidden draft; what was at `path` before stays until then."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield draft
        to_disk(draft)
        os.replace(draft, path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)


def write_atomically(path: Path, text: str):
    """Writes a file that is either whole or as it was before."""
    with whole_or_not_there(path) as draft:
        draft.write_text(text, encoding="utf-8")


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


def read_file(path: Path, step: str, missing: str = "no such file") -> bytes:
    """A file's content. step, missing: see `cannot_read`. Raises DataError naming the file."""
    try:
        check_file(path)
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error, step, missing) from None


def check_file(path: Path):
    """Raises OSError where a file cannot be looked up or is a folder, DataError for a pipe or device: those may never end,
    and a file is read again when a command is resumed."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        message = "expected a file, found a pipe or device; write what comes from it to a file first"
        raise DataError(message, str(path), Reason.UNREADABLE)


def cannot_read(path: Path, error: OSError, step: str, missing: str = "no such file") -> DataError:
    """The error for a file that cannot be read. step: what the user should do when the path is wrong, for
    example "fix --questions". missing: what is said, before that step, where there is none."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{missing}; {step}", str(path), Reason.MISSING)
    reason = Reason.of(error, Reason.UNREADABLE)
    if reason is Reason.NOT_READ:
        step = "give the same command again, or copy the file to another disk"
    elif isinstance(error, PermissionError):
        step = "let this user read it"
    return DataError(f"cannot be read: {error.strerror or error}; {step}", str(path), reason)


def other_encoding(beginning: bytes) -> str | None:
    """ "UTF-16" or "UTF-32" for a text that begins so, with its mark or without; None for UTF-8."""
    for mark, name in _OTHER_MARKS.items():
        if beginning.startswith(mark):
            return name
    zeros = [not byte for byte in beginning[:4]]
    return "UTF-16 or UTF-32" if any(zeros[:2]) or any(zeros[2:4]) else None


def decode_text(content: bytes, where: str) -> str:
    """The text of a file in UTF-8, without a byte order mark.

    Raises DataError naming `where` and the encoding, or the place of the first byte that is no UTF-8.
    """
    other = other_encoding(content[:4])
    if other is not None:
        raise DataError(f"expected UTF-8, found {other}; save the file as UTF-8", where, Reason.UNREADABLE)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"expected UTF-8, found {error.object[error.start : error.start + 1]!r} at byte {error.start:,}; save the file "
            "as UTF-8",
            where,
            Reason.UNREADABLE,
        ) from None


def human_bytes(count: float) -> str:
    """1500000000 -> "1.50 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1e3:,.1f} kB"
