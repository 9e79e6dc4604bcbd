"""Items of VideoRefer-Bench and records of the original VideoRefer layout, checked and typed."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from swim.data.records import (
    VIDEOREFER_OBJECT,
    Instance,
    RawItem,
    RawTurn,
    Record,
    Source,
    Turn,
    Video,
    check_layout,
    check_order,
    describe,
    parse_record,
    refuse_without_masks,
    turn_text,
)
from swim.data.root import DataRoot
from swim.data.tags import strip_placeholders, strip_tags
from swim.errors import DataError, Reason
from swim.prompts import BENCH_Q_PROMPT, LETTERS, bench_q_prompt, letter_options

# The question of a Bench-D item that has a caption only; <object> stands for the object's name.
DEFAULT_QUESTION = "Please give a detailed description of <object>."
_LETTER = re.compile(r"\s*\(([A-Z])\)")
_Text = Annotated[str, Field(strict=True, min_length=1)]


@dataclass(frozen=True)
class BenchQ:
    """A multiple-choice question of VideoRefer-Bench-Q; its tags are kept.

    where: file and item, for messages.
    path, fps, instances: as in `Record`.
    frame_idx: the item's own, as text.
    """

    where: str
    id: str | int | None
    path: Source
    question: str
    options: tuple[str, ...]
    answer: str
    type: str
    frame_idx: str | None
    instances: list[dict[int, Any]]
    fps: float | None = None

    @property
    def letter(self) -> str:
        """The right option's letter; the i-th option without one is the i-th of the alphabet."""
        written = _LETTER.match(self.answer)
        return written.group(1) if written else LETTERS[self.options.index(self.answer)]

    @property
    def lettered(self) -> list[str]:
        return letter_options(self.options)

    def prompt(self, prompt: str = BENCH_Q_PROMPT) -> str:
        """The text that a model is asked, from the question with its tags, and the options."""
        return bench_q_prompt(self.question, self.options, prompt)


@dataclass(frozen=True)
class BenchD:
    """A description task of VideoRefer-Bench-D; tags of question and reference are kept. Fields as in `BenchQ`."""

    where: str
    id: str | int | None
    path: Source
    question: str
    reference: str
    frame_idx: str | None
    instances: list[dict[int, Any]]
    fps: float | None = None


@dataclass(frozen=True)
class VideoRefer:
    """A training record of the original layout: input of dataset construction.

    turns: the conversation with its `<objectN>` and `<region>` placeholders, or [] for a record with a caption alone.
    objects: the instances that the texts name, in order of appearance; an unnumbered region is instance 0.
    """

    where: str
    path: Source
    turns: list[Turn]
    caption: str | None
    objects: tuple[int, ...]
    instances: list[dict[int, Any]]
    fps: float | None = None


class _RawBench(RawItem):
    video: Video
    frame_idx: Any = None

    def frame_text(self) -> str | None:
        return None if self.frame_idx is None else str(self.frame_idx)


class _RawBenchQ(_RawBench):
    question: _Text = Field(alias="Question")
    options: list[_Text] = Field(min_length=1)
    answer: _Text = Field(alias="Answer")
    type: _Text

    @model_validator(mode="after")
    def _known_answer(self):
        letters = {match.group(1) for option in self.options if (match := _LETTER.match(option))}
        written = _LETTER.match(self.answer)
        if self.answer not in self.options and (written is None or written.group(1) not in letters):
            expected = f"expected one of the options {self.options} or its letter"
            raise ValueError(f"Answer: {expected}, found {self.answer!r:.80}")
        return self


class _RawCaptioned(_RawBench):
    conversations: list[RawTurn] | None = Field(None, min_length=2)
    caption: _Text | None = None

    @model_validator(mode="after")
    def _some_text(self):
        if self.conversations is None and self.caption is None:
            raise ValueError('expected "conversations" or "caption"')
        check_order(self.conversations or [])
        return self


class _RawBenchD(_RawCaptioned):
    conversations: list[RawTurn] | None = Field(None, min_length=2, max_length=2)


class _RawVideoRefer(_RawCaptioned):
    annotation: list[Instance] = Field(min_length=1)


