"""What a completion is rewarded for, by name."""

import functools
import importlib
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from swim.eval.judge import DIMENSIONS, Case, judge
from swim.eval.letters import parse_letter
from swim.llm import Asker, AskFailed, ServiceRefuses
from swim.train.rollouts import Prompt

# A reward of TRL's signature: for each completion a number, or None where it says nothing.
Reward = Callable[..., list[float | None]]

NAMES = ("answer", "letter", "format", "looks", "judge")
_HIGHEST = 5  # of a judge's score
_OPTION = re.compile(r"^\s*\([A-Z]\)\s*\S.*$", re.MULTILINE)


def make_reward(name: str, pattern: str | None = None, asker: Asker | None = None) -> Reward:
    """The reward of that name: one of NAMES, or package.module:function of one's own.

    answer   1 where the completion is the record's answer, but for case and white space
    letter   1 where it chooses the option that the record's answer chooses, 0 where another or none; None where the
             record's answer chooses none
    format   1 where all of it matches `pattern`
    looks    where the tokens look that name the record's objects: the share of their attention on the object, mean over
             tokens and annotated steps; 0 for a completion that names none, None where nothing is annotated
    judge    the mean of a judge's four scores, over 5; None, and counted, where the judge gives none

    Raises ValueError for an unknown name, a function that cannot be imported, and what a reward lacks.
    """
    if name == "format":
        if pattern is None:
            raise ValueError("format needs format_pattern, a regular expression")
        return _named(name, functools.partial(_format, re.compile(pattern, re.DOTALL)))
    if name == "judge":
        if asker is None:
            raise ValueError("judge needs judge: {model: NAME}")
        return _named(name, functools.partial(_judge, asker))
    if name in NAMES:
        simple: dict[str, Reward] = {"answer": _answer, "letter": _letter, "looks": _looks}
        return _named(name, simple[name])
    return _imported(name)


def _named(name: str, function: Reward) -> Reward:
    """The function under the name that the log shows."""

    def reward(**given) -> list[float | None]:
        return function(**given)

    reward.__name__ = name
    return reward


def _imported(name: str) -> Reward:
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"no reward {name!r}; expected {', '.join(NAMES)} or package.module:function")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
    if not callable(found):
        raise ValueError(f"{name}: expected a function, found {type(found).__name__}")
    return found


def texts_of(completions: Sequence[Sequence[dict]]) -> list[str]:
    return [completion[-1]["content"] for completion in completions]


def _answer(completions, prompt_of: Sequence[Prompt], **_) -> list[float | None]:
    pairs = zip(texts_of(completions), prompt_of)
    return [float(_plain(text) == _plain(prompt.answer)) for text, prompt in pairs]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _letter(completions, prompt_of: Sequence[Prompt], **_) -> list[float | None]:
    return [_chosen_right(text, prompt) for text, prompt in zip(texts_of(completions), prompt_of)]


def _chosen_right(text: str, prompt: Prompt) -> float | None:
    options = [option.strip() for option in _OPTION.findall(prompt.question)]
    wanted = parse_letter(prompt.answer, options) if options else None
    return None if wanted is None else float(parse_letter(text, options) == wanted)


def _format(pattern: re.Pattern, completions, **_) -> list[float | None]:
    return [float(pattern.fullmatch(text) is not None) for text in texts_of(completions)]


def _looks(completion_ids, trainer, **_) -> list[float | None]:
    return trainer.looks(completion_ids)


def _judge(asker: Asker, completions, prompt_of: Sequence[Prompt], log_metric: Callable, **_) -> list[float | None]:
    cases = [
        Case(str(number), prompt.question, prompt.answer, text)
        for number, (text, prompt) in enumerate(zip(texts_of(completions), prompt_of))
    ]
    with ThreadPoolExecutor(asker.endpoint.concurrency) as threads:
        scores = list(threads.map(functools.partial(_judged, asker), cases))
    log_metric("judge_failed", sum(score is None for score in scores) / len(scores))
    return scores


def _judged(asker: Asker, case: Case) -> float | None:
    """A judge that fails once, or refuses everything from now on, says nothing of a completion."""
    try:
        scores: dict[str, Any] = judge(case, asker)
    except (AskFailed, ServiceRefuses):
        return None
    return sum(scores.values()) / (_HIGHEST * len(DIMENSIONS))
