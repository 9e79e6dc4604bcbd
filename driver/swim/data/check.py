"""Every record of a mixture, looked at before training: what is wrong with which, by reason."""

import json
import statistics
from collections import Counter
from collections.abc import Generator, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from tqdm import tqdm
from transformers import AutoConfig, AutoProcessor

from swim.concurrently import SPAWN, WorkerProcesses
from swim.data.collator import SwimCollator
from swim.data.lengths import write_lengths
from swim.data.mixture import Mixture, load_mixture, root_of_row, row_record
from swim.data.sample import USUAL_CELL_PX, SampleReader
from swim.data.settings import DataSettings
from swim.errors import DataError, Reason
from swim.files import append_json_lines, read_json_lines, write_atomically

LEVELS = ("none", "header", "full")
# What is counted but makes no record bad.
ODD = {
    "resized_masks": "masks one pixel off (resized)",
    "frames_past_end": "annotated frames past the end (left out)",
    "stray_placeholders": "placeholders besides a leading one (removed)",
    "urls": "records that name a URL",
    "outside_root": "records that name a path out of data_root",
}
ROWS_PER_TASK = 32

console = Console(soft_wrap=True)


class Checker:
    """Checks rows of one mixture; lives once in every process that checks."""

    def __init__(self, mixture: Mixture, level: str, settings: DataSettings, model: str | None):
        self.rows = mixture.dataset
        self.level = level
        self.collator, self.reader = None, SampleReader(settings, USUAL_CELL_PX)
        if model is not None:
            self.collator = SwimCollator(
                AutoProcessor.from_pretrained(model, trust_remote_code=False),
                AutoConfig.from_pretrained(model, trust_remote_code=False),
                settings,
            )
            self.reader = self.collator.reader

    def __call__(self, number: int) -> dict:
        """{"row", and for a bad record "record", "reason", "message", else "tokens" and the counts of ODD}."""
        try:
            return {"row": number, **self._walk(self.rows[number])}
        except DataError as error:
            return _finding(number, error.where, error.reason, error.message)

    def _walk(self, row: dict) -> dict:
        record, root = row_record(row), root_of_row(row)
        named = {"urls": int(any(root.urls(record.path))), "outside_root": int(any(root.outsiders(record.path)))}
        found = {"stray_placeholders": record.stray_placeholders, **named}
        text_tokens, room = None, None
        if self.collator is not None:
            text_tokens, room = self.collator.measure(record)
        if self.level == "none":
            self.reader.check_files(record)
            return found
        if self.level == "full":
            sample = self.reader.read(record, room)
            clip_tokens = self.reader.clip_tokens(record, sample.clip)
            resized, past_end = sample.resized_masks, sample.frames_past_end
        else:
            clip_tokens, resized, past_end = self.reader.check_header(record, room)
        tokens = None if text_tokens is None else text_tokens + clip_tokens
        return {"tokens": tokens, "resized_masks": resized, "frames_past_end": past_end, **found}


def _finding(row: int, where: str | None, reason: Reason, message: str) -> dict:
    return {"row": row, "record": where, "reason": str(reason), "message": message}


def _may_pass(result: dict) -> bool:
    return "reason" in result and Reason(result["reason"]).may_pass


_NOTHING = -1


class UnderWay:
    """Which row each worker process is reading, in shared memory: a dead process cannot be asked."""

    def __init__(self, workers: int):
        self._rows = SPAWN.RawArray("q", [_NOTHING] * workers)
        self._workers = SPAWN.Value("q", 0)
        self._number: int  # of this worker, from `join` on

    def join(self):
        """Takes a place; called once by each worker."""
        with self._workers.get_lock():
            self._number = self._workers.value
            self._workers.value += 1

    def note(self, row: int):
        self._rows[self._number] = row

    def rows(self) -> list[int]:
        return [row for row in self._rows if row != _NOTHING]


_checker: Checker  # of this worker process, from _start_worker on, as is the next
_under_way: UnderWay


def _start_worker(
    under_way: UnderWay,
    config_path: str,
    seed: int,
    skip_list: str | None,
    level: str,
    settings: DataSettings,
    model: str | None,
):
    global _checker, _under_way
    torch.set_num_threads(1)
    _checker, _under_way = Checker(load_mixture(config_path, seed, skip_list), level, settings, model), under_way
    under_way.join()


def _check_rows(numbers: list[int]) -> list[dict]:
    results = []
    for number in numbers:
        _under_way.note(number)
        results.append(_checker(number))
    _under_way.note(_NOTHING)
    return results


class Progress:
    """`progress.jsonl`: what was asked for, then one line per checked row."""

    def __init__(self, path: Path, asked: dict):
        self.path = path
        self.results: dict[int, dict] = {}
        lines = list(read_json_lines(path))
        if lines and lines[0] == asked:
            self.results = {result["row"]: result for result in lines[1:]}
            console.print(f"Resuming: {len(self.results):,} records already checked ({path})")
        else:
            write_atomically(path, json.dumps(asked) + "\n")

    def add(self, results: list[dict]):
        append_json_lines(self.path, [result for result in results if not _may_pass(result)])
        self.results.update((result["row"], result) for result in results)


