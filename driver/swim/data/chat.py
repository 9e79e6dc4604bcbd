"""The chat text of a conversation, with the place of every answer and every tagged phrase in it."""

from collections.abc import Callable
from dataclasses import dataclass

from swim.data.records import Turn
from swim.errors import DataError
from swim.prompts import SYSTEM_PROMPT


@dataclass(frozen=True)
class Mention:
    """Characters [start, end) of the chat text that name `instance`."""

    start: int
    end: int
    instance: int


@dataclass(frozen=True)
class ChatText:
    """The rendered chat, its visual placeholder still one token.

    answers: characters [start, end) that are learnt: each answer and the end-of-turn token after it.
    """

    text: str
    answers: list[tuple[int, int]]
    mentions: list[Mention]


def render_chat(
    processor,
    turns: list[Turn],
    visual: str | None,
    system_prompt: str = SYSTEM_PROMPT,
    add_generation_prompt: bool = False,
    as_trained: Callable[[str], str] = str,
) -> ChatText:
    """Renders the turns with the processor's chat template, the visual first in the first question.

    visual: "video", "image" or None for text alone. as_trained: `chat_text` of the model's family.

    Each text is rendered as a marker and put in its place afterwards, so its position is known and never searched for.
    Raises DataError for text that holds one of the tokenizer's special tokens.
    """
    texts = [turn.text for turn in turns]
    _refuse_special_tokens(processor, texts)
    messages = [{"role": "system", "content": [{"type": "text", "text": system_prompt}]}] if system_prompt else []
    for number, turn in enumerate(turns):
        first = [{"type": visual}] if number == 0 and visual is not None else []
        messages.append({"role": turn.role, "content": [*first, {"type": "text", "text": _marker(number)}]})
    rendered = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    rendered = as_trained(rendered)

    end_of_turn = processor.tokenizer.eos_token
    text, answers, mentions = "", [], []
    for number, turn in enumerate(turns):
        before, found, rendered = rendered.partition(_marker(number))
        if not found:
            raise DataError("the chat template does not render each turn's text as it is; use the model's own template")
        text += before
        start = len(text)
        mentions += [Mention(start + s.start, start + s.end, i) for s, i in zip(turn.spans, turn.instances)]
        text += turn.text
        if turn.role == "assistant":
            closing = len(end_of_turn) if rendered.startswith(end_of_turn) else 0
            answers.append((start, len(text) + closing))
    return ChatText(text + rendered, answers, mentions)


def _marker(number: int) -> str:
    return f"\ue000{number}\ue001"  # private-use characters: no template writes them


def _refuse_special_tokens(processor, texts: list[str]):
    special = {*processor.tokenizer.all_special_tokens, processor.image_token, processor.video_token}
    for text in texts:
        found = sorted(token for token in special if token in text)
        if found:
            raise DataError(f"the text holds the special token {found[0]}; remove it from the record")
