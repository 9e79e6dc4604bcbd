"""Checkpoints of a run: only complete ones count, and the only good one is never deleted."""

import json
import re
import shutil
from pathlib import Path

from swim.files import to_disk, write_atomically

MARKER = "complete.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_ASIDE = ".incomplete"


class Checkpoints:
    """The `checkpoint-STEP` folders below an output folder.

    One is complete when its marker, written last, names files that are all there with their sizes: folders cannot be
    renamed into place, since several processes write into them.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def path(self, step: int) -> Path:
        return self.folder / f"checkpoint-{step}"

    def complete(self) -> list[Path]:
        """From the oldest to the newest."""
        return [path for path in self._all() if problem(path) is None]

    def last(self) -> Path | None:
        return next(reversed(self.complete()), None)

    def set_aside(self) -> list[str]:
        """Renames incomplete checkpoints, so that their steps can be saved again; returns a line about each.

        They are kept until the next checkpoint is complete.
        """
        lines = []
        for path in self._all():
            reason = problem(path)
            if reason is not None:
                aside = self._rename(path)
                lines.append(f"{path} is incomplete ({reason}): set aside as {aside.name}")
        return lines

    def finish(self, checkpoint: Path, keep: int | None, best: str | Path | None, processes: int):
        """Marks a checkpoint as complete, then deletes what is no longer needed.

        Left are the newest `keep` complete checkpoints (None: all) and `best`, which counts among them.
        """
        mark(checkpoint, processes)
        kept = self.complete()
        protected = {self.path(step_of(checkpoint)), None if best is None else self.path(step_of(Path(best)))}
        for path in [path for path in kept if path not in protected]:
            if keep is None or len(kept) <= max(keep, 1):
                break
            kept.remove(path)
            self._rename(path)  # a kill while it is deleted leaves nothing that looks like a checkpoint
        for path in self._aside():
            shutil.rmtree(path, ignore_errors=True)

    def delete_all(self):
        """Of a run that is finished and will not be resumed: they take several times the room of its weights."""
        for path in self._all():
            self._rename(path)
        for path in self._aside():
            shutil.rmtree(path)

    def _all(self) -> list[Path]:
        found = [path for path in self.folder.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
        return sorted(found, key=step_of)

    def _aside(self) -> list[Path]:
        return list(self.folder.glob(f"checkpoint-*{_ASIDE}"))

    def _rename(self, path: Path) -> Path:
        aside = path.with_name(path.name + _ASIDE)
        if aside.exists():
            shutil.rmtree(aside)
        return path.rename(aside)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def mark(checkpoint: Path, processes: int):
    """Brings the files to the disk, then writes the marker: {"processes", "files": {name: bytes}}."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    for path in files:
        to_disk(path)
    sizes = {str(path.relative_to(checkpoint)): path.stat().st_size for path in files}
    write_atomically(checkpoint / MARKER, json.dumps({"processes": processes, "files": sizes}, indent=1) + "\n")
    to_disk(checkpoint)


def problem(checkpoint: Path) -> str | None:
    """Why a checkpoint is not complete, None for one that is."""
    try:
        sizes = json.loads((checkpoint / MARKER).read_text())["files"]
    except FileNotFoundError:
        return f"no {MARKER}"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
    return None


def processes_of(checkpoint: Path) -> int:
    """How many processes a complete checkpoint belongs to."""
    return json.loads((checkpoint / MARKER).read_text())["processes"]
