"""What a rewriting must be before its record is accepted: every reason to refuse it has a name."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from swim.construct.align import Phrase, align, is_short, pieces_of
from swim.construct.language import (
    Language,
    changed_language,
    foreign_letters,
    foreign_words,
    guess_language,
    is_unspaced,
    words_of,
)
from swim.construct.tasks import Kind, Task, Text, finish
from swim.data.tags import Span, strip_tags
from swim.errors import DataError

MOST_WORDS_TAGGED = 6
_MARKUP = re.compile(r"<\s*/?\s*(?:object|region)[^>]*>?|\[\s*region|</?ins>", re.IGNORECASE)
_LETTER = re.compile(r"\s*\(?([A-Z])[).:]")
_STEM = 4  # letters that two forms of a word share


class Refusal(StrEnum):
    """Why a reply, or a record, is not accepted."""

    NOT_JSON = "reply is not the JSON asked for"
    PLACEHOLDER = "placeholder left"
    TAGS = "tags malformed"
    NO_PHRASE = "an instance without a phrase of its own"
    NOT_TOLD_APART = "instances not told apart"
    NUMBERING = "phrase of another instance"
    LANGUAGE = "language changed"
    LETTER = "answer letter changed"
    TEXT = "text changed beyond the rewriting"
    UNGROUNDED = "details that the conversation does not give"
    ANSWER_GIVEN = "phrase gives the answer away"
    SYNONYM = "synonym missing or the same"
    INVALID = "not a valid record when rewritten"
    NO_REPLY = "no reply from the model"
    BAD_INPUT = "input record not usable"
    NO_PLACEHOLDER = "nothing to rewrite"
    NO_FRAMES = "frames cannot be read"
    NOT_NAMED = "caption does not name its object"


class Refused(Exception):
    """A rewriting that cannot be accepted; `str(error)` says why, in words for the model."""

    def __init__(self, reason: Refusal, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Rewriting:
    """A reply. nouns: what is tagged, by instance; texts: by number of the task's open texts, both as the model wrote."""

    nouns: dict[int, str]
    texts: dict[int, str]
    synonyms: "Rewriting | None" = None


@dataclass
class _Conversation:
    """What phrases are judged against. with_frames: details may come from the pictures."""

    task: Task
    with_frames: bool
    text: str = field(init=False)
    language: Language | None = field(init=False)
    stems: set[str] = field(init=False)

    def __post_init__(self):
        self.text = " ".join(part for text in self.task.texts for part in text.fixed)
        self.language = guess_language(self.text)
        # The options of a multiple-choice question contradict each other: they are no source.
        sources = [t for t in self.task.texts if self.task.kind is not Kind.BENCH_Q or t.role == "question"]
        self.stems = {word[:_STEM] for text in sources for part in text.fixed for word in words_of(part)}

    def content_words(self, phrase: str) -> list[str]:
        """Its words that carry content: no function words, nor characters of a script without spaces.

        Where the language is unknown, so are its function words: then short words are left out.
        """
        small: frozenset[str] = frozenset()
        shortest = _STEM
        if self.language is not None:
            small, shortest = self.language.function_words, _STEM - 1
        found = [word for word in words_of(phrase) if word not in small and not is_unspaced(word)]
        return [word for word in found if len(word) >= shortest or word.isdigit()]

    def made_up(self, phrase: Phrase) -> list[str]:
        """Content words that nobody has said. What the object is may be inferred: its head noun is free."""
        words = words_of(phrase.noun)
        described = words[1:] if self.language is not None and self.language.noun_first else words[:-1]
        parts = (phrase.before, " ".join(described), phrase.behind)
        return [word for part in parts for word in self.content_words(part) if word[:_STEM] not in self.stems]


def accept(task: Task, rewriting: Rewriting, with_frames: bool = False) -> dict:
    """The finished record of a rewriting that passes every check. Raises Refused."""
    conversation = _Conversation(task, with_frames)
    check_nouns(task, rewriting.nouns, conversation)
    texts = {}
    for number, text in task.open_texts.items():
        if number not in rewriting.texts:
            raise Refused(Refusal.NO_PHRASE, f"text {number} is missing")
        texts[number] = _outer_blanks(text.content, rewriting.texts[number])
        phrases = check_text(number, text, texts[number], conversation)
        check_phrases(number, text, phrases, rewriting.nouns, conversation)
    try:
        return finish(task, texts)
    except DataError as error:
        raise Refused(Refusal.INVALID, error.message) from None


def accept_synonyms(task: Task, rewriting: Rewriting, with_frames: bool = False) -> dict:
    """The record with synonyms, which must pass the same checks and differ from the nouns. Raises Refused."""
    synonyms = rewriting.synonyms or Rewriting({}, {})
    for number in task.objects:
        noun, synonym = rewriting.nouns.get(number, ""), synonyms.nouns.get(number, "")
        if not synonym.strip() or _key(noun) == _key(synonym):
            raise Refused(Refusal.SYNONYM, f"object {number} needs a synonym that differs from {noun!r}")
    return accept(task, synonyms, with_frames)


