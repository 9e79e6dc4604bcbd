"""Questions as users give them: one, or a file of many."""

import hashlib
import json
from codecs import BOM_UTF8
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from swim.data.records import RawItem, Record, Turn, check_layout
from swim.data.root import DataRoot, Source, as_root
from swim.data.tags import strip_placeholders, strip_tags
from swim.errors import DataError
from swim.files import decode_text, other_encoding, read_file
from swim.video.sources import is_animation, is_image_source


@dataclass(frozen=True)
class ItemFile:
    """The items of a file in its order, under unique ids; sha256 of its bytes."""

    path: Path
    sha256: str
    items: dict[str, Any]

    @property
    def facts(self) -> dict:
        """What tells the file from another, for settings and reports."""
        return {"file": self.path.name, "sha256": self.sha256, "items": len(self.items)}


def question_record(where: str, path: Source, prompt: str, is_image: bool = False, fps: float | None = None) -> Record:
    """A record that waits for its answer: `prompt` without tags. where, path, is_image, fps: as in `Record`.

    Raises DataError for malformed tags.
    """
    turns = [Turn("user", strip_tags(prompt)[0], [], []), Turn("assistant", "", [], [])]
    return Record(where, path, is_image, turns, [], fps)


def visual_record(
    where: str, video: Source | None, image: Source | None, prompt: str, fps: float | None = None
) -> Record:
    """The record of a question about a video or an image. A video that is an image file counts as one.

    A literal <video> or <image> line at the start of the prompt is dropped, as in training records.

    Raises DataError naming `where` for malformed tags, for an empty prompt and for an image that is none.
    """
    try:
        prompt, _ = strip_placeholders(prompt)
        if not prompt.strip():
            raise DataError("the prompt is empty; ask something")
        if isinstance(image, Path) and not is_image_source(image):
            raise DataError(f"expected an image, found {image}; is it a video?")
        if image is not None:
            return question_record(where, image, prompt, True, fps)
        if video is None:
            raise DataError("neither a video nor an image")
        still = is_image_source(video) and not is_animation(video)
        return question_record(where, video, prompt, still, fps)
    except DataError as error:
        raise error.at(where) from None


class _RawQuestion(RawItem):
    image: Annotated[str, Field(min_length=1)] | None = None
    prompt: Annotated[str, Field(strict=True)]

    @model_validator(mode="after")
    def _one_visual(self):
        if (self.video is None) == (self.image is None):
            raise ValueError('expected either "video" or "image"')
        return self


def read_questions(path: str | Path, root: str | Path | DataRoot | None = None) -> ItemFile:
    """The questions of a .jsonl file as records. A line: {"video" or "image", "prompt", "id"?, "fps"?}.

    root: what videos are relative to, default the file's folder. fps: rate of a frame folder or list of frames. An id
    is kept as text; without one it is the number of the line, from 1. Empty lines count and are passed over.
    Raises DataError naming file and line for a line that does not fit, and for an id given twice.
    """
    path = Path(path)
    root = as_root(path.parent if root is None else root)
    content, items = read_file(path, "fix --batch"), {}
    if other_encoding(content[:4]) is not None:
        decode_text(content, str(path))  # which names it
    for number, line in enumerate(content.removeprefix(BOM_UTF8).split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            raw = check_layout(_RawQuestion, json.loads(line), where)
        except ValueError as error:
            raise DataError(f"malformed JSON: {error}", where) from None
        key = str(number if raw.id is None else raw.id)
        if key in items:
            raise DataError(f"the id {key!r} is given twice; ids must be unique", where)
        try:
            video = None if raw.video is None else root.locate_video(raw.video)
            image = None if raw.image is None else root.locate_video(raw.image)
        except DataError as error:
            raise error.at(where) from None
        items[key] = visual_record(where, video, image, raw.prompt, raw.fps)
    if not items:
        raise DataError("no questions in it", str(path))
    return ItemFile(path, hashlib.sha256(content).hexdigest(), items)
