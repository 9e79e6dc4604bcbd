"""A JSON file as a memory-mapped Arrow file, made once per content and kept in $SWIM_CACHE."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, Features
from datasets.arrow_writer import ArrowWriter

from swim.data.cache import ContentCache, progress
from swim.data.streaming import file_ending, stream_records
from swim.errors import DataError, Reason
from swim.files import cache_root

_SCHEMA = pa.schema([("position", pa.int32()), ("record", pa.string()), ("annotation", pa.string())])
_LAYOUT = "v2"  # of what is written; another layout is another folder
_ROWS = "records.arrow"
_BATCH_RECORDS, _BATCH_BYTES = 1000, 1 << 24


class CacheError(DataError):
    """The cache folder cannot be used; `str(error)` names it and the remedy."""


@dataclass(frozen=True)
class Index:
    """The indexed records of one file.

    dataset: memory-mapped rows, see `open_index`.
    sha256: of the file's bytes, in hex.
    path: the file.
    """

    dataset: Dataset
    sha256: str
    path: Path


def open_index(path: str | Path) -> Index:
    """The records of a .json list or .jsonl file, gzipped or not, one row each, in the file's order.

    Columns: `position` int32 from 0; `record`, the record's JSON without "annotation"; `annotation`, the JSON of that
    key, "" when there is none. The first call for a content reads the file, with a progress bar, and writes about as
    much below $SWIM_CACHE (default ~/.cache/swim); later ones map what is there.
    Raises DataError naming file and record for a bad file, CacheError for a cache folder that cannot be used.
    """
    path = Path(path)
    suffix = f"{file_ending(path)}-{_LAYOUT}"
    cache = ContentCache(cache_root() / "index", _write_index)
    try:
        folder, sha256 = cache.find(path, suffix)
        return Index(Dataset.from_file(str(folder / _ROWS)), sha256, path)
    except OSError as error:
        raise CacheError(
            f"the index of {path} cannot be kept here: {error.strerror or error}; set SWIM_CACHE to a folder with room "
            "for about the size of the JSON files",
            str(cache.root),
            Reason.UNREADABLE,
        ) from None


def _write_index(path: Path, folder: Path) -> str:
    """Writes the rows of a JSON file into `folder`; its content hash."""
    digest = hashlib.sha256()
    with open(folder / _ROWS, "wb") as file, progress(path, "indexing") as bar:

        def seen(block: memoryview):
            digest.update(block)
            bar.update(len(block))

        writer = ArrowWriter(stream=file, features=Features.from_arrow_schema(_SCHEMA))
        for rows in _batches(path, seen):
            writer.write_table(rows)
        writer.finalize(close_stream=False)
    return digest.hexdigest()


def _batches(path: Path, seen) -> Iterator[pa.Table]:
    """The file's rows, at most _BATCH_RECORDS and about _BATCH_BYTES at a time."""
    rows, held_bytes = [], 0
    for position, record in enumerate(stream_records(path, seen)):
        annotation = [record.pop("annotation")] if "annotation" in record else []
        try:
            texts = [_as_text(part) for part in (record, *annotation)]
        except RecursionError as error:
            raise DataError(f"cannot be kept as text: {error}", f"{path}, record {position}") from None
        rows.append((position, texts[0], texts[1] if annotation else b""))
        held_bytes += sum(map(len, texts))
        if len(rows) == _BATCH_RECORDS or held_bytes > _BATCH_BYTES:
            yield _table(rows)
            rows, held_bytes = [], 0
    if rows:
        yield _table(rows)


def _as_text(part) -> bytes:
    """JSON in UTF-8; with escapes where it holds half a character, which the record's own check refuses."""
    try:
        return json.dumps(part, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(part).encode()


def _table(rows: list[tuple[int, bytes, bytes]]) -> pa.Table:
    return pa.table([pa.array(column, field.type) for column, field in zip(zip(*rows), _SCHEMA)], schema=_SCHEMA)
