"""The files of a run's output: shards in the order of the input, each whole or not there."""

import json
import os
from pathlib import Path
from typing import TextIO


class ShardWriter:
    """Writes records to `NAME-00000.json`, ... of `shard_size` each; to `NAME.json` alone without a shard size.

    A shard gets its name when it is complete. What an earlier run left under other numbers goes in `finish`.
    """

    def __init__(self, folder: Path, name: str, shard_size: int | None):
        self.folder, self.name, self.shard_size = folder, name, shard_size
        self.written: dict[str, int] = {}
        self._draft = folder / f".{name}.draft"
        self._file: TextIO | None = None
        self._count = 0

    def add(self, record: dict):
        if self._file is None:
            self._file = self._draft.open("w", encoding="utf-8")
        self._file.write(("[\n" if self._count == 0 else ",\n") + json.dumps(record, ensure_ascii=False))
        self._count += 1
        if self._count == self.shard_size:
            self._close(self._file)

    def finish(self):
        """Completes the last shard and removes those of another run."""
        if self._file is not None:
            self._close(self._file)
        for path in self._stale():
            path.unlink()
        self._draft.unlink(missing_ok=True)

    def _close(self, file: TextIO):
        file.write("\n]\n")
        file.flush()
        os.fsync(file.fileno())
        file.close()
        name = f"{self.name}.json" if self.shard_size is None else f"{self.name}-{len(self.written):05d}.json"
        os.replace(self._draft, self.folder / name)
        self.written[name] = self._count
        self._file, self._count = None, 0

    def _stale(self) -> list[Path]:
        pattern = f"{self.name}.json" if self.shard_size is None else f"{self.name}-[0-9][0-9][0-9][0-9][0-9].json"
        return [path for path in self.folder.glob(pattern) if path.name not in self.written]
