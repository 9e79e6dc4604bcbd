"""A language model as judge: four integer scores for a description against its reference, by text alone."""

import json
import re
from dataclasses import dataclass

from swim.llm import Asker, AskFailed, estimate_tokens

# Raise it whenever a word of the prompt changes: scores of different versions are not comparable.
PROMPT_VERSION = "1"
DIMENSIONS = (
    "Subject Correspondence",
    "Appearance Description",
    "Temporal Description",
    "Hallucination Detection",
)
RULES = """\
You grade how well a description of one object in a video agrees with a reference description of the same object. You \
see the two texts only; take the reference as the truth. Give four whole numbers from 0 (entirely wrong) to 5 (as good as \
the reference):
- Subject Correspondence: is the described object the one of the reference?
- Appearance Description: do looks such as colour, shape, texture and clothing agree?
- Temporal Description: do actions, movements and their order over time agree?
- Hallucination Detection: 5 when nothing is made up; less for each thing that the reference contradicts or cannot support.
Where the reference is silent on an aspect, grade what the description says about it as consistent unless it is made up.
Reply with one JSON object and nothing else, for example \
{"Subject Correspondence": 4, "Appearance Description": 3, "Temporal Description": 2, "Hallucination Detection": 5}."""
SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "integer", "enum": [0, 1, 2, 3, 4, 5]} for name in DIMENSIONS},
    "required": list(DIMENSIONS),
    "additionalProperties": False,
}
ATTEMPTS = 3
REPLY_TOKENS = 60  # what a reply costs, for estimates


class UnusableReply(ValueError):
    """A judge's reply without four scores; `str(error)` says what is wrong, in words for the judge."""


@dataclass(frozen=True)
class Case:
    """One item to judge. All texts without tags."""

    id: str
    question: str
    reference: str
    prediction: str


def messages_of(case: Case) -> list[dict]:
    texts = f"Question: {case.question}\n\nReference description: {case.reference}\n\nDescription to grade: {case.prediction}"
    return [{"role": "system", "content": RULES}, {"role": "user", "content": texts}]


def judge(case: Case, asker: Asker) -> dict[str, int]:
    """The four scores. A reply that cannot be used is shown to the judge with the reason, ATTEMPTS times in all.

    Raises swim.llm.AskFailed when there is no usable reply, ServiceRefuses when there will be none any more.
    """
    messages = messages_of(case)
    for _ in range(ATTEMPTS):
        reply = asker.ask(messages, SCHEMA)
        try:
            return parse_scores(reply.text)
        except UnusableReply as error:
            problem = f"{error} (cut off at max_tokens)" if reply.cut_off else str(error)
        again = (
            f"That reply cannot be used: {problem}. Reply with the JSON object alone, four whole numbers from 0 to 5."
        )
        messages = [*messages, {"role": "assistant", "content": reply.text}, {"role": "user", "content": again}]
    raise AskFailed(f"no usable reply in {ATTEMPTS} attempts: {problem}")


def parse_scores(reply: str) -> dict[str, int]:
    """{dimension: 0 to 5} from a JSON object, alone, fenced or inside prose, else from "Dimension: 4" lines.

    Raises UnusableReply for a missing dimension, one with two different scores, or a score that is no integer from 0 to 5.
    """
    found = _from_json(reply) or _from_lines(reply)
    missing = [name for name in DIMENSIONS if name not in found]
    if missing:
        raise UnusableReply(f"no score for {', '.join(missing)}")
    return {name: _as_score(name, found[name]) for name in DIMENSIONS}


def _from_json(reply: str) -> dict:
    """The last JSON object in the reply that holds a dimension; {} without one."""
    decoder, found = json.JSONDecoder(), {}
    for start in (match.start() for match in re.finditer(r"\{", reply)):
        try:
            value, _ = decoder.raw_decode(reply[start:])
        except (ValueError, RecursionError):
            continue
        scores = _known(value)
        if scores:
            found = scores
    return found


def _known(value) -> dict:
    """The entries of a JSON object that are dimensions, whatever case and separators its keys have."""
    names = {_plain(name): name for name in DIMENSIONS}
    return {names[_plain(key)]: score for key, score in value.items() if _plain(key) in names}


def _from_lines(reply: str) -> dict:
    """ "**Subject Correspondence**: 4/5" and the like; a dimension with two different numbers is refused."""
    found = {}
    for name in DIMENSIONS:
        words = r"[\s_*-]*".join(name.split())
        pattern = (
            rf"{words}[\s*_\"'`]*(?:score)?[\s*_\"'`]*(?:[:=\-–—|]|\bis\b)[\s*_\"'`]*(-?\d+(?:\.\d+)?)(?:\s*/\s*5\b)?"
        )
        numbers = {float(number) for number in re.findall(pattern, reply, re.IGNORECASE)}
        if len(numbers) > 1:
            raise UnusableReply(f"two scores for {name}")
        if numbers:
            found[name] = numbers.pop()
    return found


def _as_score(name: str, value) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*", value):
        value = int(value)
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1
    if not whole or not 0 <= value <= 5:
        raise UnusableReply(f"{name} is {str(value)[:20]}, not a whole number from 0 to 5")
    return int(value)


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def estimate(cases: list[Case]) -> tuple[int, int]:
    """About how many (prompt, completion) tokens judging the cases takes when every first reply is usable."""
    return sum(estimate_tokens(messages_of(case)) for case in cases), REPLY_TOKENS * len(cases)
