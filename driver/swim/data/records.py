"""A record of an NL-Refer, LLaVA-Video or image file, checked and typed, still without pixels."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from swim.data.root import DataRoot, Source, as_root
from swim.data.streaming import HALF_CHARACTER
from swim.data.tags import Span, assign_instances, refuse_placeholders, strip_placeholders, strip_tags
from swim.errors import DataError, Reason

# How the original VideoRefer layout writes an object; group 1 is its number, None for an unnumbered one.
VIDEOREFER_OBJECT = re.compile(r"<object(\d+)>|<region>")
_HALF_CHARACTER = re.compile(f"[\ud800-\udfff{HALF_CHARACTER}]")
_ROLES = {"human": "user", "gpt": "assistant"}


def _check_frame_number(text: str) -> str:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError('expected a frame number such as "15"')
    return text


def _check_video(value: Any) -> str | list[str]:
    paths = value if isinstance(value, list) else [value]
    if not paths or not all(isinstance(path, str) and path for path in paths):
        raise ValueError("expected a path, or a list of the paths of its frames")
    return value


FrameNumber = Annotated[str, AfterValidator(_check_frame_number)]
Video = Annotated[str | list[str], PlainValidator(_check_video)]


class RawTurn(BaseModel):
    """The JSON of one turn."""

    model_config = ConfigDict(populate_by_name=True, strict=True)
    speaker: Literal["human", "gpt"] = Field(alias="from")
    value: str


class RawFrame(BaseModel):
    """One annotated frame; a null or missing segmentation means "not annotated in this frame"."""

    segmentation: dict[str, Any] | list[list[float]] | None = None


Instance = dict[FrameNumber, RawFrame | None]


class RawItem(BaseModel):
    """What every layout has. Keys that are not listed are the user's own and are left alone."""

    index: str | int | None = None
    id: str | int | None = None
    video: Video | None = None
    fps: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None
    annotation: list[Instance] | None = None

    def path(self, root: str | Path | DataRoot) -> Source:
        """The video's path, or those of its frames. Raises DataError where the root's data is not trusted with it."""
        if self.video is None:
            raise DataError('expected "video"')
        return as_root(root).locate_video(self.video)

    def instances(self) -> list[dict[int, Any]]:
        """For each instance {frame number: segmentation}, usable ones only. Raises DataError for a frame given twice."""
        return [_usable_frames(number, frames) for number, frames in enumerate(self.annotation or [])]


class _RawRecord(RawItem):
    image: Annotated[str, Field(min_length=1)] | None = None
    data_source: str | None = None
    conversations: list[RawTurn] = Field(min_length=2)
    mentions: list[Annotated[int, Field(strict=True)]] | None = None

    @model_validator(mode="after")
    def _one_visual(self):
        if (self.video is None) == (self.image is None):
            raise ValueError('expected either "video" or "image"')
        check_order(self.conversations)
        return self


@dataclass(frozen=True)
class Turn:
    """One turn without tags. role: "user" or "assistant". spans and instances: each tag and the instance it names."""

    role: str
    text: str
    spans: list[Span]
    instances: list[int]


@dataclass(frozen=True)
class Record:
    """One conversation about one video or image.

    where: file and record, for messages.
    path: the video file, frame folder or image; a URL as text; the list of frames if they are listed; None for text only.
    is_image: whether `path` is an image.
    instances: {frame number: segmentation} of each, usable ones only; [] if the record is not supervised.
    fps: of a frame folder or frame list, None if unknown; a video file has its own.
    stray_placeholders: how many <video> and <image> were removed from its questions.
    """

    where: str
    path: Source | None
    is_image: bool
    turns: list[Turn]
    instances: list[dict[int, Any]]
    fps: float | None = None
    stray_placeholders: int = 0

    @property
    def annotated_frames(self) -> list[int]:
        """Frame numbers with a mask of at least one instance, sorted."""
        return sorted({number for frames in self.instances for number in frames})


def parse_record(raw: dict, where: str, data_root: str | Path | DataRoot, folder_fps: float | None = None) -> Record:
    """Checks one JSON record. Paths are relative to `data_root`. folder_fps: the rate when the record has none.

    Records with `_qa_` in their index, with `data_source` or without annotation carry no supervision: their tags are
    only stripped. Raises DataError naming the record, the field and what was found.
    """
    where = describe(raw, where)
    checked = check_layout(_RawRecord, raw, where)
    try:
        return _build(checked, where, as_root(data_root), folder_fps)
    except DataError as error:
        raise error.at(where) from None


