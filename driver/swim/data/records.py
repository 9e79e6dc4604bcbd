"""A record of an NL-Refer or LLaVA-Video file, checked and typed, still without pixels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swim.data.errors import DataError
from swim.data.tags import Span, assign_instances, strip_tags

_PLACEHOLDERS = ("<video>", "<image>")
_ROLES = {"human": "user", "gpt": "assistant"}


class _RawTurn(BaseModel):
    model_config = ConfigDict(populate_by_name=True, strict=True)
    speaker: Literal["human", "gpt"] = Field(alias="from")
    value: str


class _RawFrame(BaseModel):
    """One annotated frame; a null or missing segmentation means "not annotated in this frame"."""

    segmentation: dict[str, Any] | list[list[float]] | None = None


class _RawRecord(BaseModel):
    """The JSON of one record. Keys that are not listed are the user's own and are left alone."""

    index: str | int | None = None
    id: str | int | None = None
    video: str | None = None
    image: str | None = None
    data_source: str | None = None
    conversations: list[_RawTurn] = Field(min_length=2)
    annotation: list[dict[str, _RawFrame | None]] = []
    mentions: list[int] | None = None

    @model_validator(mode="after")
    def _one_visual(self):
        if (self.video is None) == (self.image is None):
            raise ValueError('expected either "video" or "image"')
        for number, turn in enumerate(self.conversations):
            if turn.speaker != ("human", "gpt")[number % 2]:
                raise ValueError(f"conversations: turn {number} should be from {('human', 'gpt')[number % 2]}")
        for instance, frames in enumerate(self.annotation):
            bad = [number for number in frames if not number.isdigit()]
            if bad:
                raise ValueError(f"annotation.{instance}: frame numbers expected, found {bad[0]!r}")
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

    where: file and record, for messages. path: the video file, frame folder or image. is_image: the latter.
    instances: for each instance {frame number: segmentation}, usable ones only; [] when the record is not supervised.
    """

    where: str
    path: Path
    is_image: bool
    turns: list[Turn]
    instances: list[dict[int, Any]]

    @property
    def annotated_frames(self) -> list[int]:
        """Frame numbers with a mask of at least one instance, sorted."""
        return sorted({number for frames in self.instances for number in frames})


def parse_record(raw: dict, where: str, data_root: str | Path) -> Record:
    """Checks one JSON record. Paths are relative to `data_root`.

    Records with `_qa_` in their index, with `data_source` or without annotation carry no supervision: their tags are
    only stripped. Raises DataError naming the record, the field and what was found.
    """
    where = describe(raw, where)
    try:
        checked = _RawRecord.model_validate(raw)
    except ValidationError as error:
        raise DataError(_first_problem(error), where) from None
    try:
        return _build(checked, where, Path(data_root))
    except DataError as error:
        raise error.at(where) from None


def describe(raw: Any, where: str) -> str:
    """`where` with the record's own name, if it has one."""
    name = raw.get("index", raw.get("id")) if isinstance(raw, dict) else None
    return where if name is None else f"{where} ({name})"


def _build(raw: _RawRecord, where: str, root: Path) -> Record:
    supervised = bool(raw.annotation) and raw.data_source is None and "_qa_" not in str(raw.index or "")
    instances = [_usable_frames(frames) for frames in raw.annotation] if supervised else []
    if supervised and not any(instances):
        raise DataError("no instance has a usable mask (every segmentation is null or missing)")
    stripped = [(_ROLES[turn.speaker], *strip_tags(_drop_placeholder(turn))) for turn in raw.conversations]
    spans = [span for _, _, spans in stripped for span in spans]
    if supervised:
        if not spans:
            raise DataError(f"{len(instances)} annotated instances but no <ins> tag in the conversation")
        named = assign_instances([span.phrase for span in spans], len(instances), raw.mentions)
    turns, used = [], 0
    for role, text, spans in stripped:
        kept = spans if supervised else []
        turns.append(Turn(role, text, kept, named[used : used + len(kept)] if supervised else []))
        used += len(kept)
    return Record(where, root / (raw.video or raw.image), raw.image is not None, turns, instances)


def _usable_frames(frames: dict[str, _RawFrame | None]) -> dict[int, Any]:
    return {int(n): frame.segmentation for n, frame in frames.items() if frame is not None and frame.segmentation}


def _drop_placeholder(turn: _RawTurn) -> str:
    """The turn's text without a literal <video> or <image> line at the start of a question."""
    text = turn.value
    if turn.speaker == "human":
        for placeholder in _PLACEHOLDERS:
            if text.startswith(placeholder):
                return text.removeprefix(placeholder).removeprefix("\n")
    return text


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    if not field:
        return text
    return f"{field}: {text}" if problem["type"] == "missing" else f"{field}: {text}, found {problem['input']!r:.80}"