def check(
    mixture: Mixture,
    config_path: str,
    level: str,
    settings: DataSettings,
    model: str | None,
    output: Path,
    workers: int,
    seed: int = 0,
    skip_list: str | None = None,
):
    """Checks every row and writes the reports; returns the content of report.json. Goes on from an earlier, killed run.

    config_path, seed, skip_list: of the mixture, which worker processes open for themselves. The list that is written begins
    with the entries of the one that is given.
    """
    output.mkdir(parents=True, exist_ok=True)
    asked = {"mixture": mixture.to_dict(), "seed": seed, "decode": level, "settings": asdict(settings), "model": model}
    progress = Progress(output / "progress.jsonl", json.loads(json.dumps(asked)))
    open_rows = [number for number in range(len(mixture.dataset)) if number not in progress.results]
    checked = _results(open_rows, mixture, (config_path, seed, skip_list, level, settings, model), workers)
    bar = tqdm(total=len(mixture.dataset), initial=len(progress.results), desc="checking", unit="record")
    with bar, closing(checked):
        for results in checked:
            progress.add(results)
            bar.update(len(results))
    results = [progress.results[number] for number in range(len(mixture.dataset))]
    report = summarise(results) | {"decode": level, "model": model, "mixture": mixture.to_dict()}
    known = [] if skip_list is None else list(read_json_lines(Path(skip_list)))
    _write_skip_list(output / "skip_list.jsonl", mixture, results, known)
    if model is not None and level != "none":
        write_lengths(output / "lengths.json", mixture, [result.get("tokens") for result in results])
    write_atomically(output / "report.json", json.dumps(report, indent=1) + "\n")
    return report


def _results(rows: list[int], mixture: Mixture, arguments: tuple, workers: int) -> Generator[list[dict]]:
    """The results of the rows, in any order. workers: 0 checks in this process, which a crash then ends.

    When a worker dies, its whole pool ends. The rows that its workers were reading are read again, each in a process of
    its own: the culprit is the one that crashes it. A new pool checks the remaining rows.
    """
    if not workers:
        checker = Checker(mixture, *arguments[3:])
        yield from ([checker(row)] for row in rows)
        return
    while rows:
        under_way = UnderWay(workers)
        done: set[int] = set()
        try:
            for results in _in_pool(rows, under_way, arguments, workers):
                done.update(result["row"] for result in results)
                yield results
        except BrokenProcessPool:
            suspects = [row for row in under_way.rows() if row not in done]
            if not suspects:
                raise WorkersDie("the worker processes end before they read a record; try --workers 0") from None
            for row in suspects:
                yield [_alone(row, mixture, arguments)]
            done.update(suspects)
        rows = [row for row in rows if row not in done]


def _in_pool(rows: list[int], under_way: UnderWay, arguments: tuple, workers: int) -> Iterator[list[dict]]:
    tasks = [rows[first : first + ROWS_PER_TASK] for first in range(0, len(rows), ROWS_PER_TASK)]
    with WorkerProcesses(min(workers, len(tasks)), _start_worker, (under_way, *arguments)) as pool:
        for future in as_completed([pool.submit(_check_rows, task) for task in tasks]):
            yield future.result()


def _alone(row: int, mixture: Mixture, arguments: tuple) -> dict:
    try:
        ((result,),) = _in_pool([row], UnderWay(1), arguments, 1)
        return result
    except BrokenProcessPool:
        place = mixture.dataset[row]
        message = "its worker process died twice: a crash in a library, or all memory used up"
        return _finding(row, f"{place['file']}, record {place['position']}", Reason.CRASH, message)


class WorkersDie(Exception):
    """No worker process comes as far as a record."""


def summarise(results: list[dict]) -> dict:
    """Counts of all rows, of the bad ones by reason (with the first of each), of what is odd; the spread of token counts.

    not_read: rows that a disk or network did not deliver in time. They are not bad, but are counted by reason too.
    """
    reasons = Counter(result["reason"] for result in results if "reason" in result)
    tokens = sorted(result["tokens"] for result in results if result.get("tokens") is not None)
    not_read = sum(map(_may_pass, results))
    counts = {"records": len(results), "bad": reasons.total() - not_read, "not_read": not_read}
    by_reason = dict(reasons.most_common())
    firsts = {reason: next(result for result in results if result.get("reason") == reason) for reason in by_reason}
    examples = {reason: f"{first['record']}: {first['message']}" for reason, first in firsts.items()}
    summary = {**counts, "by_reason": by_reason, "examples": examples}
    for name in ODD:
        summary[name] = sum(result.get(name, 0) for result in results)
    if tokens:
        summary["tokens"] = {
            "lowest": tokens[0],
            "median": statistics.median(tokens),
            "95 %": tokens[int(0.95 * (len(tokens) - 1))],
            "highest": tokens[-1],
        }
    return summary


def _write_skip_list(path: Path, mixture: Mixture, results: list[dict], known: list[dict]):
    hashes, lines = mixture.hashes, [json.dumps(entry) + "\n" for entry in known]
    for result in results:
        if "reason" in result and not _may_pass(result):
            row = mixture.dataset[result["row"]]
            place = {"sha256": hashes[row["file"]], "file": row["file"], "position": row["position"]}
            lines.append(json.dumps({**place, **{key: result[key] for key in ("record", "reason", "message")}}) + "\n")
    # A record that the mixture holds twice is listed once.
    write_atomically(path, "".join(dict.fromkeys(lines)))
