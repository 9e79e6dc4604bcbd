"""What the model is asked for a record, and how its reply is read."""

import json
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from swim.construct.checks import Refusal, Refused, Rewriting
from swim.construct.tasks import Kind, Task
from swim.llm import CHARACTERS_PER_TOKEN, IMAGE_TOKENS, estimate_tokens

# Raise it whenever a word of the prompt or of the schema changes: replies of different versions are not comparable.
PROMPT_VERSION = "1"
RULES = """\
You turn placeholders in a conversation about a video into natural language. <object0>, <object1>, ... each stand for one \
object of the video. You get all texts of the conversation as JSON; rewrite those with "rewrite": true.

First choose for every object a noun: one or two words that name it, in the language of the conversation, such as "dog". \
Two objects must never have the same noun, nor one that fits both: where both are dogs, put what tells them apart into the \
noun ("white dog", "brown dog"). Then rewrite the texts:
- Put a natural noun phrase in the place of every placeholder, each time with the object's noun between <ins> and </ins>, \
always the same noun: "the small <ins>dog</ins> on the bed". One tag for each placeholder, in the order of the \
placeholders, no other tags and no placeholder left. No pronouns instead.
- Everything else stays exactly as it is: every word, sign, number, line and answer letter, in the same order and language. \
Beside the phrase alone an article may come, go or change, and a verb agree.
- Use the words of the conversation{sources}. Add no facts. Keep phrases short.
- In a multiple-choice question the phrase must not give an answer away: take no words from the options.
"""
_SYNONYM_RULES = """\
Also choose for every object a synonym of its noun that tells it apart as well ("canine" for "dog"), and write every text a \
second time under the same rules, with the synonym between the tags.
"""
_EXAMPLE = """\
Example. Texts: [{"text": 0, "role": "question", "content": "What is <object0> doing beside <object1>?", "rewrite": true}, \
{"text": 1, "role": "answer", "content": "The dog sleeps on the bed, near a laptop.", "rewrite": false}]
Reply: """
_FRAMES = "The frames show the objects outlined, each marked with its number: {}."
_CLOSING = "Reply with the JSON object alone, all texts anew."


class _Noun(BaseModel):
    object: int
    noun: str
    synonym: str | None = None


class _Text(BaseModel):
    text: int
    rewritten: str
    with_synonyms: str | None = None


class _Reply(BaseModel):
    objects: list[_Noun]
    texts: Annotated[list[_Text], Field(min_length=1)]


def schema_of(synonyms: bool) -> dict:
    """The JSON schema of a reply, in the strict form that servers of structured output take."""
    nouns = {"object": {"type": "integer"}, "noun": {"type": "string"}}
    texts = {"text": {"type": "integer"}, "rewritten": {"type": "string"}}
    if synonyms:
        nouns["synonym"] = texts["with_synonyms"] = {"type": "string"}
    lists = {"objects": nouns, "texts": texts}
    return strict_schema(
        {name: {"type": "array", "items": strict_schema(properties)} for name, properties in lists.items()}
    )


def strict_schema(properties: dict) -> dict:
    """Of an object that has these and nothing else."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def messages_of(task: Task, synonyms: bool = False, frames: Sequence[str] = (), colours: dict[int, str] | None = None):
    """The chat that asks for a record. frames: data URIs; colours: of the outlines in them, by object."""
    sources = " or what the frames show of the outlined objects" if frames else ", which is all that you know"
    rules = RULES.replace("{sources}", sources) + (_SYNONYM_RULES if synonyms else "") + _EXAMPLE + _example(synonyms)
    texts = [
        {"text": number, "role": text.role, "content": text.content, "rewrite": number in task.open_texts}
        for number, text in enumerate(task.texts)
    ]
    asked = json.dumps(texts, ensure_ascii=False)
    if task.kind is Kind.BENCH_Q:
        asked = "A multiple-choice question. " + asked
    if not frames:
        return [{"role": "system", "content": rules}, {"role": "user", "content": asked}]
    shown = _FRAMES.format(", ".join(f"<object{number}> {colour}" for number, colour in (colours or {}).items()))
    parts = [{"type": "image_url", "image_url": {"url": uri}} for uri in frames]
    parts.append({"type": "text", "text": f"{shown}\n{asked}"})
    return [{"role": "system", "content": rules}, {"role": "user", "content": parts}]


def _example(synonyms: bool) -> str:
    nouns = [{"object": 0, "noun": "dog"}, {"object": 1, "noun": "laptop"}]
    text = "What is the <ins>{}</ins> doing beside the <ins>{}</ins>?"
    texts = [{"text": 0, "rewritten": text.format("dog", "laptop")}]
    if synonyms:
        nouns[0]["synonym"], nouns[1]["synonym"] = "canine", "notebook computer"
        texts[0]["with_synonyms"] = text.format("canine", "notebook computer")
    return json.dumps({"objects": nouns, "texts": texts})


def ask_again(messages: list[dict], reply: str, refused: Refused) -> list[dict]:
    """The dialogue with the refused reply and the reason."""
    again = f"That reply cannot be used ({refused.reason}): {refused}. {_CLOSING}"
    return [*messages, {"role": "assistant", "content": reply}, {"role": "user", "content": again}]


def parse_reply(reply: str, synonyms: bool = False) -> Rewriting:
    """The rewriting in a reply: a JSON object, alone, fenced or inside prose. Raises Refused."""
    value = json_object(reply, "texts")
    try:
        parsed = _Reply.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise Refused(Refusal.NOT_JSON, f"{place}: {problem['msg']}") from None
    nouns = {entry.object: entry.noun for entry in parsed.objects}
    texts = {entry.text: entry.rewritten for entry in parsed.texts}
    others = None
    if synonyms:
        others = Rewriting(
            {entry.object: entry.synonym or "" for entry in parsed.objects},
            {entry.text: entry.with_synonyms or "" for entry in parsed.texts},
        )
    return Rewriting(nouns, texts, others)


def json_object(reply: str, key: str) -> dict:
    """The first JSON object in a reply that has the key. Raises Refused."""
    decoder, problem = json.JSONDecoder(), "no JSON object"
    for start in (match.start() for match in re.finditer(r"\{", reply)):
        try:
            value, _ = decoder.raw_decode(reply[start:])
        except RecursionError:
            break
        except ValueError as error:
            problem = f"malformed JSON, {error}"
            continue
        if isinstance(value, dict) and key in value:
            return value
    raise Refused(Refusal.NOT_JSON, problem)


def estimate(task: Task, synonyms: bool, with_frames: int) -> tuple[int, int]:
    """About how many (prompt, completion) tokens a record takes when its first reply is accepted."""
    prompt = estimate_tokens(messages_of(task, synonyms)) + with_frames * IMAGE_TOKENS
    written = sum(len(text.content) + 40 for text in task.open_texts.values()) + 40 * len(task.objects)
    return prompt, (1 + synonyms) * written // CHARACTERS_PER_TOKEN
