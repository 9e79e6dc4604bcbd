"""What a model's reply says, without the thinking that some models write down before it."""

import re

_NAMES = r"(?:think|thinking|thought|reasoning|reflection)"
_BLOCK = re.compile(rf"<{_NAMES}>.*?</{_NAMES}>", re.IGNORECASE | re.DOTALL)
_CLOSING = re.compile(rf"</{_NAMES}>", re.IGNORECASE)
_OPENING = re.compile(rf"<{_NAMES}>", re.IGNORECASE)


def without_reasoning(reply: str) -> str:
    """The reply without blocks such as <think>...</think>, outer white space dropped.

    A closing tag alone ends a block that the chat template opened; a block that is never closed was cut off, and what
    follows its opening is no answer. Example: "<think>A or B?</think>\\nB" -> "B";  "<think>A or" -> "".
    """
    text = _BLOCK.sub("", reply)
    closed = list(_CLOSING.finditer(text))
    if closed:
        text = text[closed[-1].end() :]
    opened = _OPENING.search(text)
    return (text[: opened.start()] if opened else text).strip()
