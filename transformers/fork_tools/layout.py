"""Where the fork's files lie, which of them are ours, and the few helpers that every part shares."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "src/transformers"
COMMAND = "python transformers/fork_backend.py"

# Files that upstream does not have and git tracks in their real place. A build never writes or removes them.
OWN_FILES = frozenset(
    f"{PACKAGE}/{name}.py"
    for name in (
        "attention_supervision/__init__",
        "attention_supervision/batch",
        "attention_supervision/forward",
        "attention_supervision/loss",
        "attention_supervision/losses",
        "attention_supervision/options",
        "attention_supervision/plan",
        "attention_supervision/rows",
        "attention_supervision/vision",
        "models/qwen2_5_vl/attention_supervision",
        "models/qwen2_5_vl/window_attention",
        "models/qwen3_vl/attention_supervision",
    )
)


class ForkError(Exception):
    """Something that the user can put right. Its text says what was expected, what was found, where, and what to do."""


@dataclass(frozen=True)
class Fork:
    """The fork's folder (`transformers/` in the repository) and the places in it."""

    root: Path

    @property
    def pin(self) -> Path:
        return self.root / "upstream.txt"

    @property
    def pyproject(self) -> Path:
        return self.root / "pyproject.toml"

    @property
    def patches(self) -> Path:
        return self.root / "patches"

    @property
    def series(self) -> Path:
        return self.patches / "series"

    @property
    def cache(self) -> Path:
        return self.root / ".cache"

    @property
    def package(self) -> Path:
        return self.root / PACKAGE

    @property
    def state(self) -> Path:
        return self.root / "src" / ".fork-state.json"


def say(message: str) -> None:
    """Print one progress line, at once, so that it stands before whatever comes next."""
    print(f"fork: {message}", flush=True)


def sha256(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file at `path`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(paths, limit: int = 10) -> str:
    """Return the sorted `paths` as indented lines, at most `limit` of them, and how many more there are."""
    ordered = sorted(paths)
    lines = [f"  {path}" for path in ordered[:limit]]
    if len(ordered) > limit:
        lines.append(f"  ... and {len(ordered) - limit} more")
    return "\n".join(lines)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader, or a crash, sees the old file or the new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    os.replace(temporary, path)


@contextlib.contextmanager
def locked(fork: Fork):
    """Hold the fork's lock: of two commands at the same time, the second waits for the first."""
    fork.cache.mkdir(parents=True, exist_ok=True)
    with (fork.cache / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another fork command is running here; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        remove_leftovers(fork)
        yield


def remove_leftovers(fork: Fork) -> None:
    """Remove the working folders of commands that were killed. Only for the holder of the lock: all of them are dead."""
    for leftover in fork.root.glob(".build-*"):
        shutil.rmtree(leftover)


@contextlib.contextmanager
def work_folder(fork: Fork):
    """Yield an empty folder inside the fork's, on the same file system as src/ so that files can be moved over."""
    folder = Path(tempfile.mkdtemp(prefix=".build-", dir=fork.root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def run_git(arguments: list[str], cwd: Path, ceiling: Path | None = None) -> subprocess.CompletedProcess:
    """Run git and return its exit status and output, free of the caller's repository variables.

    `ceiling`: a folder that git must not climb into while it looks for a repository; with it the user's configuration is
    left out too. Raises ForkError without git.
    """
    # A git hook sets GIT_DIR and GIT_INDEX_FILE, which would point git at another place than `cwd`.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    environment["LC_ALL"] = "C"
    if ceiling is not None:
        # A user's apply.whitespace or core.autocrlf would change the sources.
        environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
        environment["GIT_CEILING_DIRECTORIES"] = str(ceiling.resolve())
    try:
        return subprocess.run(["git", *arguments], cwd=cwd, env=environment, capture_output=True)
    except FileNotFoundError:
        raise ForkError(
            "the fork's patches are applied by the command `git`, which was not found on PATH ("
            f"{os.environ.get('PATH', '')}).\nInstall git and run the same command again."
        ) from None


def tracked_files(fork: Fork) -> set[str] | None:
    """Return the files under src/ that git tracks, relative to the fork's folder; None outside of a repository."""
    found = run_git(["ls-files", "-z", "--", "src"], cwd=fork.root)
    if found.returncode:
        return None
    return {name for name in os.fsdecode(found.stdout).split("\0") if name}


def own_files(fork: Fork) -> set[str]:
    """Return the files that a build must leave alone: those in OWN_FILES and every other that git tracks under src/."""
    return set(OWN_FILES) | (tracked_files(fork) or set())


def fail(message: str) -> None:
    """Print an error where errors go."""
    print(f"error: {message}", file=sys.stderr, flush=True)
