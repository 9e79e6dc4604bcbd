"""The YAML mixture: which files and how much of each, as one memory-mapped `datasets.Dataset` of raw records."""

import glob
import hashlib
import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from datasets import Dataset, concatenate_datasets
from datasets.table import InMemoryTable
from pydantic import Field, ValidationError

from swim.data.bench import as_conversation, parse_annotated
from swim.data.index import Index, open_index
from swim.data.pages import GiveBackPages
from swim.data.records import Record, parse_record
from swim.data.root import DataRoot, joined, place_of
from swim.data.skip_list import SkipList
from swim.data.streaming import JSON_STEP, stream_records
from swim.errors import DataError, Reason, did_you_mean
from swim.files import cannot_read, decode_text, read_file
from swim.options import Options
from swim.video.fetched import kept_copy
from swim.video.remote import glob as remote_glob
from swim.video.remote import is_url, refuse_credentials

_STRATEGY = re.compile(r"(first|end|random):(\d+(?:\.\d+)?%|\d+)")
_SHARED_ROWS = 1000


class _Source(Options):
    json_path: str
    data_root: str = "."
    sampling_strategy: str = "all"
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    folder_fps: float | None = Field(None, gt=0, allow_inf_nan=False)
    untrusted: bool = False


class _Config(Options):
    datasets: list[_Source]


@dataclass(frozen=True)
class ResolvedSource:
    """One file of a mixture.

    records: in the file.
    selected: rows of one epoch, after strategy, weight and skip list.
    skipped: rows that the skip list leaves out.
    sha256: of the file's bytes.
    untrusted: see `swim.data.root.DataRoot`.
    """

    json_path: str
    data_root: str
    records: int
    selected: int
    strategy: str
    weight: float
    folder_fps: float | None
    sha256: str
    skipped: int
    untrusted: bool = False


@dataclass(frozen=True)
class Mixture:
    """The records that a data config selects, from all of its files.

    dataset: memory-mapped, one row per record and repetition; `row_record` parses a row.
    sources: the files, in the order of the rows.
    unmatched_skips: number of entries in the skip list that belong to no file.

    Columns of the dataset:
    position: int32, the record's position in its file.
    file: path of the file.
    record: JSON of the record without its annotation, see `open_index`.
    annotation: JSON of the annotation.
    data_root: folder of the videos.
    folder_fps: float64 or null, frame rate of a video that is a folder of frames.
    untrusted: bool.
    masks: bool, whether the record's annotation is used.
    """

    dataset: Dataset
    sources: list[ResolvedSource]
    unmatched_skips: int = 0

    @property
    def hashes(self) -> dict[str, str]:
        """{file: SHA-256 of its bytes}, the files as in the rows."""
        return {source.json_path: source.sha256 for source in self.sources}

    def to_dict(self) -> dict:
        """For JSON: rows, unmatched_skips and the sources."""
        sources = [asdict(source) for source in self.sources]
        return {"rows": len(self.dataset), "unmatched_skips": self.unmatched_skips, "sources": sources}

    def describe(self) -> str:
        """The sources for a terminal or a log file: each path whole, on a line of its own."""
        lines = ["mixture:"]
        for source in self.sources:
            taken = (
                f"{source.selected:,} rows of {source.records:,} records ({source.strategy}, weight {source.weight:g})"
            )
            skipped = f", {source.skipped:,} on the skip list" if source.skipped else ""
            others = ", untrusted" if source.untrusted else ""
            lines += [f"  {source.json_path}", f"    {taken}{skipped}{others}, SHA-256 {source.sha256[:12]}"]
        if len(self.sources) > 1:
            lines.append(f"  together {len(self.dataset):,} rows of {len(self.sources)} files")
        if self.unmatched_skips:
            what = "entries of the skip list that belong to no file of this mixture"
            lines.append(f"  warning: {what}: {self.unmatched_skips:,}")
        return "\n".join(lines)


