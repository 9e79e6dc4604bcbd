"""Weights and data from the hub, whole and resumable."""

import glob
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.file_download import DryRunFileInfo

from swim.files import human_bytes


@dataclass(frozen=True)
class Repository:
    """A repository of the hub. folder: where it goes, below --dir."""

    id: str
    kind: str
    folder: str


BENCH = Repository("BBBBCHAN/NL-Refer", "dataset", "data/NL-Refer")
TRAIN = Repository("BBBBCHAN/SWIM_data", "dataset", "data/SWIM_data")
MODELS = [
    Repository("BBBBCHAN/SWIM-7B", "model", "models/SWIM-7B"),
    Repository("Qwen/Qwen2.5-VL-7B-Instruct", "model", "models/Qwen2.5-VL-7B-Instruct"),
]


class HubError(Exception):
    """The hub cannot be used; `str(error)` says why and what to do."""


def chosen(model: bool, data: bool, bench_only: bool, subset: int | None) -> list[Repository]:
    """What the command's flags ask for; without any everything, with a subset alone the data."""
    if not (model or data or bench_only):
        return [BENCH, TRAIN] + (MODELS if subset is None else [])
    files = [BENCH, TRAIN] if data else [BENCH] if bench_only else []
    return files + (MODELS if model else [])


def first_of_each_kind(names: list[str], count: int) -> list[str]:
    """Of names that differ in their numbers only (shards) the first `count`, by number; of the others all.

    Example: ["a-10.json", "a-9.json", "b.json"], 1 -> ["a-9.json", "b.json"].
    """
    kinds: dict[str, list[str]] = {}
    for name in sorted(names, key=_by_number):
        kinds.setdefault(re.sub(r"\d+", "0", name), []).append(name)
    return [name for kind in kinds.values() for name in kind[:count]]


def _by_number(name: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def plan(repository: Repository, folder: Path, subset: int | None) -> list[DryRunFileInfo]:
    """The files to have, each with its size and whether it is there. Raises HubError."""
    files = {file.filename: file for file in _hub(repository, folder, dry_run=True)}
    names = sorted(files)
    if subset is not None and repository.kind == "dataset":
        names = first_of_each_kind(names, subset)
    return [files[name] for name in names]


def download(repositories: list[Repository], root: Path, subset: int | None):
    """Says what comes and how large it is, then fetches it. Raises HubError, for a disk that is too small as well."""
    plans, missing_bytes = {}, 0
    for repository in repositories:
        folder = root / repository.folder
        plans[repository] = files = plan(repository, folder, subset)
        missing = sum(file.file_size or 0 for file in files if file.will_download)
        missing_bytes += missing
        total = human_bytes(sum(file.file_size or 0 for file in files))
        print(
            f"{repository.id}: {len(files)} files, {total}, to fetch {human_bytes(missing)}, into {folder}", flush=True
        )
    root.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(root).free
    print(f"to fetch: {human_bytes(missing_bytes)}; free in {root}: {human_bytes(free_bytes)}", flush=True)
    if missing_bytes > free_bytes:
        remedy = "choose another with --dir, or less with --subset or --bench-only"
        raise HubError(f"the disk of {root} is too small; {remedy}")
    for repository, files in plans.items():
        names = [glob.escape(file.filename) for file in files if file.will_download]
        if names:
            _hub(repository, root / repository.folder, allow_patterns=names)
    for repository in repositories:
        print(f"complete: {root / repository.folder}")


def _hub(repository: Repository, folder: Path, **options):
    try:
        return snapshot_download(repository.id, repo_type=repository.kind, local_dir=folder, **options)
    except (OSError, HTTPError) as error:
        raise HubError(f"{repository.id}: {_explain(error)}") from None


def _explain(error: Exception) -> str:
    """What went wrong and what to do; the client wraps it in errors of its own."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            return f"{' '.join(str(cause).split())}; a closed repository needs HF_TOKEN"
    return (
        f"no whole answer from {constants.ENDPOINT} ({' '.join(str(causes[-1]).split())}). Check the connection, name a "
        "mirror with HF_ENDPOINT, unset HF_HUB_OFFLINE; then give the same command again"
    )
