"""The words of a referring phrase by what they do: its head, its attributes, and how it relates to other things."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from HanTa.HanoverTagger import HanoverTagger

from swim.data.tags import Span

WordClass = Literal["head", "attribute", "relation", "related", "function"]
CLASSES: tuple[WordClass, ...] = ("head", "attribute", "relation", "related", "function")

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
# Ends of a question that say nothing of the object.
_AFTERWARDS = re.compile(r"\bin (?:detail|(?:the|this|that) (?:video|clip|image|picture|scene|frames?))\b", re.I)
_AS_LIKELY = 3.0  # difference of log-likelihoods
_OPENING = re.compile(rf"\s*{_AFTERWARDS.pattern},?", re.I)
# Tags of the BNC's C5 set by their beginnings.
_NOUN, _ADJECTIVE, _NUMBER, _PREPOSITION = ("NN", "NP"), ("AJ",), ("CRD", "ORD"), ("PR",)
_PARTICIPLE, _DETERMINER, _JOINING = ("VVG", "VVN", "VDG", "VHG"), ("AT", "DT", "DPS"), ("CJC", "AV", "TO")


@dataclass(frozen=True)
class ClassedWord:
    """Characters [start, end) of a text."""

    start: int
    end: int
    kind: WordClass


def classed_words(text: str, tag: Span) -> list[ClassedWord]:
    """The words of the English phrase around a tagged noun.

    To the left the phrase takes determiners, numbers, adjectives and nouns; to the right prepositions, a participle, and what
    depends on them, up to a verb, a question word, a comma or an end such as "in detail". The head is the tag's last noun
    before any preposition or participle, or else its last word. Adjectives and nouns before the head are its attributes; those
    after it belong to what it is related to.

    Example: of "the small <ins>dog</ins> on the bed": the function, small attribute, dog head, on relation, the function, bed
    related.
    """
    words = [match.span() for match in _WORD.finditer(text)]
    kinds = [kind for _, _, kind in tagger().tag_sent([text[slice(*word)] for word in words])]
    tagged = [n for n, (start, end) in enumerate(words) if start < tag.end and tag.start < end]
    if not tagged:
        return []
    relation = next((n for n in tagged[1:] if kinds[n].startswith((*_PREPOSITION, *_PARTICIPLE))), tagged[-1] + 1)
    head = next((n for n in reversed(tagged) if n < relation and kinds[n].startswith(_NOUN)), tagged[-1])
    first = tagged[0]
    while first > 0 and _continues_left(kinds[:first]) and not _broken(text, words[first - 1], words[first]):
        first -= 1
    last = tagged[-1]
    while last + 1 < len(words) and not _ends_before(text, words, kinds, last, tagged[-1]):
        last += 1
    return [ClassedWord(*words[n], _class_of(kinds[n], n, head)) for n in range(first, last + 1)]


def subject_of(caption: str) -> str | None:
    """What an English caption begins with: a noun and the adjectives and nouns before it. None where it begins otherwise.

    Example: of "The old man in the car gets up.": old man.
    """
    opening = _OPENING.match(caption)
    words = [match.span() for match in _WORD.finditer(caption, opening.end() if opening else 0)]
    kinds = [kind for _, _, kind in tagger().tag_sent([caption[slice(*word)] for word in words])] if words else []
    first = next((n for n, kind in enumerate(kinds) if kind.startswith(_NOUN)), None)
    before = (*_ADJECTIVE, *_NUMBER, *_DETERMINER, *_PARTICIPLE, "CJC")
    if first is None or not all(kind.startswith(before) for kind in kinds[:first]):
        return None
    last = first
    while last + 1 < len(words) and kinds[last + 1].startswith(_NOUN):
        if _broken(caption, words[last], words[last + 1]) or _may_be_a_verb(caption[slice(*words[last + 1])]):
            break
        last += 1
    tag = Span(words[first][0], words[last][1], caption[words[first][0] : words[last][1]])
    start = words[0][0]
    named = [
        word
        for word in classed_words(caption, tag)
        if start <= word.start < tag.end and word.kind in ("attribute", "head")
    ]
    begins = named[0].start
    is_name = any(word[0] == begins and kind.startswith("NP") for word, kind in zip(words, kinds))
    return (caption[begins] if is_name else caption[begins].lower()) + caption[begins + 1 : tag.end]


def _may_be_a_verb(word: str) -> bool:
    """Whether a word alone is about as likely a finite verb as a noun: "walks", but not "lights"."""
    readings = tagger().tag_word(word.lower())
    verbs = [likelihood for kind, likelihood in readings if kind in ("VVZ", "VVB")]
    return bool(verbs) and max(verbs) > readings[0][1] - _AS_LIKELY


def _class_of(kind: str, place: int, head: int) -> WordClass:
    if place == head:
        return "head"
    if kind.startswith((*_NOUN, *_ADJECTIVE, *_NUMBER)):
        return "attribute" if place < head else "related"
    return "relation" if kind.startswith((*_PREPOSITION, *_PARTICIPLE)) else "function"


def _continues_left(kinds: list[str]) -> bool:
    """Whether the last of the words before a phrase belongs to it."""
    if kinds[-1].startswith("CJC"):  # "black and white"
        return len(kinds) > 1 and kinds[-2].startswith(_ADJECTIVE)
    return kinds[-1].startswith((*_NOUN, *_ADJECTIVE, *_NUMBER, *_DETERMINER, *_PARTICIPLE))


def _ends_before(text: str, words: list[tuple[int, int]], kinds: list[str], place: int, head: int) -> bool:
    """Whether the phrase ends with the word at `place`."""
    following = kinds[place + 1]
    if _broken(text, words[place], words[place + 1]) or _AFTERWARDS.match(text, words[place + 1][0]):
        return True
    if place == head:  # "dog on", "dog lying", but no second noun: "dog food" would have been tagged whole
        return not following.startswith((*_PREPOSITION, *_PARTICIPLE))
    if following.startswith(_PARTICIPLE):
        return not kinds[place].startswith("CJ")
    goes_on = (*_NOUN, *_ADJECTIVE, *_NUMBER, *_DETERMINER, *_PREPOSITION, *_JOINING)
    return not following.startswith(goes_on)


def _broken(text: str, word: tuple[int, int], following: tuple[int, int]) -> bool:
    """Whether more than white space stands between two words."""
    return bool(text[word[1] : following[0]].strip())


@cache
def tagger() -> HanoverTagger:
    """Of English, its tags those of the BNC (C5)."""
    return HanoverTagger("morphmodel_en.pgz")