def load_mixture(
    config_path: str | Path, seed: int = 0, skip_list: str | Path | None = None, mask_share: float = 1.0
) -> Mixture:
    """The records that a YAML file names, in the order of its files.

    Relative paths in the YAML are relative to the YAML file. `json_path` may be a glob pattern; strategy and weight then
    apply to each file. mask_share: of each file's records, drawn by `seed`, those that keep their masks; the others are
    text. The rows depend on the files' content, the YAML and the arguments alone.
    Raises DataError for a missing file, malformed YAML, JSON or skip list, an unknown key or strategy, and for a mixture
    without any row.
    """
    config_path = Path(config_path)
    skips = SkipList.read(skip_list)
    parts, mapped, sources = [], [], []
    for number, source in enumerate(_read_yaml(config_path).datasets):
        root = joined(config_path.parent, source.data_root)
        for path in _files(config_path.parent, source.json_path):
            index = open_index(path)
            try:
                chosen = select(len(index.dataset), source.sampling_strategy, seed)
            except DataError as error:
                raise error.at(f"{config_path}: datasets.{number}") from None
            repeated = repeat(chosen, source.weight, seed)
            bad = skips.positions(index.sha256)
            kept = [position for position in repeated if position not in bad]
            if kept:
                mapped.append(index.dataset)
                rows = _rows(index, root, source, _with_masks(len(index.dataset), mask_share, seed))
                parts.append(rows.select(np.array(kept)))  # hashed faster than a list
            resolved = ResolvedSource(
                json_path=str(path),
                data_root=root,
                records=len(index.dataset),
                selected=len(kept),
                strategy=source.sampling_strategy,
                weight=source.weight,
                folder_fps=source.folder_fps,
                sha256=index.sha256,
                skipped=len(repeated) - len(kept),
                untrusted=source.untrusted,
            )
            sources.append(resolved)
    if not parts:
        raise DataError("the mixture selects no record; check sampling_strategy and the files", str(config_path))
    dataset = concatenate_datasets(parts).with_transform(GiveBackPages(mapped))
    return Mixture(dataset, sources, skips.unmatched({source.sha256 for source in sources}))


def check_sources(config_path: str | Path):
    """Raises DataError for a YAML that does not fit, and for a file that it names and that is not there. Reads no record."""
    config_path = Path(config_path)
    for source in _read_yaml(config_path).datasets:
        _files(config_path.parent, source.json_path)


def load_annotated(path: str | Path, data_root: str | Path | None = None, untrusted: bool = False) -> Dataset:
    """The records of an annotated file (NL-Refer, Bench-D, Bench-Q) that have masks, as rows of a mixture.

    data_root: default the file's folder. untrusted: see `swim.data.root.DataRoot`. Raises DataError for a file or record
    that does not fit, and for none with masks.
    """
    path, rows = Path(path), []
    root = DataRoot(place_of(str(path.parent if data_root is None else data_root)), untrusted)
    for position, raw in enumerate(stream_records(path)):
        where = f"{path}, record {position}"
        try:
            parse_annotated(raw, where, root)
        except DataError as error:
            if error.reason != Reason.NO_MASK:
                raise
            continue
        layout = as_conversation(raw, where)
        annotation = json.dumps(layout.pop("annotation"))
        row = {"position": position, "file": str(path), "record": json.dumps(layout), "annotation": annotation}
        rows.append({**row, "data_root": str(root.path), "folder_fps": None, "untrusted": untrusted})
    if not rows:
        raise DataError("no record has a usable mask", str(path), Reason.NO_MASK)
    return Dataset.from_list(rows)


def select(count: int, strategy: str, seed: int = 0) -> list[int]:
    """Positions of the records that a strategy takes: "all", "first:N", "end:N", "random:N", and N may be "P%".

    Example: select(10, "end:20%") -> [8, 9]. A random choice keeps the file's order and depends on `seed` alone.
    Raises DataError for an unknown strategy, or for more records than there are.
    """
    if strategy == "all":
        return list(range(count))
    match = _STRATEGY.fullmatch(strategy)
    if match is None:
        raise DataError(
            f"sampling_strategy: expected all, first:N, end:N or random:N, where N is a number or P%, found {strategy!r}"
        )
    kind, amount = match.groups()
    wanted = round(count * float(amount[:-1]) / 100) if amount.endswith("%") else int(amount)
    if wanted > count:
        raise DataError(f"sampling_strategy: {strategy} asks for {wanted} records of a file with {count}")
    if kind == "random":
        return sorted(random.Random(seed).sample(range(count), wanted))
    return list(range(wanted)) if kind == "first" else list(range(count - wanted, count))


def repeat(positions: list[int], weight: float, seed: int = 0) -> list[int]:
    """The positions `weight` times: whole copies, then for the fraction a random part in order, which `seed` decides.

    Example: repeat([4, 7], 2.5) -> [4, 7, 4, 7, 7] (or 4 at the end).
    """
    copies, fraction = divmod(weight, 1)
    extra = random.Random(seed).sample(range(len(positions)), round(fraction * len(positions)))
    return positions * int(copies) + [positions[number] for number in sorted(extra)]


