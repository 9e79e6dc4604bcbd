"""VideoRefer-Bench-Q and -D files about the demo's held-out clips: what their masks say, in the benches' own format."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swim.demo.facts import DESCRIBE, WHAT_PATTERN, Choice, Track, choices_about, description
from swim.files import write_atomically
from swim.prompts import letter_options

MOST_CLIPS = 60  # five questions each


@dataclass(frozen=True)
class Benches:
    """held_out: the records that they were made from."""

    bench_q: Path
    bench_d: Path
    held_out: Path


def write_benches(held_out_json: Path, talks: bool = False) -> Benches:
    """Writes bench_q.json and bench_d.json beside the demo's held-out records, unless they are there already.

    Bench-Q has one question of each type per clip, Bench-D one description; every pattern is asked for equally often.
    Videos are relative to the folder. talks: for a model that can; otherwise both ask as the tiny model was taught: the
    options of a type are in one order everywhere, and a description is the answer to the question for the pattern.
    """
    folder = held_out_json.parent
    benches = Benches(folder / "bench_q.json", folder / "bench_d.json", held_out_json)
    made = held_out_json.stat().st_mtime_ns
    if all(path.exists() and path.stat().st_mtime_ns >= made for path in (benches.bench_q, benches.bench_d)):
        return benches
    records = json.loads(held_out_json.read_text())[:MOST_CLIPS]
    questions: list[dict] = []
    descriptions: list[dict] = []
    times_asked = Counter[str]()
    for number, record in enumerate(records):
        rng = np.random.default_rng([number, len(records)])
        tracks = [Track(**record["all_objects"][i]) for i in rng.permutation(len(record["all_objects"]))]
        asked = min(tracks, key=lambda track: times_asked[track.pattern])
        other = next(track for track in tracks if track is not asked)
        times_asked[asked.pattern] += 1
        for choice in choices_about(asked, other):
            if talks:
                choice = choice._replace(choices=list(map(str, rng.permutation(choice.choices))))
            questions.append(_item(len(questions), record, choice))
        descriptions.append(_description(number, record, asked, other, DESCRIBE if talks else WHAT_PATTERN))
    for path, items in ((benches.bench_q, questions), (benches.bench_d, descriptions)):
        write_atomically(path, json.dumps(items))
    return benches


def _item(number: int, record: dict, choice: Choice) -> dict:
    options = letter_options(choice.choices)
    return {
        "id": number,
        "video": record["video"],
        "Question": choice.question,
        "options": options,
        "Answer": options[choice.choices.index(choice.answer)],
        "type": choice.kind,
        "frame_idx": choice.tracks[0].first,
        "annotation": [track.annotation for track in choice.tracks],
    }


def _description(number: int, record: dict, asked: Track, other: Track, question: str) -> dict:
    return {
        "id": number,
        "video": record["video"],
        "conversations": [
            {"from": "human", "value": f"<video>\n{question.format(asked.tagged)}"},
            {"from": "gpt", "value": description(asked, other)},
        ],
        "frame_idx": asked.first,
        "annotation": [asked.annotation, other.annotation],
    }
