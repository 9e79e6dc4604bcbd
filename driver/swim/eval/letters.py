"""Which option a reply to a multiple-choice question chooses.

The strict parser reads what a careful reader would, by rule: a reply that weighs options, denies one, corrects itself or
asks back has chosen nothing unless it says at last which one it is.
"""

import re
import unicodedata

from swim.replies import without_reasoning

PARSERS = ("strict", "released")

_DECORATION = str.maketrans("", "", '*_`"“”„«»#$')
_SPECIAL = re.compile(r"</?s>|<\|[^|<>]*\|>")  # of chat templates, where a server leaves them
_WRAPPED = re.compile(
    r"<answer>(.*?)</answer>|\\boxed\s*\{\s*(?:\\(?:text|mathrm|textbf)\s*\{)?([^{}]*)\}", re.I | re.S
)
# (B)  [B]  【B】  of any letter; not the (s) of "person(s)"
_BRACKETED = re.compile(r"(?<!\w)[(\[【]\s*([A-Za-z])\s*[)\]】]")
# A letter and nothing else: A  (a)  A.  A)  B。
_ALONE = re.compile(r"[(\[【]?\s*([A-Za-z])\s*[)\]】]?\s*[.:,;!。,、)]*")
# A letter set off in front of its option: (A) A helmet   B. Nasa   B - A scarf   C、伞
_LEADING = re.compile(
    r"(?:[(\[【]([A-Za-z])[)\]】]\s*[.:,;-]?\s*|([A-Z])(?:[.):,;、。]\s*|\s+[-–—]\s+)|([a-z])\)\s*)(\S.*)"
)
_INITIALS = re.compile(r"[A-Z]\.")  # "A.I. robot" begins with no option
# What turns a letter in front into the subject of a sentence that may say anything of it.
_SUBJECT = re.compile(
    r"(?:is|isn.?t|was|are|can|can.?t|cannot|could|might|may|would|should|does|doesn.?t|seems|looks|or|and|vs|nor|but|"
    r"ist|sind|kann|könnte|oder|und|es|puede|podría|est|peut|ou|et)\b|[是不或和与错]",
    re.I,
)
_ENDS = r"(?![A-Za-zÀ-ÿ0-9_’'])"  # Chinese goes on without a space
_UPPER = rf"[(\[【]\s*([A-Za-z])\s*[)\]】]|([A-Z]){_ENDS}"
_LETTER = rf"(?-i:{_UPPER}|([b-z])(?=\s*(?:[.,;!)。,]|$))|(a)(?=\s*[.,;!)。,]))"  # "The answer is a" may be cut off
_OPTION = r"(?:(?:the\s+)?(?:option|choice|letter|answer|number|die|la|l['’]|opción|opcion|letra|réponse|antwort|选项|选择)\s*)?"
# Words that say that what follows is the answer.
_SAYS = (
    r"\b(?:answer|ans|answers?\s+key|solution)\b\s*(?:(?:is|was|would\s+be|should\s+be|must\s+be)\b|[:=–—-])?\s*[:=]?\s*",
    r"\bcorrect\s*(?:answer|option|choice|one|letter)?\s*(?:(?:is|would\s+be|should\s+be|must\s+be)\b|:)\s*:?\s*",
    r"\b(?:option|choice)\s+(?:is|:)\s*",
    r"\bi(?:['’](?:d|ll)|\s+would|\s+will|\s+have\s+to)?\s+(?:choose|chose|pick|select|go\s+with|answer|say|opt\s+for|vote\s+for)\s+",
    r"\b(?:it\s+is|it['’]s|it\s+must\s+be|that\s+is|that['’]s|this\s+is)\s+(?=(?-i:[(\[【A-Z]|option|choice))",
    r"\b(?:die\s+)?(?:richtige\s+)?(?:antwort|lösung)\s*(?:(?:ist|lautet|wäre)\b|:)?\s*:?\s*",
    r"\b(?:richtig|korrekt)\s+ist\s+|\bich\s+(?:wähle|nehme|antworte)\s+(?:mit\s+)?",
    r"\b(?:la\s+)?(?:respuesta|opción|opcion|alternativa)\s*(?:correcta\s*)?(?:(?:es|sería)\b|:)\s*:?\s*(?:la\s+)?",
    r"\b(?:yo\s+)?(?:elijo|escojo|selecciono|eligo)\s+(?:la\s+)?",
    r"\b(?:la\s+)?(?:bonne\s+)?réponse\s*(?:correcte\s*)?(?:(?:est|serait)\b|:)\s*:?\s*(?:la\s+)?|\bje\s+choisis\s+(?:la\s+)?",
    r"(?:正确)?(?:答案|选项)(?:应该|应)?(?:是|为|选)?\s*[::]?\s*|(?:我|应|应该|所以|因此|故)?选(?:择)?\s*",
)
_STATED = re.compile("|".join(f"(?:{says})" for says in _SAYS).join(("(?:", ")")) + _OPTION + _LETTER, re.I)
_SAYS_ALONE = re.compile(rf"\s*(?:the\s+|my\s+|la\s+)?(?:{'|'.join(_SAYS)})", re.I)
_CORRECT = re.compile(
    rf"(?-i:(?<![\w’']){_UPPER})\s*(?:is|would\s+be|ist|es|est|是)\s*(?:the\s+|die\s+|la\s+)?"
    r"(?:correct|right|best|richtig|korrekt|correcta|correcte|正确|对的)",
    re.I,
)
_NEGATION = re.compile(
    r"\b(?:not|no|never|neither|nor|none|cannot|without|nicht|kein\w*|weder|nunca|ni|ninguna|pas|aucune)\b|n['’]t\b|[不没非别勿]",
    re.I,
)
_DENIAL = re.compile(
    r"\b(?:wrong|incorrect|false|eliminat\w*|exclud\w*|rul\w+\s+out|reject\w*|discard\w*|unlikely|falsch|ausgeschlossen|"
    r"incorrect[ao]|descart\w*|fausse?)\b|[错误]|排除",
    re.I,
)
_HEDGE = re.compile(
    r"\b(?:either|maybe|perhaps|possibl\w+|could|might|may|both|all|any|unsure|not\s+sure|vielleicht|könnte|entweder|beide|"
    r"tal\s+vez|quizás?|podría|ambas|peut-être)\b|可能|也许|或许|或|还是|都",
    re.I,
)
_BRANCH = re.compile(r"\b(?:otherwise|else|unless|sonst|de\s+lo\s+contrario|sinon)\b|否则", re.I)
_CORRECTION = re.compile(
    r"\b(?:wait|actually|scratch\s+that|i\s+mean|on\s+second\s+thought|correction|sorry|nein|moment|doch|espera|perdón|"
    r"mejor\s+dicho)\b|\?\s*no\b[,.]|不对|等等|哦不|更正",
    re.I,
)
_JOINED = re.compile(
    r"\s*[)\]】]?\s*(?:(?:,\s*)?(?:or|and|&|/|oder|und|o|y|ou|et|或者?|和|还是|以及|、)\s*(?:\w+\s+){0,2}"
    r"|,\s*(?=[(\[]?[A-Z][)\]]?\s*(?:[,.;]|$|or\b|and\b)))[(\[【]?([A-Z])(?![A-Za-zÀ-ÿ0-9_’'])(?!\s*[)\]】]?\s+(?:is|was|ist|es)\b)"
)
_NOT_THAT = re.compile(
    r",?\s*(?:and\s+|und\s+|y\s+|而)?(?:not|rather\s+than|instead\s+of|nicht|no|pas|不是|而不是)\s*(?:option\s+|选项)?"
    r"(?:[(\[【]\s*[A-Za-z]\s*[)\]】]|[A-Z](?![\w’']))",
    re.I,
)
_BECAUSE = re.compile(r"(?:because|since|as|for|given|based|due|which|weil|da|porque|ya|car|因为)\b", re.I)
_LONE = re.compile(rf"(?<![A-Za-zÀ-ÿ0-9_’'.])([A-Z]){_ENDS}")