def row_record(row: dict) -> Record:
    """The record of one row of a mixture, checked. Raises DataError naming file, record and field."""
    raw = raw_row(row) if row.get("masks", True) else json.loads(row["record"])
    return parse_record(raw, f"{row['file']}, record {row['position']}", root_of_row(row), row["folder_fps"])


def raw_row(row: dict) -> dict:
    """The record of one row as its file has it."""
    raw = json.loads(row["record"])
    return {**raw, "annotation": json.loads(row["annotation"])} if row["annotation"] else raw


def root_of_row(row: dict) -> DataRoot:
    """Where the videos of the row's file lie."""
    return DataRoot(place_of(row["data_root"]), row.get("untrusted", False))


def _with_masks(count: int, share: float, seed: int) -> np.ndarray:
    """bool[count]: which records of a file keep their masks."""
    kept = np.zeros(count, dtype=bool)
    kept[select(count, f"random:{round(share * count)}", seed)] = True
    return kept


def _rows(index: Index, data_root: str, source: _Source, masks: np.ndarray) -> Dataset:
    """All rows of a file; what they have in common stands beside the mapped columns. masks: see `_with_masks`."""
    count = len(index.dataset)
    same = {
        "file": (str(index.path), pa.string()),
        "data_root": (data_root, pa.string()),
        "folder_fps": (source.folder_fps, pa.float64()),
        "untrusted": (source.untrusted, pa.bool_()),
    }
    table = pa.table({name: _constant(value, count, kind) for name, (value, kind) in same.items()})
    table = table.append_column("masks", pa.array(masks))
    identity = repr((index.sha256, same)).encode() + masks.tobytes()
    fingerprint = hashlib.sha256(identity).hexdigest()[:16]  # else made from all rows
    return concatenate_datasets([index.dataset, Dataset(InMemoryTable(table), fingerprint=fingerprint)], axis=1)


def _constant(value, count: int, kind: pa.DataType) -> pa.ChunkedArray:
    """`count` times the value; the chunks share their memory."""
    chunk = pa.array([value] * _SHARED_ROWS, kind)
    return pa.chunked_array([chunk] * (count // _SHARED_ROWS) + [chunk.slice(0, count % _SHARED_ROWS)], kind)


def _files(folder: Path, pattern: str) -> list[Path]:
    """The file of that name, or those that fit it as a glob pattern, sorted; of a URL the copy here. Raises DataError for none."""
    if is_url(pattern):
        refuse_credentials(pattern)
        return [kept_copy(url) for url in remote_glob(pattern)] if "*" in pattern else [kept_copy(pattern)]
    try:
        (folder / pattern).stat()
        return [folder / pattern]
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a pattern, or missing
        pass
    except OSError as error:
        raise cannot_read(folder / pattern, error, JSON_STEP) from None
    found = sorted(glob.glob(pattern, root_dir=folder, recursive=True)) if glob.has_magic(pattern) else []
    if not found:
        problem = "no file fits this pattern" if glob.has_magic(pattern) else "no such file"
        download = folder.parent / "run_scripts/download.sh"  # of the mixture that comes with the project
        step = f"fetch the data with bash {download}, or fix" if download.exists() else "fix"
        raise DataError(f"{problem}; {step} json_path in the data config", str(folder / pattern), Reason.MISSING)
    return [folder / name for name in found]


def _read_yaml(path: Path) -> _Config:
    try:
        content = read_file(path, "expected a YAML file like data_config/videorefer.yaml", "no such data config")
        return _Config.model_validate(yaml.safe_load(decode_text(content, str(path))))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"malformed YAML: {error}", str(path)) from None
    except ValidationError as error:
        problems = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")  # a typo first
        problem = problems[0]
        field = ".".join(str(part) for part in problem["loc"]) or "the file"
        keys = ", ".join(_Source.model_fields)
        unknown = problem["type"] == "extra_forbidden"
        close = did_you_mean(str(problem["loc"][-1]), [*_Source.model_fields, *_Config.model_fields]) if unknown else ""
        what = "unknown key" if unknown else problem["msg"]
        raise DataError(f"{field}: {what}{close}; expected datasets: [{{{keys}}}]", str(path)) from None
