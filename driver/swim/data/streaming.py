"""JSON files to records, one at a time and in bounded memory: a list or lines, gzipped or not."""

import gzip
import io
import json
import re
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import ijson
from ijson.backends import yajl2_c

from swim.errors import DataError, Reason
from swim.files import cannot_read, check_file, other_encoding

ENDINGS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
JSON_STEP = "fix json_path in the data config"  # where a JSON file cannot be read
_BLOCK_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 28
HALF_CHARACTER = "\ufffe"  # what stands for it in a record of a list: no text has this one
_SURROGATE, _FIRST_HALF = re.compile(rb"\\u[dD][89a-fA-F]"), re.compile(rb"\\u[dD][89abAB]")
# An escape of JSON: half a character, with its other half if that follows, or any other.
_ESCAPE = re.compile(rb"\\(?:u([dD][89abAB]..)(\\u[dD][c-fC-F]..)?|u([dD][c-fC-F]..)|.)", re.DOTALL)
_LONGEST_ESCAPE_BYTES = 12


def file_ending(path: Path) -> str:
    """Which of ENDINGS the file has. Raises DataError for any other."""
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return ending
    raise DataError(f"expected a file that ends in {', '.join(ENDINGS)}", str(path))


def stream_records(path: Path, seen: Callable[[memoryview], None] = lambda block: None) -> Iterator[dict]:
    """The records of a file, in order. seen: gets every raw block of the file, for a hash or a progress bar.

    Numbers stay what they are: integers (of 64 bits in a list) or floats. Raises DataError naming file, record and
    byte or line for a file that is missing, damaged, malformed or no list of objects; the records before come first.
    """
    position = 0
    try:
        for record in _parsed(path, seen):
            if not isinstance(record, dict):
                raise _Malformed(f"expected an object, found {type(record).__name__}")
            yield record
            position += 1
    except _Malformed as error:
        raise DataError(str(error), f"{path}, record {position}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        message = f"truncated or damaged gzip file ({error}); fetch or make it again"
        raise DataError(message, f"{path}, record {position}", Reason.UNREADABLE) from None
    except OSError as error:
        raise cannot_read(path, error, JSON_STEP) from None


class Blocks(Protocol):
    """A buffered binary file."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int = -1, /) -> bytes: ...

    def peek(self, size: int, /) -> bytes: ...

    def __iter__(self) -> Iterator[bytes]: ...


class _Malformed(Exception):
    """Where the JSON goes wrong, as far as its reader knows."""


class _Watched(io.RawIOBase):
    """A file that shows each block that is read from it."""

    def __init__(self, file: io.FileIO, seen: Callable[[memoryview], None]):
        self.file = file
        self.seen = seen

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = self.file.readinto(buffer) or 0
        self.seen(memoryview(buffer)[:count])
        return count


def _parsed(path: Path, seen: Callable[[memoryview], None]) -> Iterator:
    ending = file_ending(path)
    check_file(path)
    with open(path, "rb", buffering=0) as raw:
        plain = io.BufferedReader(_Watched(raw, seen), buffer_size=_BLOCK_BYTES)
        file: Blocks = gzip.GzipFile(fileobj=plain) if ending.endswith(".gz") else plain
        _skip_mark(file)
        yield from _from_lines(file) if ending.startswith(".jsonl") else _from_list(file)


def _skip_mark(file: Blocks):
    """Passes over UTF-8's byte order mark. Raises _Malformed for another encoding."""
    beginning = file.peek(4)[:4]
    other = other_encoding(beginning)
    if other is not None:
        raise _Malformed(f"expected UTF-8, found {other}; save the file as UTF-8")
    if beginning.startswith(BOM_UTF8):
        file.read(len(BOM_UTF8))


def _mark_halves(file: Blocks) -> Iterator[bytes]:
    """The file's blocks, each escape of half a character, such as \\ud83d alone, as HALF_CHARACTER's.

    yajl would make a question mark of it, without a word. What may be cut by a block's end waits for the next block.
    """
    held = b""
    while block := file.read(_BLOCK_BYTES):
        block = held + block
        cut = _uncut_end(block)
        held = block[cut:]
        if cut:
            yield _mark(block[:cut])
    if held:
        yield _mark(held)


def _uncut_end(block: bytes) -> int:
    """Where a block may end so that no escape, and no pair of two, is cut."""
    found = block.find(b"\\", max(0, len(block) - _LONGEST_ESCAPE_BYTES))
    if found < 0:
        return len(block)
    found -= _backslashes_before(block, found)
    first_half = found - 6
    cuts_pair = (
        first_half >= 0 and _FIRST_HALF.match(block, first_half) and _backslashes_before(block, first_half) % 2 == 0
    )
    return first_half if cuts_pair else found


def _backslashes_before(block: bytes, place: int) -> int:
    return place - len(block[:place].rstrip(b"\\"))


def _mark(block: bytes) -> bytes:
    return _ESCAPE.sub(_marked, block) if _SURROGATE.search(block) else block


def _marked(escape: re.Match) -> bytes:
    high, low, lone_low = escape.groups()
    return b"\\ufffe" if lone_low or (high and not low) else escape.group()


def _from_list(file: Blocks) -> Iterator:
    found = ijson.sendable_list()
    parser = yajl2_c.items_coro(found, "item", use_float=True, map_type=_UniqueKeys)
    read, is_list = 0, False
    try:
        for block in _mark_halves(file):
            is_list = is_list or _opens_list(block)
            parser.send(block)
            read += len(block)
            yield from found
            found.clear()
        parser.close()
    except (ijson.JSONError, ValueError) as error:
        yield from found
        raise _Malformed(f"malformed JSON after byte {read:,}: {_first_line(error)}") from None


def _opens_list(block: bytes) -> bool:
    """False for white space alone. Raises _Malformed for anything but a list."""
    start = block.lstrip()[:1]
    if start not in (b"", b"["):
        found = repr(start.decode(errors="replace"))
        if start == b"{":
            found = "an object; a file of one record per line is a .jsonl"
        raise _Malformed(f"expected a JSON list of records, found {found}")
    return bool(start)


def _first_line(error: Exception) -> str:
    text = error.args[0]
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return text.splitlines()[0] + (": is the file complete?" if "premature EOF" in text else "")


class _UniqueKeys(dict):
    """An object of a JSON list; ijson fills it key by key."""

    def __setitem__(self, key, value):
        if key in self:
            raise ValueError(f"the key {key!r} twice in one object")
        super().__setitem__(key, value)


def _from_lines(file: Blocks) -> Iterator:
    number = 0
    while line := file.readline(_LONGEST_LINE_BYTES):
        number += 1
        if len(line) == _LONGEST_LINE_BYTES:
            raise _Malformed(f"line {number} is longer than {_LONGEST_LINE_BYTES:,} bytes; is the file a .json list?")
        if line.isspace():
            continue
        try:
            yield json.loads(line.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise _Malformed(f"malformed JSON in line {number}: {error}") from None


def _unique(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} twice in one object")
    return found


def _refuse_constant(name: str):
    raise ValueError(f"{name} is no JSON")
