"""VideoRefer-Bench-Q and -D files about the demo's held-out clips: what their masks say, in the benches' own format.

Beside them, questions about whole clips, for general ability.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from swim.data.tags import strip_tags
from swim.demo.facts import DESCRIBE, WHAT_PATTERN, Choice, Track, choices_about, description, is_there
from swim.demo.shapes import COLOURS, PATTERNS, SHAPES
from swim.files import write_atomically
from swim.prompts import letter_options

MOST_CLIPS = 60  # five questions each
WHOLE_CLIP = "whole clip"


@dataclass(frozen=True)
class Benches:
    """general: whole clips, see swim.eval.general. captions: in HC-STVG's layout. held_out: the records that all were made from."""

    bench_q: Path
    bench_d: Path
    general: Path
    captions: Path
    held_out: Path


def write_benches(held_out_json: Path, talks: bool = False) -> Benches:
    """Writes bench_q.json, bench_d.json, general.json and captions.json beside the demo's held-out records, unless they are
    there already.

    Bench-Q has one question of each type per clip, Bench-D one description, captions what a model is taught to say of the same
    object, general one question about all of the clip; every pattern is asked for equally often, and as many objects are there as
    are not. Videos are relative to the folder.
    talks: for a model that can; otherwise both benches ask as the tiny model was taught: the options of a type are in one
    order everywhere, and a description is the answer to the question for the pattern.
    """
    folder = held_out_json.parent
    files = (folder / "bench_q.json", folder / "bench_d.json", folder / "general.json", folder / "captions.json")
    benches = Benches(*files, held_out_json)
    made = held_out_json.stat().st_mtime_ns
    if all(path.exists() and path.stat().st_mtime_ns >= made for path in files):
        return benches
    records = json.loads(held_out_json.read_text())[:MOST_CLIPS]
    questions: list[dict] = []
    descriptions: list[dict] = []
    captions: dict[str, dict] = {}
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
        captions[record["video"]] = _tube(
            asked, description(asked, other) if talks else f"The {asked.phrase} is {asked.pattern}."
        )
    for path, items in zip(files, (questions, descriptions, list(_whole_clips(records)), captions)):
        write_atomically(path, json.dumps(items))
    return benches


def write_evidence_items(held_out_json: Path) -> Path:
    """Writes evidence.json beside the demo's held-out records, unless it is there already: words that a clip supports, and as
    many that it does not; see swim.eval.evidence.

    Of each clip, an object of it and one that is not there: asked about, and named in an answer; and the pattern that the
    answer says, right and wrong.
    """
    path = held_out_json.with_name("evidence.json")
    if path.exists() and path.stat().st_mtime_ns >= held_out_json.stat().st_mtime_ns:
        return path
    items: list[dict] = []
    records = json.loads(held_out_json.read_text())
    for number, record in enumerate(records):
        rng = np.random.default_rng([number, len(records)])
        tracks = [Track(**thing) for thing in record["all_objects"]]
        asked, there = tracks[int(rng.integers(len(tracks)))], {track.phrase for track in tracks}
        absent = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES if f"{colour} {shape}" not in there]
        away = str(rng.choice(absent))
        wrong = str(rng.choice([pattern for pattern in PATTERNS if pattern != asked.pattern]))
        for phrase, supported in ((asked.phrase, True), (away, False)):
            item = {
                "video": record["video"],
                "prompt": WHAT_PATTERN.format(f"<ins>{phrase}</ins>"),
                "supported": supported,
            }
            items.append(item)
            items.append({**item, "answer": f"The {phrase} is {asked.pattern}.", "word": phrase})
        prompt = WHAT_PATTERN.format(f"<ins>{asked.phrase}</ins>")
        for pattern, supported in ((asked.pattern, True), (wrong, False)):
            said = {"prompt": prompt, "answer": f"The {asked.phrase} is {pattern}.", "word": pattern, "kind": "pattern"}
            items.append({"video": record["video"], **said, "supported": supported})
    write_atomically(path, json.dumps(items))
    return path


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


def _whole_clips(records: list[dict]) -> Iterator[dict]:
    """Is there such an object? In every second clip there is."""
    for number, record in enumerate(records):
        rng = np.random.default_rng([number, len(records), 1])
        phrases = [thing["phrase"] for thing in record["all_objects"]]
        present = number % 2 == 0
        question, answer = is_there(phrases, present, rng)
        yield {
            "id": number,
            "video": record["video"],
            "question": question,
            "answer": answer,
            "accept": ["Yes" if present else "No"],
            "type": WHOLE_CLIP,
        }


def _tube(asked: Track, caption: str) -> dict:
    """An object as HC-STVG has it: boxes (x, y, width, height) of the annotated frames, and a caption."""
    frames = sorted(asked.annotation, key=int)
    boxes = [coco_mask.toBbox(asked.annotation[frame]["segmentation"]).tolist() for frame in frames]
    size = {"img_size": {"width": asked.size_px, "height": asked.size_px}}
    said = {"English": strip_tags(caption)[0], "subject": asked.phrase}
    return {**said, "bbox": boxes, "img_num": len(frames), **size}


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
