"""Answers of one evaluation: appended as they come, never lost, never asked for twice."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from swim.data.records import Record
from swim.files import append_json_lines, read_json_lines, write_atomically
from swim.lock import hold

SETTINGS_FILE = "settings.json"
ANSWERS_FILE = "answers.jsonl"
ERRORS_FILE = "errors.jsonl"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Question:
    """One question as the model meets it. record: the video and a user turn, without annotation."""

    id: str
    record: Record


class AnswerStore(Generic[Answer]):
    """The folder of one evaluation, whose answers are texts, scores or any other JSON value.

    settings.json says what was asked of whom; `parts/*.jsonl` hold the answers as they came, a file per process;
    answers.jsonl holds all of them in the order of the questions, written when none is missing. A line is
    {"id", "answer"} or {"id", "error"}; an item with an error is asked again by the next run. The first process claims
    the folder for as long as the store lives: raises swim.lock.FolderInUse when another command writes there.
    """

    def __init__(self, folder: str | Path, settings: dict, rank: int = 0):
        self.folder = Path(folder)
        self.rank = rank
        self.parts = self.folder / "parts"
        self.parts.mkdir(parents=True, exist_ok=True)
        if rank == 0:
            self._lease = hold(self.folder)
            self._check_settings(json.loads(json.dumps(settings)))
        self.answers: dict[str, Answer] = self._read_parts()

    def _check_settings(self, settings: dict):
        """Raises ValueError when the folder holds an evaluation of something else."""
        path = self.folder / SETTINGS_FILE
        if not path.exists():
            write_atomically(path, json.dumps(settings, indent=1) + "\n")
            return
        saved = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(key for key in saved.keys() | settings.keys() if saved.get(key) != settings.get(key))
        if differing:
            raise ValueError(
                f"{self.folder} holds another evaluation; different: {', '.join(differing)}. Choose another --output, or "
                "remove the folder"
            )

    def _read_parts(self) -> dict[str, Answer]:
        """Answers by id, from every process that ever wrote here."""
        return {entry["id"]: entry["answer"] for entry in self._entries() if "answer" in entry}

    def _entries(self) -> list[dict]:
        return [entry for path in sorted(self.parts.glob("*.jsonl")) for entry in read_json_lines(path)]

    def add(self, entries: Iterable[dict]):
        """Appends {"id", "answer"} or {"id", "error"} lines; they survive a kill once this returns."""
        entries = list(entries)
        append_json_lines(self.parts / f"{self.rank:05d}.jsonl", entries)
        self.answers.update((entry["id"], entry["answer"]) for entry in entries if "answer" in entry)

    def finish(self, questions: list[Question]) -> dict[str, Answer]:
        """All answers so far by id, in the order of the questions; writes answers.jsonl. For one process, at the end."""
        self.answers = self._read_parts()
        ordered = {question.id: self.answers[question.id] for question in questions if question.id in self.answers}
        self._write(ANSWERS_FILE, "answer", ordered)
        return ordered

    def write_errors(self, questions: list[Question]) -> dict[str, str]:
        """Why questions are still without an answer, by id, in their order; writes errors.jsonl. For one process."""
        reasons = {entry["id"]: entry["error"] for entry in self._entries() if "error" in entry}
        still_open = [question.id for question in questions if question.id not in self.answers]
        ordered = {key: reasons[key] for key in still_open if key in reasons}
        self._write(ERRORS_FILE, "error", ordered)
        return ordered

    def _write(self, name: str, kind: str, entries: Mapping[str, Any]):
        lines = [json.dumps({"id": key, kind: value}, ensure_ascii=False) + "\n" for key, value in entries.items()]
        write_atomically(self.folder / name, "".join(lines))
