"""Captions of objects that have masks, by a model that sees them outlined."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from swim.concurrently import run_concurrently
from swim.construct.checks import Refusal, Refused
from swim.construct.frames import colour_of, outlined_frames
from swim.construct.prompt import ask_again, json_object, strict_schema
from swim.construct.tasks import CANONICAL
from swim.data.root import Source
from swim.data.tags import strip_tags
from swim.errors import DataError
from swim.llm import Asker, AskFailed

OBJECT = "<object0>"
_RULES = f"""\
You describe one object of a video. The frames, in their order, show it outlined in {{colour}} and marked with a 0; it is called \
{{phrase}}. Write two or three sentences: what it looks like, what it does, and how that changes from the first frame to the last. \
Write {OBJECT} where its name would stand, at least once, without an article before it; do not write the name itself. Say nothing \
of outlines, marks and frames, and nothing that cannot be seen. Reply with a JSON object: {{example}}"""
_EXAMPLE = {"caption": f"{OBJECT} lies on its side and sleeps. Towards the end it lifts its head."}
_TAG = re.compile(r"<[^<>]*>")


class _Reply(BaseModel):
    caption: str = Field(min_length=1)


@dataclass(frozen=True)
class Described:
    """An object to be described. phrase: tagged. masks: RLE by frame number."""

    name: str
    source: Source
    phrase: str
    masks: dict[int, dict]


class Describer:
    """Asks one model. Safe to use from many threads. frames: outlined ones to show. attempts: replies for an object."""

    def __init__(self, asker: Asker, frames: int = 4, attempts: int = 3):
        if frames < 1 or attempts < 1:
            raise ValueError(f"expected at least one frame and one attempt, found {frames} and {attempts}")
        self.asker, self.frames, self.attempts = asker, frames, attempts

    def describe_all(self, objects: Sequence[Described]) -> Iterator[tuple[Described, str | Refused]]:
        """Each with its caption, in which `<object0>` stands for it, or with the reason why there is none, as they come.

        Raises swim.llm.ServiceRefuses when the model will answer nothing more.
        """

        def work(each: Described) -> str | Refused:
            try:
                return self.describe(each)
            except Refused as refused:
                return refused

        return run_concurrently(objects, work, self.asker.endpoint.concurrency)

    def describe(self, each: Described) -> str:
        """Raises Refused with the reason of the last reply."""
        try:
            shown = outlined_frames(each.source, [each.masks], self.frames)
        except DataError as error:
            raise Refused(Refusal.NO_FRAMES, error.message) from None
        rules = _RULES.format(
            colour=colour_of(0), phrase=json.dumps(strip_tags(each.phrase)[0]), example=json.dumps(_EXAMPLE)
        )
        images = [{"type": "image_url", "image_url": {"url": frame.uri}} for frame in shown]
        asked = {"type": "text", "text": f"Describe {OBJECT}."}
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": rules},
            {"role": "user", "content": [*images, asked]},
        ]
        schema = strict_schema({"caption": {"type": "string"}})
        for _ in range(self.attempts):
            try:
                reply = self.asker.ask(messages, schema).text
            except AskFailed as error:
                raise Refused(Refusal.NO_REPLY, str(error)) from None
            try:
                return caption_of(reply)
            except Refused as error:
                refused = error
            messages = ask_again(messages, reply, refused)
        raise refused


def caption_of(reply: str) -> str:
    """The caption of a reply. Raises Refused for one that does not name the object by its placeholder alone."""
    try:
        caption = _Reply.model_validate(json_object(reply, "caption")).caption.strip()
    except ValidationError as error:
        raise Refused(Refusal.NOT_JSON, f"caption: {error.errors()[0]['msg']}") from None
    tags = _TAG.findall(caption)
    if not tags or any(tag != OBJECT for tag in tags):
        raise Refused(Refusal.NOT_NAMED, f"expected {OBJECT} at least once and no other tag, found {tags or 'none'}")
    if not CANONICAL.sub("", caption).strip(" .,;:!?"):
        raise Refused(Refusal.NOT_NAMED, "the caption says nothing")
    return caption