def describe(raw: Any, where: str) -> str:
    """`where` with the record's own name, if it has one."""
    name = raw.get("index", raw.get("id")) if isinstance(raw, dict) else None
    return where if name is None else f"{where} ({name})"


Layout = TypeVar("Layout", bound=BaseModel)


def check_layout(layout: type[Layout], raw: Any, where: str) -> Layout:
    """`raw` as that layout. Raises DataError naming the first field that does not fit, or half a character in a text."""
    _refuse_half_characters(raw, where)
    try:
        return layout.model_validate(raw)
    except ValidationError as error:
        raise DataError(_first_problem(error), where) from None


def _refuse_half_characters(raw: Any, where: str):
    text = json.dumps(raw, ensure_ascii=False, default=str)
    found = _HALF_CHARACTER.search(text)
    if found:
        raise DataError(
            f"half a character (a lone surrogate, such as \\ud83d) after {text[: found.start()][-20:]!r}; whatever wrote "
            "the file has cut an emoji: write it whole, or leave it out",
            where,
        )


def check_order(turns: list[RawTurn]):
    """Raises ValueError unless questions and answers alternate."""
    for number, turn in enumerate(turns):
        expected = ("human", "gpt")[number % 2]
        if turn.speaker != expected:
            raise ValueError(f"conversations: turn {number} should be from {expected}")


def turn_text(turn: RawTurn) -> tuple[str, str, int]:
    """(role, text, stray placeholders) of a turn; see `strip_placeholders`. Raises DataError for those of an answer."""
    if turn.speaker == "human":
        return _ROLES[turn.speaker], *strip_placeholders(turn.value)
    refuse_placeholders(turn.value)
    return _ROLES[turn.speaker], turn.value, 0


def refuse_without_masks(instances: list[dict[int, Any]]):
    """Raises DataError when no instance has a usable mask."""
    if not any(instances):
        raise DataError("no instance has a usable mask (every segmentation is null or missing)", reason=Reason.NO_MASK)


def _build(raw: _RawRecord, where: str, root: DataRoot, folder_fps: float | None) -> Record:
    found = [turn_text(turn) for turn in raw.conversations]
    texts, stray = [(role, text) for role, text, _ in found], sum(count for _, _, count in found)
    _refuse_videorefer(raw, [text for _, text in texts])
    supervised = bool(raw.annotation) and raw.data_source is None and "_qa_" not in str(raw.index or "")
    instances = raw.instances() if supervised else []
    if supervised:
        refuse_without_masks(instances)
    stripped = [(role, *strip_tags(text)) for role, text in texts]
    spans = [span for _, _, spans in stripped for span in spans]
    if supervised:
        if not spans:
            message = f"{len(instances)} annotated instances but no <ins> tag in the conversation"
            raise DataError(message, reason=Reason.TAGS)
        named = assign_instances([span.phrase for span in spans], len(instances), raw.mentions)
    turns, used = [], 0
    for role, text, spans in stripped:
        kept = spans if supervised else []
        turns.append(Turn(role, text, kept, named[used : used + len(kept)] if supervised else []))
        used += len(kept)
    path = raw.path(root) if raw.image is None else root.locate_video(raw.image)
    fps = folder_fps if raw.fps is None else raw.fps
    return Record(where, path, raw.image is not None, turns, instances, fps, stray)


def _refuse_videorefer(raw: _RawRecord, texts: list[str]):
    found = next((match.group() for text in texts if (match := VIDEOREFER_OBJECT.search(text))), None)
    if raw.annotation and found is not None and not any("<ins>" in text for text in texts):
        raise DataError(
            f"conversations: the original VideoRefer layout ({found} instead of an <ins> tag); name the objects in words "
            "first: swim construct"
        )


def _usable_frames(instance: int, frames: dict[str, RawFrame | None]) -> dict[int, Any]:
    numbers = [int(number) for number in frames]
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        raise DataError(f"annotation.{instance}: frame {twice} is given twice")
    return {int(n): frame.segmentation for n, frame in frames.items() if frame is not None and frame.segmentation}


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    text = problem["msg"].removeprefix("Value error, ")
    if not field:
        return text
    return f"{field}: {text}" if problem["type"] == "missing" else f"{field}: {text}, found {problem['input']!r:.80}"
