"""The skip list: records that are known to be bad and are left out, by the content hash of their file and position."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swim.errors import DataError, Reason
from swim.files import decode_text, read_file


class _Entry(BaseModel):
    """One line; `file` and whatever else it says are for people."""

    model_config = ConfigDict(strict=True)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    position: Annotated[int, Field(ge=0)]
    reason: str = ""

    @property
    def may_pass(self) -> bool:
        """Whether only a disk or network was at fault, as files of earlier runs list them too."""
        return self.reason in set(Reason) and Reason(self.reason).may_pass


class SkipList:
    """Positions to leave out. entries: (SHA-256 of a file, position in it), one for each line."""

    def __init__(self, entries: list[tuple[str, int]]):
        self._entries = entries
        self._positions = defaultdict(set)
        for sha256, position in entries:
            self._positions[sha256].add(position)

    @classmethod
    def read(cls, path: str | Path | None) -> "SkipList":
        """A JSONL file with lines {"sha256", "file", "position", "reason"}; None is an empty list.

        Raises DataError naming the line.
        """
        if path is None:
            return cls([])
        content = read_file(Path(path), "fix skip_list", "no such skip list")
        lines = decode_text(content, str(path)).split("\n")
        entries = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry = _Entry.model_validate_json(line)
            except ValidationError as error:
                problem = error.errors()[0]
                field = "".join(f"{part}: " for part in problem["loc"])
                expected = 'expected {"sha256": hash of the JSON file, "position": its record, ...}'
                raise DataError(f"{field}{problem['msg']}; {expected}", f"{path}, line {number}") from None
            if not entry.may_pass:
                entries.append((entry.sha256, entry.position))
        return cls(entries)

    def positions(self, sha256: str) -> set[int]:
        """Of the file with this content."""
        return self._positions.get(sha256, set())

    def unmatched(self, hashes: set[str]) -> int:
        """How many entries belong to none of these contents."""
        return sum(sha256 not in hashes for sha256, _ in self._entries)
