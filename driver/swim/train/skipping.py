"""Bad records by an explicit, counted and reported rule: fail, or leave their place empty."""

import json
import os
from collections import Counter
from pathlib import Path

import torch

from swim.data.collator import SwimCollator
from swim.data.errors import DataError

SKIPPED_FILE = "skipped.jsonl"
# Of fewer records no share is taken: one bad record among the first ten is not yet 10 %.
FEWEST_RECORDS = 100
# What `data_counts` counts, in this order.
COUNTS = ("records", "skipped_records", "resized_masks", "frames_past_end")


class TooManyBadRecords(Exception):
    """More records were skipped than `max_bad_fraction` allows; `str(error)` names the file that lists them."""


class CountingCollator:
    """SwimCollator for training: counts what it meets and, with `skip`, leaves bad records out.

    Nothing takes a bad record's place: the micro-batch shrinks, and an empty one becomes a text sample without labels,
    so that ranks keep equal step counts and a resumed run sees the same batches. Decoding happens in workers, so what
    was met travels with the batch: `data_counts`, int64[4], see COUNTS, and `skipped`, uint8, only where there is
    something to tell: a JSON list of {"file", "position", "record", "reason", "message"}. Both are for the trainer.
    """

    def __init__(self, collator: SwimCollator, skip: bool):
        self.collator = collator
        self.skip = skip

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        samples, skipped = [], []
        for row in rows:
            try:
                samples.append(self.collator.read(row))
            except DataError as error:
                if not self.skip:
                    raise
                place = {"file": row["file"], "position": row["position"], "record": error.where}
                skipped.append({**place, "reason": str(error.reason), "message": error.message})
        batch = self.collator(samples or [self.collator.empty_sample()])
        masks = [sum(getattr(sample, name) for sample in samples) for name in COUNTS[2:]]
        batch["data_counts"] = torch.tensor([len(rows), len(skipped), *masks])
        if skipped:
            batch["skipped"] = torch.frombuffer(bytearray(json.dumps(skipped).encode()), dtype=torch.uint8)
        return batch


class SkippedRecords:
    """`skipped.jsonl` in the run's folder: one line per skipped record, also a skip list for later runs.

    Each line: step, file, sha256 of the file, position, record, reason, message. Ranks append whole lines.
    """

    def __init__(self, folder: str | Path, max_fraction: float, hashes: dict[str, str] | None = None):
        self.path = Path(folder) / SKIPPED_FILE
        self.max_fraction = max_fraction
        self.hashes = hashes or {}

    def write(self, packed: torch.Tensor, step: int):
        """Appends the `skipped` tensor of one batch."""
        entries = json.loads(bytes(packed.cpu().numpy()))
        lines = [
            json.dumps({"step": step, "sha256": self.hashes.get(entry["file"]), **entry}) + "\n" for entry in entries
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, "".join(lines).encode())  # one call: lines of different ranks do not mix
        finally:
            os.close(descriptor)

    def read(self) -> list[dict]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def forget_after(self, step: int):
        """Drops what was skipped behind the checkpoint that a run resumes from: it will be met again."""
        kept = [entry for entry in self.read() if entry["step"] < step]
        if self.path.exists():
            self.path.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")

    def by_reason(self) -> Counter:
        return Counter(entry["reason"] for entry in self.read())

    def check(self, records: int, skipped: int):
        """Raises TooManyBadRecords when `skipped` of `records` are more than allowed; every rank knows both."""
        if skipped > self.max_fraction * max(records, FEWEST_RECORDS):
            raise TooManyBadRecords(
                f"{skipped} of {records} records were skipped, more than max_bad_fraction = {self.max_fraction}; they are "
                f"listed with their reasons in {self.path}"
            )
