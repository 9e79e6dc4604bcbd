"""VideoRefer-Bench-Q and -D files about the demo's held-out clips: what their masks say, in the benches' own format."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from swim.demo.shapes import PATTERNS
from swim.files import write_atomically

MOST_CLIPS = 40  # five questions each
DIRECTIONS = ("to the left", "to the right", "upwards", "downwards")
PLACES = ("left of it", "right of it", "above it", "below it")
EDGES = ("the left edge", "the right edge", "the top edge", "the bottom edge")


@dataclass(frozen=True)
class Benches:
    bench_q: Path
    bench_d: Path


def write_benches(held_out_json: Path) -> Benches:
    """Writes bench_q.json and bench_d.json beside the demo's held-out records, unless they are there already.

    Bench-Q has one question of each type per clip, Bench-D one description. Videos are relative to the folder.
    """
    benches = Benches(*(held_out_json.parent / name for name in ("bench_q.json", "bench_d.json")))
    made = held_out_json.stat().st_mtime_ns
    if all(path.exists() and path.stat().st_mtime_ns >= made for path in (benches.bench_q, benches.bench_d)):
        return benches
    records = json.loads(held_out_json.read_text())[:MOST_CLIPS]
    questions: list[dict] = []
    descriptions: list[dict] = []
    for number, record in enumerate(records):
        things = [_Track(thing) for thing in record["all_objects"]]
        rng = np.random.default_rng([number, len(records)])
        asked, other = (things[i] for i in rng.permutation(len(things))[:2])
        size_px = asked.size_px
        for kind, question, answer, choices, tracks in _questions(asked, other, size_px):
            questions.append(
                _item(len(questions), record, kind, question, answer, list(rng.permutation(choices)), tracks)
            )
        descriptions.append(_description(number, record, asked))
    for path, items in ((benches.bench_q, questions), (benches.bench_d, descriptions)):
        write_atomically(path, json.dumps(items))
    return benches


class _Track:
    """One object of a clip: phrase, pattern, annotation; centres float[T, 2] (x, y) and area in pixels."""

    def __init__(self, thing: dict):
        self.phrase, self.pattern, self.annotation = thing["phrase"], thing["pattern"], thing["annotation"]
        frames = sorted(self.annotation, key=int)
        masks = np.stack([coco_mask.decode(self.annotation[frame]["segmentation"]) for frame in frames])
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


def _questions(asked: _Track, other: _Track, size_px: int):
    """(type, question, right answer, choices, tracks named) of each type of Bench-Q."""
    yield "Basic Questions", f"What pattern does the {asked.tagged} have?", asked.pattern, PATTERNS, [asked]
    moves = f"In which direction does the {asked.tagged} move from the first frame to the last?"
    yield "Sequential Questions", moves, _toward(asked.movement, DIRECTIONS), DIRECTIONS, [asked]
    where = f"Where is the {asked.tagged}, seen from the {other.tagged}?"
    place = _toward(asked.centres[0] - other.centres[0], PLACES)
    yield "Relationship Questions", where, place, PLACES, [asked, other]
    larger = f"Could the {asked.tagged} be hidden behind the {other.tagged}, going by their areas?"
    sizes = ("Yes, it is smaller", "No, it is larger")
    yield "Reasoning Questions", larger, sizes[int(asked.area > other.area)], sizes, [asked, other]
    future = f"Which edge will the {asked.tagged} reach first if it goes on like this?"
    yield "Future Predictions", future, EDGES[_first_edge(asked, size_px)], EDGES, [asked]


def _toward(vector: np.ndarray, names: tuple[str, ...]) -> str:
    """The name of the axis direction (left, right, up, down) that a vector in pixels, y down, follows most."""
    x, y = vector
    return names[(0 if x < 0 else 1) if abs(x) >= abs(y) else (2 if y < 0 else 3)]


def _first_edge(track: _Track, size_px: int) -> int:
    """Index into EDGES of the edge that the centre reaches first at its present speed."""
    (x, y), (dx, dy) = track.centres[-1], track.movement
    distances = (x, size_px - x, y, size_px - y)
    speeds = (-dx, dx, -dy, dy)
    return int(np.argmin([d / s if s > 0 else np.inf for d, s in zip(distances, speeds)]))


def _item(
    number: int, record: dict, kind: str, question: str, answer: str, choices: list, tracks: list[_Track]
) -> dict:
    options = [f"({letter}) {choice}" for letter, choice in zip("ABCD", choices)]
    return {
        "id": number,
        "video": record["video"],
        "Question": question,
        "options": options,
        "Answer": next(option for option in options if option[4:] == answer),
        "type": kind,
        "frame_idx": tracks[0].first,
        "annotation": [track.annotation for track in tracks],
    }


def _description(number: int, record: dict, track: _Track) -> dict:
    reference = f"The {track.phrase} is {track.pattern} and moves {_toward(track.movement, DIRECTIONS)}."
    return {
        "id": number,
        "video": record["video"],
        "conversations": [
            {"from": "human", "value": f"<video>\nPlease describe the {track.tagged} in the video in detail."},
            {"from": "gpt", "value": reference},
        ],
        "frame_idx": track.first,
        "annotation": [track.annotation],
    }
