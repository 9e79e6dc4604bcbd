"""The lengths of a mixture's samples in tokens, as `swim check` measured them."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from swim.data.mixture import Mixture
from swim.errors import DataError
from swim.files import decode_text, read_file, write_atomically

_AGAIN = "check the mixture again, with --train_config"


class _File(BaseModel):
    """tokens: by the record's position in the file; null for a bad record, -1 for one that the mixture left out."""

    model_config = ConfigDict(strict=True, extra="forbid")
    file: str
    tokens: list[int | None]


class _Lengths(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    files: dict[str, _File]


LEFT_OUT = -1


def write_lengths(path: Path, mixture: Mixture, tokens: list[int | None]):
    """tokens: of each row of the mixture, None where its record is bad. The file goes by the contents of the JSON files."""
    files = {
        source.sha256: _File(file=source.json_path, tokens=[LEFT_OUT] * source.records) for source in mixture.sources
    }
    by_path = {source.json_path: files[source.sha256].tokens for source in mixture.sources}
    for (file, position), count in zip(_places(mixture), tokens, strict=True):
        by_path[file][position] = count
    write_atomically(path, _Lengths(files=files).model_dump_json() + "\n")


def read_lengths(path: str | Path, mixture: Mixture) -> list[int]:
    """Tokens of each row of the mixture; 0 for a record that the check found bad, whose place stays empty in training.

    Raises DataError for a file that does not fit, and where a row of the mixture was not checked.
    """
    files = _read(path)
    hashes = mixture.hashes
    lengths = []
    for file, position in _places(mixture):
        known = files.get(hashes[file])
        tokens = LEFT_OUT if known is None or position >= len(known.tokens) else known.tokens[position]
        if tokens == LEFT_OUT:
            raise DataError(f"the length of {file}, record {position} is not in it; {_AGAIN}", str(path))
        lengths.append(tokens or 0)
    return lengths


def measured_tokens(path: str | Path) -> list[int]:
    """Tokens of every good record that was checked, in no order. Raises DataError for a file that does not fit."""
    return [tokens for file in _read(path).values() for tokens in file.tokens if tokens not in (None, LEFT_OUT)]


def _read(path: str | Path) -> dict[str, _File]:
    """The files by the SHA-256 of their bytes."""
    content = read_file(Path(path), "fix lengths", "no such file of lengths")
    try:
        return _Lengths.model_validate_json(decode_text(content, str(path))).files
    except ValidationError as error:
        problem = error.errors()[0]
        field = "".join(f"{part}: " for part in problem["loc"])
        raise DataError(f"{field}{problem['msg']}; {_AGAIN}", str(path)) from None


def _places(mixture: Mixture) -> Iterator[tuple[str, int]]:
    """(file, position in it) of each row."""
    rows = mixture.dataset.select_columns(["file", "position"]).with_format(None)[:]
    return zip(rows["file"], rows["position"])