def check_nouns(task: Task, nouns: dict[int, str], conversation: _Conversation):
    """Each instance has a noun, and no other has the same one. Raises Refused."""
    keys: dict[tuple, int] = {}
    for number in task.objects:
        key = _bare(nouns.get(number, ""), conversation)
        if not key:
            raise Refused(Refusal.NO_PHRASE, f"no noun for object {number}")
        if not is_short(nouns[number], MOST_WORDS_TAGGED):
            raise Refused(Refusal.TEXT, f"object {number}: {nouns[number]!r} is more than a short noun")
        for other, known in keys.items():
            # "dog" may be any of the dogs that "white dog" is one of
            if set(key) <= set(other) or set(other) <= set(key):
                if key[-1] == other[-1]:
                    both = f"{nouns[known]!r} and {nouns[number]!r}"
                    raise Refused(
                        Refusal.NOT_TOLD_APART, f"objects {known} and {number} are called {both}; tell them apart"
                    )
        keys[key] = number


def check_text(number: int, text: Text, rewritten: str, conversation: _Conversation) -> list[Phrase]:
    """The phrases in the place of the placeholders. Raises Refused for any other difference."""
    try:
        plain, spans = strip_tags(rewritten)
    except DataError as error:
        raise Refused(Refusal.TAGS, f"text {number}: {error.message}") from None
    if left := _MARKUP.search(plain):
        raise Refused(Refusal.PLACEHOLDER, f"text {number} still holds {left.group()!r}")
    letter, found = (_LETTER.match(value) for value in (text.content, plain))
    if text.role in ("option", "answer") and letter and not (found and found.group(1) == letter.group(1)):
        raise Refused(Refusal.LETTER, f"text {number} must begin with {letter.group().strip()!r}")
    phrases = align(text.fixed, plain, spans, conversation.language)
    if phrases is None:
        raise _misfit(number, text, plain, spans)
    return phrases


def _misfit(number: int, text: Text, plain: str, spans: list[Span]) -> Refused:
    """Why a rewriting does not hold the fixed parts of its text."""
    around = " ".join(pieces_of(plain, spans))
    if changed := changed_language(" ".join(text.fixed), around):
        return Refused(Refusal.LANGUAGE, f"text {number} has {changed}")
    placeholders, tags = len(text.objects), len(spans)
    if tags != placeholders:
        reason = Refusal.NO_PHRASE if tags < placeholders else Refusal.TAGS
        return Refused(reason, f"text {number} has {placeholders} placeholders but {tags} tagged phrases")
    return Refused(
        Refusal.TEXT, f"text {number} differs from the original by more than a short phrase for each placeholder"
    )


def check_phrases(number: int, text: Text, phrases: list[Phrase], nouns: dict[int, str], conversation: _Conversation):
    """Each phrase names its own instance, in the conversation's language and from its facts. Raises Refused."""
    for instance, phrase in zip(text.objects, phrases):
        where = f"text {number}, object {instance}"
        if _key(phrase.noun) != _key(nouns[instance]):
            raise Refused(Refusal.NUMBERING, f"{where}: the tag holds {phrase.noun!r} instead of {nouns[instance]!r}")
        modifiers = f"{phrase.before} {phrase.behind}"
        foreign = foreign_letters(phrase.text, conversation.text) or foreign_words(modifiers, conversation.text)
        if foreign:
            raise Refused(Refusal.LANGUAGE, f"{where}: {', '.join(foreign)!r} is not the language of the conversation")
        if given := _gives_answer(phrase, conversation):
            raise Refused(Refusal.ANSWER_GIVEN, f"{where}: {given!r} gives an answer away")
        if not conversation.with_frames:
            if made_up := conversation.made_up(phrase):
                raise Refused(Refusal.UNGROUNDED, f"{where}: the conversation says nothing of {', '.join(made_up)!r}")


def _gives_answer(phrase: Phrase, conversation: _Conversation) -> str | None:
    """A word of the phrase that some options have and others have not, and the question has not."""
    if conversation.task.kind is not Kind.BENCH_Q:
        return None
    options = [set(words_of(" ".join(t.fixed))) for t in conversation.task.texts if t.role == "option"]
    telling = set[str]().union(*options) - options[0].intersection(*options)
    words = conversation.content_words(phrase.text)
    return next((w for w in words if w in telling and w[:_STEM] not in conversation.stems), None)


def _bare(noun: str, conversation: _Conversation) -> tuple[str, ...]:
    """The words of a noun without articles."""
    articles = conversation.language.articles if conversation.language is not None else frozenset()
    return tuple(word for word in words_of(noun) if word not in articles)


def _key(noun: str) -> str:
    return noun.strip().casefold()


def _outer_blanks(original: str, rewritten: str) -> str:
    """The rewriting with the original's white space at both ends."""
    stripped = original.strip()
    start = original.find(stripped)
    return original[:start] + rewritten.strip() + original[start + len(stripped) :]
