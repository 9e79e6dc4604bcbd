"""What a model's reply says: the text of any server's body, without the thinking that some models write down before it."""

import json
import re
from dataclasses import dataclass
from typing import Any

_NAMES = r"(?:think|thinking|thought|reasoning|reflection)"
_BLOCK = re.compile(rf"<{_NAMES}>.*?</{_NAMES}>", re.IGNORECASE | re.DOTALL)
_CLOSING = re.compile(rf"</{_NAMES}>", re.IGNORECASE)
_OPENING = re.compile(rf"<{_NAMES}>", re.IGNORECASE)
_TEXTS = ("text", "output_text")  # parts of a content that are said; others are thought, or are no text
_NO_CREDIT = re.compile(
    r"insufficient[\s_](?:quota|credits?|funds|balance)|exceeded your current quota|credit balance is too low|"
    r"out of credits|payment required|billing[\s_](?:hard[\s_]limit|not[\s_]active)|arrearage|余额不足|欠费",
    re.IGNORECASE,
)


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


class BadReply(Exception):
    """A response body without an answer; `str(error)` says why, in the provider's own words if it gives any.

    again: asking the same question again may succeed.
    refuses: the provider will not answer anything any more.
    """

    def __init__(self, message: str, again: bool = False, refuses: bool = False):
        super().__init__(message)
        self.again = again
        self.refuses = refuses


@dataclass(frozen=True)
class Completion:
    """What one body says. text: without thinking. The counts are None where the server does not give them."""

    text: str
    cut_off: bool
    prompt_tokens: int | None
    completion_tokens: int | None


def read_completion(content: bytes) -> Completion:
    """What the body of a chat completion says, whatever shape the server gives it. Raises BadReply.

    Of a list of parts only the text counts, thinking does not; half an emoji becomes U+FFFD.
    """
    body = _as_object(content)
    if body.get("error"):
        raise _error_in(body["error"])
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        raise BadReply(f"no choices in the reply: {_shown(body)}", again=True)
    if choice.get("error"):
        raise _error_in(choice["error"])
    message = _object_in(choice, "message")
    written = _text_of(message.get("content", choice.get("text")))
    text, finish = without_reasoning(written), choice.get("finish_reason")
    if not text:
        raise _empty(message, finish, thought=bool(written.strip()))
    usage = _object_in(body, "usage")
    counts = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Completion(text, finish == "length", *counts)


def mend_surrogates(text: str) -> str:
    """The text with pairs of surrogates joined, and each that has lost its other half as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def words_of(body: Any) -> str:
    """The message in the body of an error, in any of the shapes that servers use; else the body itself, shortened."""
    if isinstance(body, dict):
        for name in ("message", "detail", "error", "msg"):
            if body.get(name):
                return words_of(body[name])
    if isinstance(body, list) and body and all(isinstance(entry, dict) and "msg" in entry for entry in body):
        return "; ".join(f"{'.'.join(map(str, entry.get('loc', ())))}: {entry['msg']}" for entry in body)[:300]
    return mend_surrogates(body)[:300] if isinstance(body, str) else _shown(body)


def credit_is_used_up(words: str) -> bool:
    """Whether a provider's words say that nothing more is paid for."""
    return _NO_CREDIT.search(words) is not None


def _object_in(body: dict, name: str) -> dict:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _as_object(content: bytes) -> dict:
    text = content.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise BadReply(
            f"expected JSON, found {_shown(text) if text.strip() else 'an empty body'}", again=True
        ) from None
    if not isinstance(body, dict):
        raise BadReply(f"expected a JSON object, found {_shown(body)}", again=True)
    return body


def _error_in(error: Any) -> BadReply:
    """An error that came with the status of a success."""
    words, code = words_of(error), error.get("code", error.get("status")) if isinstance(error, dict) else None
    if credit_is_used_up(f"{words} {code}") or str(code) == "402":
        return BadReply(words, refuses=True)
    return BadReply(words, again=str(code) in ("408", "409", "429") or str(code).startswith("5"))


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return mend_surrogates(content)
    if isinstance(content, list):
        said = (part.get("text") if isinstance(part, dict) and part.get("type") in _TEXTS else part for part in content)
        return "".join(mend_surrogates(text) for text in said if isinstance(text, str))
    return ""


def _empty(message: dict, finish: Any, thought: bool) -> BadReply:
    """Why a reply says nothing."""
    if isinstance(message.get("refusal"), str) and message["refusal"].strip():
        return BadReply(f"the model refuses: {mend_surrogates(message['refusal'])[:300]}")
    if finish == "content_filter":
        return BadReply("the provider's content filter stopped the reply (finish_reason: content_filter)")
    if message.get("tool_calls") or message.get("function_call"):
        return BadReply("the model calls a tool instead of answering")
    thought = thought or any(message.get(name) for name in ("reasoning_content", "reasoning"))
    if finish == "length":
        why = "while it was thinking" if thought else "before any text"
        return BadReply(f"the reply ends at max_tokens {why} (finish_reason: length); raise the limit of tokens")
    return BadReply("the reply is thinking alone" if thought else "the reply is empty", again=True)


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e12 else None


def _shown(body: Any) -> str:
    text = body if isinstance(body, str) else json.dumps(body)
    return " ".join(mend_surrogates(text).split())[:200]
