"""A rewritten text laid along its original: where each fixed part lies, and what phrase stands between.

Between the placeholders a text has fixed parts. A rewriting must hold each of them, letter by letter and in order, with one
tagged phrase in the place of each placeholder. Beside a phrase an article may come, go or change, and a verb agree with it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from swim.construct.language import AGREEMENT, NEGATIONS, Language, is_unspaced, words_of
from swim.data.tags import Span

MOST_WORDS_BEFORE = 6  # of a phrase, in front of its tag
MOST_WORDS_BEHIND = 10
_NO_PART_OF_A_PHRASE = re.compile(r"[.!?;:,…\n\"“”()\[\]{}<>。！？；：，、]")
_FIRST_WORD, _LAST_WORD = re.compile(r"^[^\W\d]+['’]?"), re.compile(r"[^\W\d]+['’]?$")


@dataclass(frozen=True)
class Phrase:
    """What stands in the place of one placeholder: words before the tag, the tagged ones, words after it."""

    before: str
    noun: str
    behind: str

    @property
    def text(self) -> str:
        return f"{self.before} {self.noun} {self.behind}"


def align(fixed: list[str], plain: str, spans: list[Span], language: Language | None) -> list[Phrase] | None:
    """The phrases, when the pieces of `plain` between its tagged spans hold the fixed parts of a text; else None.

    Example: ["Is ", " near ", "?"] and "Is the dog on the bed near a cat?" with spans "dog" and "cat" ->
    [Phrase("the", "dog", "on the bed"), Phrase("a", "cat", "")].
    """
    if len(spans) != len(fixed) - 1:
        return None
    outer = []
    for place, (piece, part) in enumerate(zip(pieces_of(plain, spans), fixed)):
        found = _split_piece(piece, part, place > 0, place < len(fixed) - 1, language)
        if found is None:
            return None
        outer.append(found)
    return [Phrase(outer[n][1], span.phrase, outer[n + 1][0]) for n, span in enumerate(spans)]


def pieces_of(plain: str, spans: list[Span]) -> list[str]:
    """What stands before, between and after the tagged words."""
    edges = [0, *(edge for span in spans for edge in (span.start, span.end)), len(plain)]
    return [plain[start:end] for start, end in zip(edges[::2], edges[1::2])]


def _split_piece(piece: str, part: str, behind_tag: bool, before_tag: bool, language) -> tuple[str, str] | None:
    """(end of the phrase before, start of the phrase after) around the fixed part in a piece of a rewriting."""
    for core in _variants(part.strip(), behind_tag, before_tag, language):
        for start in _occurrences(piece, core):
            ahead, rest = piece[:start], piece[start + len(core) :]
            ends_fit = (behind_tag or not ahead.strip()) and (before_tag or not rest.strip())
            if ends_fit and _can_follow(ahead, language) and _can_precede(rest, language):
                return ahead.strip(), rest.strip()
    return None


def _variants(core: str, behind_tag: bool, before_tag: bool, language: Language | None) -> Iterator[str]:
    """The fixed part as it is, then with what grammar may change beside a phrase."""
    heads, tails = [core], []
    if behind_tag and (first := _FIRST_WORD.search(core)):
        heads += [swap + core[first.end() :] for swap in _swaps(first.group(), language)]
    for head in heads:
        tails.append(head)
        if before_tag and (last := _LAST_WORD.search(head)):
            tails += [head[: last.start()] + swap for swap in _swaps(last.group(), language)]
    yield from dict.fromkeys(tail.strip() for tail in tails)


def _swaps(word: str, language: Language | None) -> list[str]:
    plain = word.casefold().rstrip("'’")
    swaps = [_like(word, AGREEMENT[plain])] if plain in AGREEMENT else []
    return swaps + [""] * (language is not None and plain in language.articles | language.particles)


def _like(word: str, other: str) -> str:
    return other.capitalize() if word[:1].isupper() else other


def _occurrences(piece: str, core: str) -> Iterator[int]:
    """Where the core stands in a piece, at the bounds of words. An empty one may stand between any two words."""
    if not core:
        yield from dict.fromkeys([len(piece), 0, *(match.start() for match in re.finditer(r"\s", piece))])
        return
    for start in (match.start() for match in re.finditer(rf"(?={re.escape(core)})", piece)):
        end = start + len(core)
        if _is_bound(piece, start) and _is_bound(piece, end):
            yield start


def _is_bound(text: str, place: int) -> bool:
    """Whether no word goes on across a place of the text."""
    if place in (0, len(text)):
        return True
    pair = text[place - 1 : place + 1]
    return not pair.isalnum() or any(is_unspaced(character) for character in pair)


def _can_precede(words: str, language: Language | None) -> bool:
    """Whether these can stand before the noun in its phrase: an article and words that describe it, no "at", no "is"."""
    small = language.small_words if language is not None else frozenset()
    return is_short(words, MOST_WORDS_BEFORE) and not small & set(words_of(words))


def _can_follow(words: str, language: Language | None) -> bool:
    """Whether these can follow it, such as "on the bed". A "not", or an "is" at the end, belongs to the sentence."""
    found = words_of(words)
    ends = language is None or not found or found[-1] not in language.articles | language.small_words
    return ends and is_short(words, MOST_WORDS_BEHIND) and not NEGATIONS & set(found)


def is_short(words: str, most: int) -> bool:
    """Whether these are few, and without the signs of a sentence."""
    return len(words_of(words)) <= most and not _NO_PART_OF_A_PHRASE.search(words)
