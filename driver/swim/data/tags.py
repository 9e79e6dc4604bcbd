"""`<ins>...</ins>` tags: to character spans and to the instances that they name."""

import re
from dataclasses import dataclass

from swim.errors import DataError, Reason

_TAG = re.compile(r"<(/?)ins>")


@dataclass(frozen=True)
class Span:
    """A tagged phrase: characters [start, end) of the text without tags."""

    start: int
    end: int
    phrase: str


def strip_tags(text: str) -> tuple[str, list[Span]]:
    """The text without tags and the span of each tag, in order.

    Example: "a <ins>dog</ins>." -> ("a dog.", [Span(2, 5, "dog")]).
    Raises DataError for an unclosed, unopened, nested or empty tag.
    """
    clean, spans, opened, read = "", [], None, 0
    for tag in _TAG.finditer(text):
        clean += text[read : tag.start()]
        read = tag.end()
        if not tag.group(1):
            if opened is not None:
                raise _misfit(
                    f"nested <ins> at character {tag.start()} of {_shorten(text)}; close the first tag before"
                )
            opened = len(clean)
            continue
        if opened is None:
            raise _misfit(f"</ins> without <ins> at character {tag.start()} of {_shorten(text)}")
        phrase = clean[opened:]
        if not phrase.strip():
            raise _misfit(
                f"empty <ins></ins> at character {tag.start()} of {_shorten(text)}; put the noun between the tags"
            )
        spans.append(Span(opened, len(clean), phrase))
        opened = None
    if opened is not None:
        raise _misfit(f"unclosed <ins> in {_shorten(text)}; add </ins> after the noun")
    return clean + text[read:], spans


def assign_instances(phrases: list[str], instances: int, mentions: list[int] | None = None) -> list[int]:
    """The instance that each tagged phrase names; phrases are compared after strip and casefold.

    With `mentions` the i-th tag names instance mentions[i]. With one instance every tag names it. Otherwise the i-th
    distinct phrase names instance i; with fewer distinct phrases than instances and as many tags as instances, the
    i-th tag names instance i (two dogs, both called "dog").
    Examples: ["dog", "Cat", "dog "], 2 -> [0, 1, 0];  ["dog", "dog"], 2 -> [0, 1].
    Raises DataError for any other mismatch.
    """
    if mentions is not None:
        fits = isinstance(mentions, list) and all(type(m) is int and 0 <= m < instances for m in mentions)
        if not fits or len(mentions) != len(phrases):
            raise _misfit(
                f'"mentions" must hold one instance index from 0 to {instances - 1} for each of the {len(phrases)} tags, '
                f"found {mentions}"
            )
        return mentions
    if instances == 1:
        return [0] * len(phrases)
    keys = [phrase.strip().casefold() for phrase in phrases]
    distinct = list(dict.fromkeys(keys))
    if len(distinct) == instances:
        return [distinct.index(key) for key in keys]
    if len(distinct) < instances and len(phrases) == instances:
        return list(range(instances))
    raise _misfit(
        f"{len(distinct)} distinct tagged phrases {distinct} in {len(phrases)} tags do not fit {instances} annotated "
        'instances; tag every instance, or add "mentions", the instance index of each tag in order'
    )


def _misfit(message: str) -> DataError:
    return DataError(message, reason=Reason.TAGS)


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
