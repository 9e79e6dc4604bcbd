"""The files of a run: what they are, how many records they hold, and what asking for all of them takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from swim.construct.prompt import estimate
from swim.construct.rewriter import RewriteSettings
from swim.construct.tasks import Kind, kind_of, read_task
from swim.data.root import DataRoot
from swim.data.streaming import file_ending, stream_records
from swim.errors import DataError
from swim.files import file_sha256


@dataclass(frozen=True)
class InputFile:
    """One file of records to rewrite.

    path: the file.
    root: where its videos are stored.
    sha256: of the file's bytes, in hex.
    records: how many of its records are read.
    kind: kind of the first record.
    """

    path: Path
    root: DataRoot
    sha256: str
    records: int
    kind: Kind

    @property
    def output_name(self) -> str:
        """What its outputs are called, without numbers and endings."""
        stem = self.path.name.removesuffix(file_ending(self.path))
        return f"refined-format-{stem}" if self.kind is Kind.CONVERSATION else f"refined-{stem}"


@dataclass(frozen=True)
class Item:
    """One record of the run.

    number: its index among all records of the run.
    file: index of the input file it comes from.
    position: its index within that file.
    raw: the record as it was read.
    """

    number: int
    file: int
    position: int
    raw: dict

    def where(self, file: InputFile) -> str:
        return f"{file.path}, record {self.position}"


@dataclass(frozen=True)
class Estimate:
    """What a run takes when every first reply is accepted and none is stored yet."""

    requests: int
    prompt_tokens: int
    completion_tokens: int


def survey(
    inputs: list[tuple[Path, DataRoot]], settings: RewriteSettings, limit: int | None
) -> tuple[list[InputFile], Estimate]:
    """Reads every file once.

    inputs: each file and where its videos are stored.
    limit: read only so many records of each file, from its start.

    Raises DataError for a file that cannot be read, ValueError for two of the same name.
    """
    files, totals = [], [0, 0, 0]
    for path, root in inputs:
        count, kind = 0, Kind.CONVERSATION
        for raw in tqdm(islice(stream_records(path), limit), desc=f"reading {path.name}", unit="record", delay=2):
            kind = kind_of(raw) if count == 0 else kind
            count += 1
            try:
                task = read_task(raw, f"{path}, record {count - 1}", root)
            except DataError:
                continue  # named when its turn comes; nobody is asked
            tokens = estimate(task, settings.wants_synonyms(task), settings.with_frames)
            totals = [total + more for total, more in zip(totals, (1, *tokens))]
        files.append(InputFile(path, root, file_sha256(path), count, kind))
    names = [file.output_name for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two inputs would both be written as {twice}; rename one, or give another --output")
    if settings.synonyms and all(file.kind is Kind.CONVERSATION for file in files):
        raise ValueError("--synonyms is for Bench-D and Bench-Q files with captions or options; none was given")
    return files, Estimate(*totals)


def items_of(files: list[InputFile]) -> Iterator[Item]:
    """The records of all files, in order."""
    number = 0
    for place, file in enumerate(files):
        for position, raw in enumerate(islice(stream_records(file.path), file.records)):
            yield Item(number, place, position, raw)
            number += 1
