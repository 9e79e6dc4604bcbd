"""A record of the VideoRefer layouts as a rewriting task: its texts with canonical placeholders, and the way back.

Detailed captions, QA and Bench-D with `conversations`, Bench-D with `caption`, and Bench-Q.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from swim.data.bench import DEFAULT_QUESTION, BenchD, BenchQ, parse_bench_d, parse_bench_q, parse_videorefer
from swim.data.records import Record, parse_record
from swim.data.root import DataRoot, Source
from swim.data.tags import assign_instances, strip_tags
from swim.errors import DataError, Reason

_REGION = r"(?:\[\s*<\s*region\s*>\s*\]|\(\s*<\s*region\s*>\s*\)|<\s*region\s*>)"
# <object3>, <object3> [<region>], <object3><region>, [<region>]
_PLACEHOLDER = re.compile(rf"<\s*object\s*(\d+)\s*>(?:\s*{_REGION})?|{_REGION}", re.IGNORECASE)
_NUMBERED = rf"<\s*object\s*\d+\s*>\s*{_REGION}"
# "There are two objects: <object0> [<region>], <object1> [<region>]."
_ANNOUNCEMENT = re.compile(
    rf"(?:(?<=[.!?。！？\n])|^)[ \t]*[^.:：!?。！？<>\n]{{1,80}}[:：]\s*{_NUMBERED}"
    rf"(?:\s*(?:[,，、;]|\w{{1,4}}|&)?(?:\s*\w{{1,4}})?\s*{_NUMBERED})*\s*[.。][ \t]*\n?",
    re.IGNORECASE,
)
CANONICAL = re.compile(r"<object(\d+)>")
_LEADING = re.compile(r"\s*<(?:video|image)>\s*")


Parser = Callable[[dict, str, str | Path | DataRoot], Record | BenchD | BenchQ]  # of a record, its name, its root


class Kind(StrEnum):
    """What a record is; the benches are small files that stay whole."""

    CONVERSATION = "conversation"
    BENCH_D = "Bench-D"
    BENCH_Q = "Bench-Q"


@dataclass(frozen=True)
class Text:
    """One text of a record. place: keys to it in the record. prefix: what stands before, such as "<video>\\n".

    content: with `<objectN>` for every placeholder, N being the instance.
    """

    role: str
    place: tuple
    prefix: str
    content: str

    @property
    def objects(self) -> list[int]:
        """The instance of each placeholder, in order."""
        return [int(number) for number in CANONICAL.findall(self.content)]

    @property
    def fixed(self) -> list[str]:
        """What stands before, between and after the placeholders."""
        return CANONICAL.split(self.content)[::2]


@dataclass(frozen=True)
class Task:
    """A record to rewrite.

    raw: the record, a caption as a conversation.
    texts: all of them; only those with placeholders are rewritten.
    instances: {frame number: segmentation} of each.
    source, fps: of its frames.
    """

    where: str
    kind: Kind
    raw: dict
    texts: tuple[Text, ...]
    instances: list[dict[int, Any]]
    source: Source
    fps: float | None

    @property
    def open_texts(self) -> dict[int, Text]:
        """The texts to rewrite, by their number among all."""
        return {number: text for number, text in enumerate(self.texts) if text.objects}

    @property
    def objects(self) -> list[int]:
        """The instances that the texts name, each once, in order of appearance."""
        return list(dict.fromkeys(number for text in self.texts for number in text.objects))


class NothingToRewrite(DataError):
    """The record is sound but has no placeholder."""


def kind_of(raw: dict) -> Kind:
    """The layout, from the keys. Bench-D is told from training by its `caption`; with `conversations` they are alike."""
    if "Question" in raw or "options" in raw:
        return Kind.BENCH_Q
    return Kind.BENCH_D if raw.get("conversations") is None and "caption" in raw else Kind.CONVERSATION


def read_task(raw: dict, where: str, root: str | Path | DataRoot) -> Task:
    """The task of one record; paths are relative to `root`.

    Raises DataError naming the record for one that does not fit its layout, or names an instance that it does not have;
    NothingToRewrite for one without placeholders.
    """
    kind = kind_of(raw)
    item = (parse_bench_q if kind is Kind.BENCH_Q else parse_videorefer)(raw, where, root)
    try:
        if not any(item.instances):
            raise DataError("no instance has a usable mask", reason=Reason.NO_MASK)
        raw = _with_conversation(raw, len(item.instances)) if kind is Kind.BENCH_D else raw
        texts = tuple(_texts(raw, kind, len(item.instances)))
    except DataError as error:
        raise type(error)(error.message, item.where, error.reason) from None
    task = Task(item.where, kind, raw, texts, item.instances, item.path, item.fps)
    if not task.objects:
        raise NothingToRewrite("no <objectN> or <region> in its texts", item.where, Reason.TAGS)
    return task


def _with_conversation(raw: dict, instances: int) -> dict:
    """A caption as the answer to the default question about its object."""
    caption = raw["caption"]
    found = [number for number in _PLACEHOLDER.findall(caption) if number]
    if instances > 1 and not found:
        raise DataError(
            f"a caption, {instances} annotated instances: nothing says which it describes", reason=Reason.TAGS
        )
    question = DEFAULT_QUESTION.replace("<object>", f"<object{found[0] if found else 0}>")
    kept = {key: value for key, value in raw.items() if key != "caption"}
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": caption}]
    return {**kept, "conversations": turns}


def _texts(raw: dict, kind: Kind, instances: int) -> list[Text]:
    if kind is Kind.BENCH_Q:
        places = [("question", ("Question",)), *(("option", ("options", n)) for n in range(len(raw["options"])))]
        if raw["Answer"] not in raw["options"]:  # else it follows its option
            places.append(("answer", ("Answer",)))
    else:
        roles = {"human": "question", "gpt": "answer"}
        places = [(roles[t["from"]], ("conversations", n, "value")) for n, t in enumerate(raw["conversations"])]
    found = []
    for role, place in places:
        text = _at(raw, place)
        if "<ins>" in text or "</ins>" in text:
            raise DataError(f"{_name(place)}: tagged already", reason=Reason.TAGS)
        prefix = match.group() if role == "question" and (match := _LEADING.match(text)) else ""
        found.append(Text(role, place, prefix, _canonical(text[len(prefix) :], instances)))
    return _without_announcements(found)


def _canonical(text: str, instances: int) -> str:
    def number(match: re.Match) -> str:
        if match.group(1) is None and instances != 1:
            raise DataError(
                f"one {match.group()} without a number but {instances} annotated instances", reason=Reason.TAGS
            )
        instance = int(match.group(1) or 0)
        if instance >= instances:
            raise DataError(f"<object{instance}> but {instances} annotated instances", reason=Reason.TAGS)
        # An announced pair keeps its region until announcements are found.
        return f"<object{instance}><region>" if "region" in match.group().lower() else f"<object{instance}>"

    return _PLACEHOLDER.sub(number, text)


def _without_announcements(texts: list[Text]) -> list[Text]:
    """Announcements go where each object that they announce is named elsewhere; else they stay, to be rewritten."""
    bare = [_ANNOUNCEMENT.sub("", text.content) for text in texts]
    named = {number for text in bare for number in CANONICAL.findall(text)}
    announced = {number for text in texts for number in CANONICAL.findall(text.content)}
    kept = bare if announced <= named and all(text.strip() for text in bare) else [text.content for text in texts]
    return [
        Text(text.role, text.place, text.prefix, content.replace("<region>", "")) for text, content in zip(texts, kept)
    ]


def finish(task: Task, rewritten: dict[int, str]) -> dict:
    """The NL-Refer record with these texts, by number; the others stand as they are without their announcements.

    `mentions` is written where the order of the phrases does not tell the instances. Raises DataError when the result
    is no valid record.
    """
    record = _copy(task.raw)
    for number, text in enumerate(task.texts):
        _put(record, text.place, text.prefix + rewritten.get(number, text.content))
    if task.kind is Kind.BENCH_Q and task.raw["Answer"] in task.raw["options"]:
        record["Answer"] = record["options"][task.raw["options"].index(task.raw["Answer"])]
    phrases = [span.phrase for text in rewritten.values() for span in strip_tags(text)[1]]
    named = [instance for text in task.open_texts.values() for instance in text.objects]
    record.pop("mentions", None)
    if not _order_tells(phrases, named, len(task.instances)):
        record["mentions"] = named
    parser_of(task.kind)(record, task.where, "")
    return record


def _copy(raw: dict) -> dict:
    """The record with texts of its own. Its annotation, by far the most of it, is shared."""
    copy = dict(raw)
    if "conversations" in copy:
        copy["conversations"] = [dict(turn) for turn in copy["conversations"]]
    if "options" in copy:
        copy["options"] = list(copy["options"])
    return copy


def _order_tells(phrases: list[str], named: list[int], instances: int) -> bool:
    try:
        return assign_instances(phrases, instances) == named
    except DataError:
        return False


def parser_of(kind: Kind) -> Parser:
    """What types a finished record. A Bench-D item in a conversation's form is read as a record."""
    parsers: dict[Kind, Parser] = {
        Kind.CONVERSATION: parse_record,
        Kind.BENCH_D: parse_bench_d,
        Kind.BENCH_Q: parse_bench_q,
    }
    return parsers[kind]


def _at(record: dict, place: tuple):
    for key in place:
        record = record[key]
    return record


def _put(record: dict, place: tuple, value: str):
    _at(record, place[:-1])[place[-1]] = value


def _name(place: tuple) -> str:
    return ".".join(str(key) for key in place)
