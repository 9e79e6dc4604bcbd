"""The records of a mixture and their videos, brought into one folder from wherever they lie."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import yaml

from swim.concurrently import run_concurrently
from swim.data.mixture import Mixture, ResolvedSource, raw_row, root_of_row, row_record
from swim.data.root import DataRoot
from swim.errors import DataError
from swim.files import append_json_lines, whole_or_not_there, write_atomically
from swim.video.remote import is_url
from swim.video.sources import local_file

MIXTURE, MISSING = "mixture.yaml", "missing.jsonl"
_ELSEWHERE = "elsewhere"  # for what has no place below its root


@dataclass(frozen=True)
class Part:
    """A source of the mixture as it will be. name: of its JSON file and of its folder below videos/."""

    name: str
    source: ResolvedSource
    rows: list[int]


def gather(
    mixture: Mixture, parts: list[Part], folder: Path, concurrency: int = 8, limit_s: float = 600.0
) -> Iterator[str | None]:
    """Copies the videos, then writes the records and a mixture that names both; yields for each row what was wrong, or None.

    A video that is there already is not fetched again. Records whose video cannot be had are left out, and listed in
    missing.jsonl. parts: of `parts_of`. concurrency: videos at a time. limit_s: for one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MISSING).unlink(missing_ok=True)
    written = []
    locks: dict[Path, threading.Lock] = {}  # several records may name one video
    for part in parts:
        videos = folder / "videos" / part.name
        problems: dict[int, str] = {}

        def bring(number: int, videos: Path = videos) -> str | None:
            row = mixture.dataset[number]
            try:
                _bring(row, videos, limit_s, locks)
            except DataError as error:
                return str(error)
            return None

        for number, problem in run_concurrently(part.rows, bring, concurrency):
            if problem is not None:
                problems[number] = problem
                row = mixture.dataset[number]
                append_json_lines(
                    folder / MISSING, [{"file": row["file"], "position": row["position"], "message": problem}]
                )
            yield problem
        kept = [_renamed(mixture.dataset[number]) for number in part.rows if number not in problems]
        if kept:
            write_atomically(folder / f"{part.name}.json", json.dumps(kept, ensure_ascii=False) + "\n")
            entry = {"json_path": f"{part.name}.json", "data_root": f"videos/{part.name}", "sampling_strategy": "all"}
            more = {
                "weight": part.source.weight,
                "folder_fps": part.source.folder_fps,
                "untrusted": part.source.untrusted,
            }
            written.append({**entry, **{name: value for name, value in more.items() if value is not None}})
    write_atomically(folder / MIXTURE, yaml.safe_dump({"datasets": written}, sort_keys=False))


def parts_of(mixture: Mixture) -> list[Part]:
    """Each row once, by source, in the order of the mixture."""
    by_file: dict[str, dict[int, int]] = {}
    for number, row in enumerate(mixture.dataset.select_columns(["file", "position"])):
        by_file.setdefault(row["file"], {}).setdefault(row["position"], number)
    parts: list[Part] = []
    for source in mixture.sources:
        rows = list(by_file.pop(source.json_path, {}).values())
        stem = Path(source.json_path).name.split(".")[0]
        taken = {part.name for part in parts}
        name = next(name for name in (stem, *(f"{stem}_{n}" for n in range(1, 10**6))) if name not in taken)
        if rows:
            parts.append(Part(name, source, rows))
    return parts


def _place_of(video: str, root: DataRoot) -> str:
    """The name of a video in the new folder: its own where that is one below its root."""
    path = PurePosixPath(video)
    if (
        not is_url(video)
        and not path.is_absolute()
        and ".." not in path.parts
        and "::" not in video
        and ":" not in video
    ):
        return video
    digest = hashlib.sha256(str(root.locate(video)).encode()).hexdigest()[:16]
    return f"{_ELSEWHERE}/{digest}{PurePosixPath(video.split('?')[0]).suffix}"


def _bring(row: dict, videos: Path, limit_s: float, locks: dict[Path, threading.Lock]):
    """Raises DataError naming the record."""
    record, root, raw = row_record(row), root_of_row(row), raw_row(row)
    for name in _named(raw):
        target = videos / _place_of(name, root)
        with locks.setdefault(target, threading.Lock()):
            if target.exists():
                continue
            try:
                with local_file(root.locate(name), limit_s) as source:
                    _copy(source, target)
            except DataError as error:
                raise error.at(record.where) from None


def _copy(source: Path, target: Path):
    """Whole or not there; a folder of frames with what is in it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_not_there(target) as draft:
        if source.is_dir():
            shutil.copytree(source, draft)
        else:
            shutil.copyfile(source, draft)


def _named(raw: dict) -> list[str]:
    source = raw.get("video") or raw.get("image")
    return [] if source is None else source if isinstance(source, list) else [source]


def _renamed(row: dict) -> dict:
    raw, root = raw_row(row), root_of_row(row)
    key = "video" if raw.get("video") is not None else "image"
    names = [_place_of(name, root) for name in _named(raw)]
    if not names:
        return raw
    return {**raw, key: names if isinstance(raw[key], list) else names[0]}
