"""What stands in a text for something else: `<ins>...</ins>` tags, and the placeholder of the video or image."""

import re
from dataclasses import dataclass

from swim.errors import DataError, Reason

_TAG = re.compile(r"<(/?)ins>")
# What was meant as a tag, in other letters, with other brackets, or escaped as in HTML or JSON; tags themselves too.
_OPENING, _CLOSING = r"(?:<|＜|&lt;|&#60;|\\u003c)", r"(?:>|＞|&gt;|&#62;|\\u003e)"
_TAG_LIKE = re.compile(
    rf"{_OPENING}\s*[/\\]{{0,2}}\s*ins(?![a-z]).{{0,20}}?{_CLOSING}|{_OPENING}\s*[/\\]{{0,2}}\s*ins\b", re.I | re.S
)
_PLACEHOLDER = r"<\s*(?:video|image)\s*>"
_PLACEHOLDER_LIKE = re.compile(rf"{_OPENING}\s*(?:video|image)\s*/?\s*{_CLOSING}", re.I)


@dataclass(frozen=True)
class Span:
    """A tagged phrase: characters [start, end) of the text without tags."""

    start: int
    end: int
    phrase: str


def strip_tags(text: str) -> tuple[str, list[Span]]:
    """The text without tags and the span of each tag, in order.

    Example: "a <ins>dog</ins>." -> ("a dog.", [Span(2, 5, "dog")]).
    Raises DataError for an unclosed, unopened, nested or empty tag, and for what is almost a tag, such as <INS>.
    """
    _refuse_almost_tags(text)
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


def strip_placeholders(text: str) -> tuple[str, int]:
    """A question without the placeholders of its video or image, and how many there were besides the one that may lead.

    One <video> or <image>, and a line break after it, may stand at the very start. Others are removed, with the white
    space around them, where they can be nothing else: at either end of the text.
    Examples: "<video>\\nWhat?" -> ("What?", 0);  " <video>\\n<video> What?\\n<image>" -> ("What?", 3).
    Raises DataError for one inside the text, and for what is almost one.
    """
    stray = 0
    for leading in ("<video>", "<image>"):
        if text.startswith(leading):
            text = text.removeprefix(leading).removeprefix("\n")
            break
    while found := re.match(rf"\s*{_PLACEHOLDER}\s*", text, re.I) or re.search(rf"\s*{_PLACEHOLDER}\s*\Z", text, re.I):
        text = text[: found.start()] + text[found.end() :]
        stray += 1
    refuse_placeholders(text)
    return text, stray


def refuse_placeholders(text: str):
    """Raises DataError for a placeholder in a text that can hold none."""
    found = _PLACEHOLDER_LIKE.search(text)
    if found:
        raise DataError(
            f"the placeholder {found.group()} at character {found.start()} of {_shorten(text)} would be read as words; the "
            "video or image stands at the start of the question by itself: remove the placeholder"
        )


def _refuse_almost_tags(text: str):
    for found in _TAG_LIKE.finditer(text):
        if not _TAG.fullmatch(found.group()):
            shown = _shorten(found.group())
            raise _misfit(
                f"{shown} at character {found.start()} of {_shorten(text)} is almost a tag; write <ins>noun</ins>"
            )


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