def parse_letter(reply: str, options: list[str], parser: str = "strict") -> str | None:
    """The letter, upper case, that `reply` chooses among `options` ("(A) A helmet", ...); None when it names none.

    strict, after thinking such as <think>...</think>: a letter alone, or on a line of its own; a letter in front of its
    option; what the reply says to be the answer, in English, Chinese, German, Spanish or French; the words of exactly one
    option; one bracketed letter where nothing is denied. released: the rule of the paper's own script, kept to compare
    with its numbers; it takes "An umbrella" for A and "(a)" for nothing. Raises ValueError for an unknown parser.
    """
    if parser == "released":
        return _released(reply)
    if parser != "strict":
        raise ValueError(f"parser: expected one of {', '.join(PARSERS)}, found {parser!r}")
    text = _SPECIAL.sub("", unicodedata.normalize("NFKC", without_reasoning(reply)))
    wrapped = [first or second for first, second in _WRAPPED.findall(text)]
    texts = [part.translate(_DECORATION).strip() for part in wrapped or [text]]
    found = {_Reader(options).read(text) for text in texts}
    return found.pop() if len(found) == 1 else None


def letter_of(option: str) -> str:
    """The letter of "(A) A helmet". Raises ValueError for an option without one."""
    match = re.match(r"\(([A-Z])\)", option.strip())
    if match is None:
        raise ValueError(f'expected an option such as "(A) A helmet", found {option!r}')
    return match.group(1)