def parse_bench_q(raw: dict, where: str, data_root: str | Path | DataRoot) -> BenchQ:
    """Checks one Bench-Q item. Raises DataError naming the item, the field and what was found."""
    where = describe(raw, where)
    item = check_layout(_RawBenchQ, raw, where)
    try:
        question, _ = strip_placeholders(item.question)
        strip_tags(question)
        return BenchQ(
            where=where,
            id=item.id,
            path=item.path(data_root),
            question=question,
            options=tuple(item.options),
            answer=item.answer,
            type=item.type,
            frame_idx=item.frame_text(),
            instances=item.instances(),
            fps=item.fps,
        )
    except DataError as error:
        raise error.at(where) from None


def parse_bench_d(raw: dict, where: str, data_root: str | Path | DataRoot) -> BenchD:
    """Checks one Bench-D item: a question and its reference, or a caption, which gets the default question.

    Raises DataError naming the item, the field and what was found.
    """
    where = describe(raw, where)
    item = check_layout(_RawBenchD, raw, where)
    question, reference = DEFAULT_QUESTION, item.caption or ""
    try:
        if item.conversations is not None:
            (_, question, _), (_, reference, _) = (turn_text(turn) for turn in item.conversations)
        strip_tags(question)
        strip_tags(reference)
        return BenchD(
            where=where,
            id=item.id,
            path=item.path(data_root),
            question=question,
            reference=reference,
            frame_idx=item.frame_text(),
            instances=item.instances(),
            fps=item.fps,
        )
    except DataError as error:
        raise error.at(where) from None


def as_conversation(raw: dict, where: str) -> dict:
    """An item of Bench-Q, or of Bench-D with a caption alone, in the layout of training records; any other as it is.

    The options stand below their question, a line each; the answer is the reference, the right option without tags.
    Raises DataError for an item that does not fit its layout.
    """
    layout = raw if isinstance(raw, dict) else {}
    if "Question" in layout:
        choice = parse_bench_q(raw, where, ".")
        question, answer = "\n".join([choice.question, *choice.options]), strip_tags(choice.answer)[0]
    elif "caption" in layout and "conversations" not in layout:
        description = parse_bench_d(raw, where, ".")
        question, answer = description.question.replace("<object>", "the object"), description.reference
    else:
        return raw
    return {**raw, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


def parse_annotated(raw: dict, where: str, data_root: str | Path | DataRoot) -> Record:
    """A supervised record of any annotated layout: NL-Refer, Bench-D or Bench-Q.

    Raises DataError naming the item, with the reason NO_MASK for one without annotation.
    """
    record = parse_record(as_conversation(raw, where), where, data_root)
    if not record.instances:
        raise DataError("no annotation to score or outline", record.where, Reason.NO_MASK)
    return record


def parse_videorefer(raw: dict, where: str, data_root: str | Path | DataRoot) -> VideoRefer:
    """Checks one record of the original layout, see `VideoRefer`.

    Raises DataError naming the record and the field: for instance for an `<objectN>` without annotation, or a region
    without a number beside several annotated instances.
    """
    where = describe(raw, where)
    item = check_layout(_RawVideoRefer, raw, where)
    try:
        turns = [Turn(*turn_text(turn)[:2], [], []) for turn in item.conversations or []]
        instances = item.instances()
        refuse_without_masks(instances)
        objects = _named_objects([turn.text for turn in turns], len(instances))
        return VideoRefer(where, item.path(data_root), turns, item.caption, objects, instances, item.fps)
    except DataError as error:
        raise error.at(where) from None


def _named_objects(texts: list[str], instances: int) -> tuple[int, ...]:
    """Instances that the placeholders name. Example: ["<object1> [<region>], <object0>"], 2 -> (1, 0)."""
    found = [match.group(1) for text in texts for match in VIDEOREFER_OBJECT.finditer(text)]
    numbers = tuple(dict.fromkeys(int(number) for number in found if number is not None))
    if not numbers and found:
        if instances != 1:
            raise DataError(f"one [<region>] without a number but {instances} annotated instances", reason=Reason.TAGS)
        return (0,)
    unknown = [number for number in numbers if number >= instances]
    if unknown:
        raise DataError(f"<object{unknown[0]}> but {instances} annotated instances", reason=Reason.TAGS)
    return numbers
