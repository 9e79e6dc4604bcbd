"""Conversations about a clip for a model that can talk: answers and descriptions in sentences, and Bench-Q's types."""

import numpy as np

from swim.data.tags import strip_tags
from swim.demo.facts import DESCRIBE, WHAT_PATTERN, Track, choices_about, description, is_there
from swim.prompts import LETTERS, bench_q_prompt

ANSWER = "The {} is {}."
QUESTIONS = 3  # of a conversation: one look at the clip serves them all


def talk_record(tracks: list[Track], video: str, rng: np.random.Generator) -> dict:
    """A record of QUESTIONS questions with their answers about objects drawn by lot.

    As often each: the pattern, a description, multiple choice with options in an order drawn by lot (every second one of
    them about the pattern). After the first question also about the whole clip, with no object named to look at: whether
    there is such a one.
    """
    turns: list[str] = []
    for number in range(QUESTIONS):
        asked, other = (tracks[i] for i in rng.permutation(len(tracks))[:2])
        kind = rng.integers(3 if number == 0 else 4)
        if kind == 0:
            turns += _told(asked)
        elif kind == 1:
            turns += _described(asked, other)
        elif kind == 2:
            turns += _chosen(asked, other, rng)
        else:
            turns += is_there([track.phrase for track in tracks], rng.random() < 0.5, rng)
    speakers = ("human", "gpt") * QUESTIONS
    conversations = [{"from": speaker, "value": text} for speaker, text in zip(speakers, turns)]
    conversations[0]["value"] = "<video>\n" + conversations[0]["value"]
    place = {track.phrase: number for number, track in enumerate(tracks)}
    return {
        "video": video,
        "conversations": conversations,
        "annotation": [track.annotation for track in tracks],
        "mentions": [place[span.phrase] for text in turns for span in strip_tags(text)[1]],
    }


def _told(asked: Track) -> tuple[str, str]:
    return WHAT_PATTERN.format(asked.tagged), ANSWER.format(asked.tagged, asked.pattern)


def _described(asked: Track, other: Track) -> tuple[str, str]:
    return DESCRIBE.format(asked.tagged), description(asked, other)


def _chosen(asked: Track, other: Track, rng: np.random.Generator) -> tuple[str, str]:
    """The answer's sentence comes first: the letter follows from it."""
    basic, *others = choices_about(asked, other)
    choice = basic if rng.random() < 0.5 else others[rng.integers(len(others))]
    options = [str(option) for option in rng.permutation(choice.choices)]
    letter = LETTERS[options.index(choice.answer)]
    return bench_q_prompt(choice.question, options), f"{choice.sentence}: ({letter})."
