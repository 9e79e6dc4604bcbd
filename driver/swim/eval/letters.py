"""Which option a reply to a multiple-choice question chooses."""

import re
import unicodedata

PARSERS = ("strict", "released")

# A letter and nothing else: A  (a)  A.  A)
_ALONE = re.compile(r"\(?([A-Za-z])\)?[.:]?")
# A letter set off as an option's, then its text: (A) A helmet   B. Nasa
_LEADING = re.compile(r"(?:\(([A-Za-z])\)|([A-Z])[.):])\s+\S.*", re.DOTALL)
# "The answer is A", "Option: (b)"; a lone small "a" behind "is" would be an article.
_STATED = re.compile(r"\b(?i:answer|option|choice)\b(?:\s+is\b)?\s*:?\s*(?:\(([A-Za-z])\)|([A-Z])\b(?![’']))")
_BRACKETED = re.compile(r"\(([A-Za-z])\)")
_DECORATION = str.maketrans("", "", '*_`"“”')


def parse_letter(reply: str, options: list[str], parser: str = "strict") -> str | None:
    """The letter, upper case, that `reply` chooses among `options` ("(A) A helmet", ...); None when it names none.

    strict: a letter alone, a letter in front of its option, "the answer is A", or the words of exactly one option. A
    reply that brackets two different letters chooses none. released: the rule of the paper's own script, kept to
    compare with its numbers; it takes "An umbrella" for A and "(a)" for nothing.
    Raises ValueError for an unknown parser.
    """
    if parser == "released":
        return _released(reply)
    if parser != "strict":
        raise ValueError(f"parser: expected one of {', '.join(PARSERS)}, found {parser!r}")
    letters = [letter_of(option) for option in options]
    text = unicodedata.normalize("NFKC", reply).translate(_DECORATION).strip()
    found = _strict(text, options)
    return found if found in letters else None


def letter_of(option: str) -> str:
    """The letter of "(A) A helmet". Raises ValueError for an option without one."""
    match = re.match(r"\(([A-Z])\)", option.strip())
    if match is None:
        raise ValueError(f'expected an option such as "(A) A helmet", found {option!r}')
    return match.group(1)


def _strict(text: str, options: list[str]) -> str | None:
    alone = _ALONE.fullmatch(text)
    if alone:
        return alone.group(1).upper()
    if len({letter.upper() for letter in _BRACKETED.findall(text)}) > 1:
        return None
    leading = _LEADING.fullmatch(text)
    if leading:
        return (leading.group(1) or leading.group(2)).upper()
    stated = {(first or second).upper() for first, second in _STATED.findall(text)}
    if stated:
        return stated.pop() if len(stated) == 1 else None
    named = {letter_of(option) for option in options if _words(option.strip()[3:]) == _words(text)}
    return named.pop() if len(named) == 1 else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _released(reply: str) -> str | None:
    match = re.search(r"\(([A-Z])\)", reply) or re.search(r"([A-Z])\)", reply)
    if match:
        return match.group(1)
    first = reply.replace(".", "")[:1]
    return first.upper() or None
