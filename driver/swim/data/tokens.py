"""Characters to tokens: which tokens are answers, and which instance a token names."""

from collections.abc import Sequence

import numpy as np

from swim.data.chat import ChatText, Mention
from swim.errors import DataError, Reason

IGNORE = -100


def place_in_expanded(position: int, replacements: list[dict]) -> int:
    """A character position of the chat text in the text whose visual placeholders are expanded.

    replacements: the processor's `text_replacement_offsets`, each with `span` (before) and `new_span` (after).
    Example: with {"span": (2, 5), "new_span": (2, 11)}, 1 -> 1 and 7 -> 13.
    """
    shift = 0
    for replacement in replacements:
        if replacement["span"][1] <= position:
            shift = replacement["new_span"][1] - replacement["span"][1]
    return position + shift


def answer_tokens(chat: ChatText, replacements: list[dict], offsets: np.ndarray) -> np.ndarray:
    """bool[S]: tokens that lie in an answer or are the end-of-turn token after it. offsets: int[S, 2]."""
    learnt = np.zeros(len(offsets), dtype=bool)
    for start, end in chat.answers:
        start, end = place_in_expanded(start, replacements), place_in_expanded(end, replacements)
        learnt |= (offsets[:, 0] >= start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0])
    return learnt


def instance_tokens(chat: ChatText, replacements: list[dict], offsets: np.ndarray) -> np.ndarray:
    """int64[S]: the instance that each token names, -100 for none.

    A token belongs to the mention that holds the largest share of its characters after leading white space is dropped,
    the earlier one where two are equal. One character may be several tokens: each of them covers it.
    Example: the mention "dog" of "the dogs" owns the token " dogs".
    Raises DataError for a mention that owns no token.
    """
    mentions = [_expanded(mention, replacements) for mention in chat.mentions]
    owner = np.full(len(offsets), -1)
    largest = np.zeros(len(offsets))
    blank = {place_in_expanded(i, replacements) for i, character in enumerate(chat.text) if character.isspace()}
    starts = np.array([_after_blank(start, end, blank) for start, end in offsets.tolist()], dtype=np.int64)
    lengths = np.maximum(offsets[:, 1] - starts, 1)
    for number, mention in enumerate(mentions):
        overlap = np.minimum(offsets[:, 1], mention.end) - np.maximum(starts, mention.start)
        share = np.clip(overlap, 0, None) / lengths
        wins = share > largest
        owner[wins], largest[wins] = number, share[wins]
    for number, mention in enumerate(chat.mentions):
        if not (owner == number).any():
            phrase = chat.text[mention.start : mention.end]
            raise DataError(
                f"the tagged phrase {phrase!r} owns no token; widen the tag to whole words", reason=Reason.TAGS
            )
    instances = np.array([mention.instance for mention in mentions] + [IGNORE], dtype=np.int64)
    return instances[owner]


def decode_with_ends(tokenizer, tokens: Sequence[int]) -> tuple[str, list[int]]:
    """(text, for each token the character of the text where it ends); a character of several tokens ends with the last."""
    text, ends = "", []
    for count in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:count], skip_special_tokens=True)
        ends.append(len(text.rstrip("\ufffd")))
    return text, ends


def tokens_of(span: tuple[int, int], ends: list[int], start: int) -> tuple[int, int]:
    """Tokens [start, end) that hold the characters [span): those that end after its start, up to the one that ends it."""
    first = next(number for number, end in enumerate(ends) if end > span[0])
    last = next(number for number, end in enumerate(ends) if end >= span[1])
    return start + first, start + last + 1


def _expanded(mention: Mention, replacements: list[dict]) -> Mention:
    return Mention(
        place_in_expanded(mention.start, replacements), place_in_expanded(mention.end, replacements), mention.instance
    )


def _after_blank(start: int, end: int, blank: set[int]) -> int:
    while start < end and start in blank:
        start += 1
    return start
