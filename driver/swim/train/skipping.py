"""Bad records by an explicit, counted and reported rule: fail, or leave their place empty."""

import json
from collections import Counter
from pathlib import Path

import torch

from swim.data.collator import SwimCollator
from swim.errors import DataError, Reason
from swim.files import append_json_lines, read_json_lines, write_atomically
from swim.train.worker_notes import WorkerNotes

SKIPPED_FILE = "skipped.jsonl"
UNREAD_FILE = "unread.jsonl"
# Of fewer records no share is taken: one bad record among the first ten is not yet 10 %.
FEWEST_RECORDS = 100
# What `data_counts` counts, in this order.
COUNTS = ("records", "skipped_records", "resized_masks", "frames_past_end", "stray_placeholders")


class TooManyBadRecords(Exception):
    """More records were skipped than `max_bad_fraction` allows; `str(error)` names the file that lists them."""


class CountingCollator:
    """SwimCollator for training: counts what it meets and, with `skip`, leaves bad records out.

    Nothing takes a bad record's place: the micro-batch shrinks, and an empty one becomes a text sample without labels,
    so that ranks keep equal step counts and a resumed run sees the same batches. Decoding happens in workers, so what
    was met travels with the batch: `data_counts`, int64[5], see COUNTS, and `skipped`, uint8, only where there is
    something to tell: a JSON list of {"file", "position", "record", "reason", "message"}; `record_names`, uint8, of the
    records in the batch. All are for the trainer. notes: where a worker writes what it reads.
    """

    def __init__(self, collator: SwimCollator, skip: bool, notes: WorkerNotes | None = None):
        self.collator = collator
        self.skip = skip
        self.notes = notes or WorkerNotes(0)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        samples, skipped = [], []
        for row in rows:
            self.notes.write(f"{row['file']}, record {row['position']}")
            try:
                samples.append(self.collator.read(row))
            except DataError as error:
                if not self.skip:
                    raise
                place = {"file": row["file"], "position": row["position"], "record": error.where}
                skipped.append({**place, "reason": error.reason, "message": error.message})
        batch = self.collator(samples or [self.collator.empty_sample()])
        odd = [sum(getattr(sample, name) for sample in samples) for name in COUNTS[2:]]
        batch["data_counts"] = torch.tensor([len(rows), len(skipped), *odd])
        batch["record_names"] = pack([sample.record.where for sample in samples])
        if skipped:
            batch["skipped"] = pack(skipped)
        self.notes.write("")
        return batch


def pack(entries: list) -> torch.Tensor:
    """What JSON can hold as a tensor, uint8, so that it travels with a batch."""
    return torch.frombuffer(bytearray(json.dumps(entries).encode()), dtype=torch.uint8)


def unpack(packed: torch.Tensor) -> list:
    return json.loads(bytes(packed.cpu().numpy()))


class SkippedRecords:
    """`skipped.jsonl` in the run's folder: one line per skipped record, also a skip list for later runs.

    Each line: step, file, sha256 of the file, position, record, reason, message. Ranks append whole lines. A
    record that a disk did not deliver in time is listed in `unread.jsonl` instead, in the same form: it need not be bad.
    """

    def __init__(self, folder: str | Path, max_fraction: float, hashes: dict[str, str] | None = None):
        self.path, self.unread_path = Path(folder) / SKIPPED_FILE, Path(folder) / UNREAD_FILE
        self.max_fraction = max_fraction
        self.hashes = hashes or {}

    def write(self, packed: torch.Tensor, step: int):
        """Appends the `skipped` tensor of one batch."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entries = [{"step": step, "sha256": self.hashes.get(entry["file"]), **entry} for entry in unpack(packed)]
        for path in (self.path, self.unread_path):
            if lines := [entry for entry in entries if self._path_of(entry["reason"]) == path]:
                append_json_lines(path, lines)

    def read(self) -> list[dict]:
        return [entry for path in self._written() for entry in read_json_lines(path)]

    def _path_of(self, reason: str) -> Path:
        return self.unread_path if Reason(reason).may_pass else self.path

    def forget_after(self, step: int):
        """Drops what was skipped after the checkpoint that a run resumes from: it will be met again."""
        for path in self._written():
            kept = [entry for entry in read_json_lines(path) if entry["step"] < step]
            write_atomically(path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def by_reason(self) -> list[tuple[str, int, Path]]:
        """(reason, records, where they are listed), the most frequent first."""
        counts = Counter(entry["reason"] for entry in self.read())
        return [(reason, count, self._path_of(reason)) for reason, count in counts.most_common()]

    def check(self, records: int, skipped: int):
        """Raises TooManyBadRecords when `skipped` of `records` are more than allowed; every rank knows both."""
        if skipped > self.max_fraction * max(records, FEWEST_RECORDS):
            raise TooManyBadRecords(
                f"{skipped} of {records} records were skipped, more than max_bad_fraction = {self.max_fraction}; they are "
                f"listed with their reasons in {' and '.join(str(path) for path in self._written())}"
            )

    def _written(self) -> list[Path]:
        return [path for path in (self.path, self.unread_path) if path.exists()]
