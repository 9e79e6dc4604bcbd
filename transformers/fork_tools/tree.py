"""The placed tree under src/: what a build writes there, how it knows hand edits from its own files, and how it repairs."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fork_tools.layout import (
    COMMAND,
    PACKAGE,
    Fork,
    ForkError,
    file_sha256,
    listing,
    locked,
    own_files,
    say,
    work_folder,
    write_atomically,
)
from fork_tools.patches import apply_series, read_series
from fork_tools.source import Pin, fetch, read_pin, unpack

PLACING, COMPLETE = "placing", "complete"

Hashes = dict[str, str]


@dataclass
class State:
    """What the last build wrote down. Paths are relative to the fork's folder, values are SHA-256.

    `files`: every file of the build. `replaced`: the files that it was about to overwrite or remove, as they were; empty once
    it is complete. A file that matches neither was changed by hand.
    """

    status: str
    inputs: dict
    files: Hashes
    replaced: Hashes = field(default_factory=dict)

    def wrote(self, path: str, found: str) -> bool:
        return found in (self.files.get(path), self.replaced.get(path))


def read_inputs(fork: Fork, pin: Pin, names: list[str]) -> dict:
    """Return everything that decides the tree's content: the archive, the order of the patches and each patch."""
    patches = {name: file_sha256(fork.patches / name) for name in names}
    return {"upstream": str(pin), "archive": pin.sha256, "series": names, "patches": patches}


def read_state(fork: Fork) -> State | None:
    """Return the state of the placed tree; None when nothing was built here. Raises ForkError when it cannot be read."""
    if not fork.state.is_file():
        return None
    try:
        return State(**json.loads(fork.state.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ForkError(
            f"{fork.state} is damaged ({error}).\nDelete it and run `build` again; files edited by hand are then still noticed."
        ) from None


def write_state(fork: Fork, state: State) -> None:
    """Write the state down."""
    write_atomically(fork.state, json.dumps(asdict(state), indent=1).encode())


def hash_tree(root: Path) -> Hashes:
    """Return the SHA-256 of every file of the package under `root`, without Python's caches and hidden files."""
    hashes = {}
    for folder, folders, files in os.walk(root / PACKAGE):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = Path(folder, name)
                hashes[path.relative_to(root).as_posix()] = file_sha256(path)
    return hashes


def hash_placed(fork: Fork) -> Hashes:
    """Return the SHA-256 of every file in src/ that is not our own."""
    own = own_files(fork)
    return {path: digest for path, digest in hash_tree(fork.root).items() if path not in own}


def make_tree(fork: Fork, pin: Pin, names: list[str], folder: Path) -> Hashes:
    """Make the whole fork in the empty `folder`: upstream's package with the patches on it. Return its files' SHA-256."""
    unpack(fetch(fork, pin), pin, folder)
    apply_series(fork, folder, names, base=str(pin))
    return hash_tree(folder)


def build(fork: Fork, discard: bool = False) -> None:
    """Bring src/ to the pinned release with the patches on it; nothing is written when it is there already.

    `discard`: drop hand edits instead of refusing. Raises ForkError; src/ is then as it was.
    """
    with locked(fork):
        pin, names = read_pin(fork), read_series(fork)
        inputs, state, placed = read_inputs(fork, pin, names), read_state(fork), hash_placed(fork)
        if state and state.status == COMPLETE and state.inputs == inputs and state.files == placed:
            say(f"up to date: {pin} with {len(names)} patches")
            return
        with work_folder(fork) as folder:
            result = make_tree(fork, pin, names, folder)
            refuse_own(fork, result)
            if not discard:
                refuse_edits(state, placed, result)
            report_repair(state, placed)
            written, removed = place(fork, folder, inputs, placed, result)
        say(f"built {pin} with {len(names)} patches: {len(result)} files, {written} written, {removed} removed")


def refuse_own(fork: Fork, result: Hashes) -> None:
    """Raise ForkError when the build would write one of our own files."""
    clash = own_files(fork) & set(result)
    if clash:
        raise ForkError(
            f"these files come with upstream or a patch, and git tracks them (or OWN_FILES in fork_tools/layout.py lists them) "
            f"as ours:\n{listing(clash)}\nRename ours, or `git rm --cached` what is upstream's. Nothing was changed."
        )


def edited_files(state: State | None, placed: Hashes) -> set[str]:
    """Return the placed files that no build wrote as they are; without a state, all of them."""
    return {path for path, found in placed.items() if state is None or not state.wrote(path, found)}


def refuse_edits(state: State | None, placed: Hashes, result: Hashes) -> None:
    """Raise ForkError when a build would lose a file that was edited by hand. One that equals the result is not lost."""
    edited = {path for path in edited_files(state, placed) if placed[path] != result.get(path)}
    if edited:
        raise ForkError(
            f"files in src/ that were edited by hand and are in no patch ({len(edited)}):\n{listing(edited)}\n"
            f"Keep them (folded into patches/NAME): {COMMAND} export NAME\nDrop them: {COMMAND} build --discard\nNothing was changed."
        )


def report_repair(state: State | None, placed: Hashes) -> None:
    """Say in one line that an earlier build did not get to its end, or that files it placed are gone."""
    missing = len(set(state.files) - set(placed)) if state else 0
    if missing or (state and state.status == PLACING):
        say(f"repairing a half-finished earlier build ({missing} of its files are missing)")


def place(fork: Fork, folder: Path, inputs: dict, placed: Hashes, result: Hashes) -> tuple[int, int]:
    """Move what differs from `folder` into src/ and remove what the result lacks; return how many files of each."""
    written = [path for path, digest in result.items() if placed.get(path) != digest]
    removed = sorted(set(placed) - set(result))
    replaced = {path: placed[path] for path in [*written, *removed] if path in placed}
    # Written before the first file moves, so that a build that is killed can be told from hand edits.
    write_state(fork, State(PLACING, inputs, result, replaced))
    for path in written:
        target = fork.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / path, target)
    for path in removed:
        (fork.root / path).unlink()
        remove_empty_folders(fork, (fork.root / path).parent)
    write_state(fork, State(COMPLETE, inputs, result))
    return len(written), len(removed)


def remove_empty_folders(fork: Fork, folder: Path) -> None:
    """Remove `folder` and those above it up to the package, as long as they hold nothing but Python's cache."""
    while folder != fork.package and all(entry.name == "__pycache__" for entry in folder.iterdir()):
        shutil.rmtree(folder)
        folder = folder.parent
