"""What is true of a demo clip, by its masks: patterns, movements, places, sizes; and Bench-Q's questions about them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from swim.demo.shapes import COLOURS, PATTERNS

# Questions about one object: the open one about its pattern, and Bench-D's.
WHAT_PATTERN = "What pattern does the {} have?"
DESCRIBE = "Please describe the {} in the video in detail."

DIRECTIONS = ("to the left", "to the right", "upwards", "downwards")
PLACES = ("left of it", "right of it", "above it", "below it")
SIDES = ("On its left", "On its right", "Above it", "Below it")  # PLACES from the other object's point of view
EDGES = ("the left edge", "the right edge", "the top edge", "the bottom edge")
SIZES = ("much smaller", "a little smaller", "a little larger", "much larger")
MUCH = 1.2  # ratio of two areas; about half of the pairs differ by more


class Track:
    """One object of a clip: phrase, pattern, annotation; centres float[T, 2] (x, y) and area in pixels."""

    def __init__(self, phrase: str, pattern: str, annotation: dict):
        self.phrase, self.pattern, self.annotation = phrase, pattern, annotation
        frames = sorted(annotation, key=int)
        masks = np.stack([coco_mask.decode(annotation[frame]["segmentation"]) for frame in frames])
        self.size_px = masks.shape[2]
        self.first = frames[0]
        self.centres = np.array([np.argwhere(mask).mean(0)[::-1] + 0.5 for mask in masks])
        self.area = masks.sum() / len(masks)

    @property
    def tagged(self) -> str:
        return f"<ins>{self.phrase}</ins>"

    @property
    def movement(self) -> np.ndarray:
        return self.centres[-1] - self.centres[0]

    @property
    def direction(self) -> str:
        return _toward(self.movement, DIRECTIONS)

    def place_from(self, other: "Track") -> str:
        """Where this object is in the first annotated frame, seen from another one."""
        return _toward(self.centres[0] - other.centres[0], PLACES)

    def side_of(self, other: "Track") -> str:
        """The same as a sentence about the other object begins."""
        return SIDES[PLACES.index(self.place_from(other))]


class Choice(NamedTuple):
    """A multiple-choice question of Bench-Q.

    kind: its type. answer: one of choices. sentence: what the answer says, tagged. tracks: the objects that the question
    names, in order.
    """

    kind: str
    question: str
    answer: str
    choices: Sequence[str]
    sentence: str
    tracks: list[Track]


def choices_about(asked: Track, other: Track) -> Iterator[Choice]:
    """A question of each of Bench-Q's types, tagged."""

    def choice(kind: str, question: str, answer: str, choices: Sequence[str], says: str, *tracks: Track) -> Choice:
        return Choice(kind, question, answer, choices, f"The {asked.tagged} {says}", list(tracks))

    yield choice(
        "Basic Questions", WHAT_PATTERN.format(asked.tagged), asked.pattern, PATTERNS, f"is {asked.pattern}", asked
    )

    question = f"In which direction does the {asked.tagged} move from the first frame to the last?"
    yield choice("Sequential Questions", question, asked.direction, DIRECTIONS, f"moves {asked.direction}", asked)

    question = f"Where is the {asked.tagged}, seen from the {other.tagged}?"
    place = asked.place_from(other)
    says = f"is {place.removesuffix('it')}the {other.tagged}"
    yield choice("Relationship Questions", question, place, PLACES, says, asked, other)

    question = f"How large is the {asked.tagged}, compared with the {other.tagged}?"
    size = SIZES[int(np.searchsorted([1 / MUCH, 1, MUCH], asked.area / other.area))]
    yield choice("Reasoning Questions", question, size, SIZES, f"is {size} than the {other.tagged}", asked, other)

    question = f"Which edge will the {asked.tagged} reach first if it goes on like this?"
    edge = EDGES[_first_edge(asked)]
    yield choice("Future Predictions", question, edge, EDGES, f"will reach {edge} first", asked)


def description(asked: Track, other: Track) -> str:
    """Appearance, movement and a neighbour of an object in two sentences, tagged."""
    return f"The {asked.tagged} is {asked.pattern} and moves {asked.direction}. {other.side_of(asked)} is the {other.tagged}."


def is_there(phrases: Sequence[str], present: bool, rng: np.random.Generator) -> tuple[str, str]:
    """A question about the whole clip with its answer, untagged: is there such an object? phrases: the clip's objects.

    One that is not there has the shape of one that is, in a colour of none.
    """
    phrase = phrases[int(rng.integers(len(phrases)))]
    if not present:
        colours = [colour for colour in COLOURS if not any(other.startswith(colour) for other in phrases)]
        phrase = f"{colours[int(rng.integers(len(colours)))]} {phrase.split()[1]}"
    a_thing = f"{'an' if phrase.startswith('orange') else 'a'} {phrase}"
    answer = f"Yes, there is {a_thing}." if present else f"No, there is no {phrase}."
    return f"Is there {a_thing} in the video?", answer


def _toward(vector: np.ndarray, names: tuple[str, ...]) -> str:
    """The name of the axis direction (left, right, up, down) that a vector in pixels, y down, follows most."""
    x, y = vector
    return names[(0 if x < 0 else 1) if abs(x) >= abs(y) else (2 if y < 0 else 3)]


def _first_edge(track: Track) -> int:
    """Index into EDGES of the edge that the centre reaches first at its present speed."""
    (x, y), (dx, dy) = track.centres[-1], track.movement
    distances = (x, track.size_px - x, y, track.size_px - y)
    speeds = (-dx, dx, -dy, dy)
    return int(np.argmin([d / s if s > 0 else np.inf for d, s in zip(distances, speeds)]))
