"""Captions of objects: the annotation files of HC-STVG and Ref-L4, and a plain list, checked and typed."""

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from swim.attention.wording import subject_of
from swim.data.records import Record, check_layout
from swim.data.root import DataRoot, Source, as_root
from swim.errors import DataError
from swim.files import parse_json, read_file
from swim.infer.questions import ItemFile, visual_record

_Text = Annotated[str, Field(strict=True, min_length=1)]
SUBJECT, VISUAL = "{subject}", "{visual}"


@dataclass(frozen=True)
class Captioned:
    """An object of a video or image, and what people have written about it.

    where: file and item, for messages.
    video, image: as in `visual_record`; one of them is None.
    references: one caption or more.
    subject: what the item calls its object, else None.
    is_person: whether all objects of the file are people.
    """

    where: str
    video: Source | None
    image: Source | None
    references: tuple[str, ...]
    subject: str | None = None
    fps: float | None = None
    is_person: bool = False

    def named(self) -> str:
        """What the question calls the object: the item's own subject, else the noun that a caption begins with; see `subject_of`.

        Raises DataError where no caption begins with one.
        """
        found = self.subject or next(filter(None, map(subject_of, self.references)), None)
        if found is None and not self.is_person:
            problem = f'{self.references[0]!r:.80} begins with no noun; add "subject", what the object is called'
            raise DataError(problem, self.where)
        return found or "person"

    def asked(self, prompt: str) -> Record:
        """The question about it. prompt: with {subject}, {visual} or neither. Raises DataError."""
        text = prompt.replace(VISUAL, "video" if self.image is None else "image")
        if SUBJECT in text:
            text = text.replace(SUBJECT, self.named())
        return visual_record(self.where, self.video, self.image, text, self.fps)


class _RawCaptioned(BaseModel):
    """A row of Ref-L4, or an item of a plain list."""

    model_config = ConfigDict(populate_by_name=True)
    id: str | int | None = None
    video: _Text | None = None
    image: _Text | None = Field(None, validation_alias=AliasChoices("image", "file_name"))
    captions: list[_Text] = Field(min_length=1)
    subject: _Text | None = None
    bbox: list[float] | None = None
    fps: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_caption_is_a_list(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "captions" not in raw and raw.get("caption") is not None:
            return {**raw, "captions": [raw["caption"]]}
        return raw

    @model_validator(mode="after")
    def _one_visual(self):
        if (self.video is None) == (self.image is None):
            raise ValueError('expected either "video" or "image" (or "file_name", an image)')
        return self


class _RawTube(BaseModel):
    """A value of HC-STVG's object of videos; the subject is not in its own files."""

    caption: _Text = Field(validation_alias=AliasChoices("English", "caption"))
    subject: _Text | None = None


@dataclass
class _Object:
    """What several rows say of one object."""

    where: str
    raw: _RawCaptioned
    captions: list[str] = field(default_factory=list)


def read_captions(path: str | Path, root: str | Path | DataRoot | None = None, limit: int | None = None) -> ItemFile:
    """The captioned objects of a file, by id; `limit`: the first so many.

    A JSON object {video: {"English": caption, ...}} is HC-STVG's; a .parquet file, or a JSON list, of rows with "caption" (or
    "captions", a list), and "file_name" (or "image", "video") is Ref-L4's or anybody's. Rows with the same image and bbox are one
    object with several captions. root: what the files are relative to, by default the file's folder.

    Raises DataError for a file that is none of these, for an item that does not fit, and for an id given twice.
    """
    path = Path(path)
    content = read_file(path, "fix the path on the command line")
    rows = _parquet_rows(content, path) if path.suffix == ".parquet" else _json_rows(content, path)
    root = as_root(path.parent if root is None else root)
    people = any(key is not None for key, _ in rows)  # "HC" is human-centric
    objects: dict[Any, _Object] = {}
    for position, (key, row) in enumerate(rows):
        where = f"{path}, item {position if key is None else repr(key)}"
        raw = check_layout(_RawCaptioned, row, where)
        same = (raw.image, *raw.bbox) if raw.bbox is not None and raw.image is not None else position
        objects.setdefault(same, _Object(where, raw)).captions.extend(raw.captions)
    items: dict[str, Captioned] = {}
    for position, found in enumerate(list(objects.values())[:limit]):
        name = str(position if found.raw.id is None else found.raw.id)
        if name in items:
            raise DataError(f"the id {name!r} is given twice; ids must be unique", found.where)
        try:
            video, image = (
                None if source is None else root.locate_video(source) for source in (found.raw.video, found.raw.image)
            )
        except DataError as error:
            raise error.at(found.where) from None
        references = tuple(dict.fromkeys(found.captions))
        items[name] = Captioned(found.where, video, image, references, found.raw.subject, found.raw.fps, people)
    if not items:
        raise DataError("no captions in it", str(path))
    return ItemFile(path, hashlib.sha256(content).hexdigest(), items)


def _json_rows(content: bytes, path: Path) -> list[tuple[str | None, Any]]:
    """(name or None, row) of each item."""
    raw = parse_json(content, str(path))
    if isinstance(raw, list):
        return [(None, row) for row in raw]
    if not isinstance(raw, dict):
        raise DataError(f"expected a JSON list or object, found {type(raw).__name__}", str(path))
    tubes = [(name, check_layout(_RawTube, tube, f"{path}, item {name!r}")) for name, tube in raw.items()]
    return [
        (name, {"id": name, "video": name, "captions": [tube.caption], "subject": tube.subject}) for name, tube in tubes
    ]


def _parquet_rows(content: bytes, path: Path) -> list[tuple[str | None, Any]]:
    try:
        return [(None, row) for row in pq.read_table(io.BytesIO(content)).to_pylist()]
    except pa.ArrowException as error:
        raise DataError(f"not a parquet file: {error}", str(path)) from None