class _Reader:
    """Reads replies to one question. options: as in `parse_letter`."""

    def __init__(self, options: list[str]):
        self.words = {letter_of(option): _words(option.strip()[3:]) for option in options}

    def read(self, text: str) -> str | None:
        corrections = list(_CORRECTION.finditer(text))
        if corrections and self._mentions(text[corrections[-1].end() :]):
            text = text[corrections[-1].end() :].strip(" ,.:;")
        lines = [line for raw in text.splitlines() if (line := raw.strip(" \t-•>"))]
        if not lines:
            return None
        stated = self._stated(text)
        if len(stated) > 1 or None in stated:
            return None
        in_front = self._in_front(lines)
        if stated:
            return stated.pop() if in_front is None or in_front in stated else None
        return in_front or self._named(text) or self._only_mention(text)

    def _in_front(self, lines: list[str]) -> str | None:
        """The letter that stands on a line of its own, or in front of what the first line says."""
        alone = {match.group(1).upper() for line in lines if (match := _ALONE.fullmatch(line))} & self.words.keys()
        if len(alone) > 1:
            return None
        if alone and (_ALONE.fullmatch(lines[0]) or _ALONE.fullmatch(lines[-1])):
            return alone.pop()
        leading = _LEADING.fullmatch(lines[0])
        if leading and not lines[0].endswith("?"):
            letter, rest = next(group for group in leading.groups()[:3] if group).upper(), leading.group(4)
            return letter if letter in self.words and self._may_follow(letter, rest, lines[1:]) else None
        letter, _, rest = lines[0].partition(" ")
        if letter in self.words and (_words(rest) == self.words[letter] or _BECAUSE.match(rest)):
            return letter
        return None

    def _may_follow(self, letter: str, rest: str, below: list[str]) -> bool:
        """Is `rest` what one writes after the letter of an option that one chooses?"""
        words, own = _words(rest), self.words[letter]
        if words != own and (_INITIALS.match(rest) or _SUBJECT.match(rest)):
            return False
        behind = " ".join(words[len(own) :]) if words[: len(own)] == own else ""
        if _SUBJECT.match(behind) and (_NEGATION.search(rest) or _DENIAL.search(rest)):
            return False
        others = self._mentions(_NOT_THAT.sub("", rest)) - {letter}
        listed = {match.group(1) or match.group(2) for line in below if (match := _LEADING.fullmatch(line))}
        return not others and not (listed & self.words.keys()) - {letter}

    def _stated(self, text: str) -> set[str | None]:
        """The letters that the reply says to be the answer; None among them where it says so of several."""
        found: set[str | None] = set()
        if _BRANCH.search(text) and len(self._mentions(text)) > 1:
            return {None}
        for match in [*_STATED.finditer(text), *_CORRECT.finditer(text)]:
            written = next((group for group in match.groups() if group), "")
            letter = written.upper()
            if letter not in self.words:
                continue
            before, after = _sentence_around(text, match)
            if (
                after.endswith("?")
                or _NEGATION.search(" ".join(before.split()[-4:])[-24:])
                or _NEGATION.search(match.group())
            ):
                continue
            tail = text[match.end() :]
            if match.re is _STATED and written in ("A", "I") and not match.group().rstrip().endswith((")", "]", "】")):
                words = re.match(r"\s+(\w.*)", tail)
                if words and not _BECAUSE.match(words.group(1)) and not _NEGATION.match(words.group(1)):
                    letter = self._named(written + tail.split("\n")[0])  # an article
                    if letter is None:
                        continue
            joined = _JOINED.match(tail)
            found.add(None if joined and joined.group(1) in self.words and joined.group(1) != letter else letter)
        return found

    def _named(self, text: str) -> str | None:
        """The one option whose words these are, said to be the answer or not."""
        said = _SAYS_ALONE.sub("", text)
        named = [letter for letter, words in self.words.items() if words and words in (_words(text), _words(said))]
        return named[0] if len(named) == 1 else None

    def _only_mention(self, text: str) -> str | None:
        """The one letter that is bracketed, or called an option, in a text that denies and weighs nothing."""
        text = _NOT_THAT.sub("", text)
        if any(pattern.search(text) for pattern in (_NEGATION, _DENIAL, _HEDGE)) or text.rstrip().endswith("?"):
            return None
        called = re.findall(rf"(?:\b(?i:option|choice|opción)\s+|选项\s*)([A-Z]){_ENDS}", text)
        mentioned = {letter.upper() for letter in [*_BRACKETED.findall(text), *called]} & self.words.keys()
        return mentioned.pop() if len(mentioned) == 1 else None

    def _mentions(self, text: str) -> set[str]:
        """Letters of options in a text: bracketed, or upper case by themselves; "A" before a word is an article."""
        lone = {
            match.group(1)
            for match in _LONE.finditer(text)
            if match.group(1) not in "AI"
            or not re.match(r"\s+(?!is\b|was\b|and\b|or\b|because\b)\w", text[match.end() :])
        }
        return (lone | {letter.upper() for letter in _BRACKETED.findall(text)}) & self.words.keys()


def _sentence_around(text: str, match: re.Match) -> tuple[str, str]:
    """What stands before a match in its clause, and the rest of its sentence from where it begins."""
    before = re.split(r"[.,:!?;\n。]", text[: match.start()])[-1]
    line = text[match.end() :].split("\n", 1)[0]
    return before, match.group() + re.split(r"(?<=[.!?。])", line, maxsplit=1)[0]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _released(reply: str) -> str | None:
    match = re.search(r"\(([A-Z])\)", reply) or re.search(r"([A-Z])\)", reply)
    if match:
        return match.group(1)
    first = reply.replace(".", "")[:1]
    return first.upper() or None
