"""The demo's benches: what they ask is what the drawn scenes say, and the answers are balanced."""

import json
from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from swim.data.bench import parse_bench_d, parse_bench_q
from swim.demo.bench import write_benches
from swim.demo.clips import make_demo_data
from swim.demo.facts import DIRECTIONS, EDGES, PLACES, SIZES, Track, choices_about, description
from swim.demo.shapes import PATTERNS
from swim.demo.talk import QUESTIONS, talk_record

IN_ORDER = {
    "Basic Questions": PATTERNS,
    "Sequential Questions": DIRECTIONS,
    "Relationship Questions": PLACES,
    "Reasoning Questions": SIZES,
    "Future Predictions": EDGES,
}


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("held_out"), 0, 16, seed=5, workers=1).held_out_json


def box(left: int, top: int, width: int, height: int, size_px: int = 100) -> dict:
    mask = np.zeros((size_px, size_px), np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    rle = coco_mask.encode(mask)
    return {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}


# In 3 frames from x 40 to 50 (a centre of 45 to 55), and a larger one at rest on its lower right.
MOVING = Track("red circle", "striped", {"0": box(40, 20, 10, 10), "2": box(50, 21, 10, 10)})
RESTING = Track("blue square", "plain", {"0": box(60, 50, 20, 20), "2": box(60, 50, 20, 20)})


def test_every_answer_is_what_the_masks_say():
    answers = [choice.answer for choice in choices_about(MOVING, RESTING)]
    assert answers == ["striped", "to the right", "above it", "much smaller", "the right edge"]
    sentences = [choice.sentence for choice in choices_about(MOVING, RESTING)]
    assert sentences == [
        "The <ins>red circle</ins> is striped",
        "The <ins>red circle</ins> moves to the right",
        "The <ins>red circle</ins> is above the <ins>blue square</ins>",
        "The <ins>red circle</ins> is much smaller than the <ins>blue square</ins>",
        "The <ins>red circle</ins> will reach the right edge first",
    ]
    assert description(MOVING, RESTING) == (
        "The <ins>red circle</ins> is striped and moves to the right. Below it is the <ins>blue square</ins>."
    )


def test_options_stand_in_one_order_and_every_pattern_is_asked_for_equally_often(held_out):
    benches = write_benches(held_out)
    raws = json.loads(benches.bench_q.read_text())
    items = [parse_bench_q(raw, "here", held_out.parent) for raw in raws]
    assert Counter(item.type for item in items) == dict.fromkeys(IN_ORDER, 16)
    for item in items:
        assert item.options == tuple(f"({letter}) {name}" for letter, name in zip("ABCD", IN_ORDER[item.type]))
    letters = Counter(item.letter for item in items if item.type == "Basic Questions")
    assert set(letters) == set("ABCD") and max(letters.values()) - min(letters.values()) <= 2
    descriptions = [parse_bench_d(raw, "here", held_out.parent) for raw in json.loads(benches.bench_d.read_text())]
    assert len(descriptions) == 16 and all(len(item.instances) == 2 for item in descriptions)


def test_options_of_the_talking_models_bench_are_in_any_order_with_the_same_answers(held_out, tmp_path):
    fixed = json.loads(write_benches(held_out).bench_q.read_text())
    other = tmp_path / held_out.name
    other.write_text(held_out.read_text())
    drawn = json.loads(write_benches(other, talks=True).bench_q.read_text())
    assert [raw["Answer"][4:] for raw in drawn] == [raw["Answer"][4:] for raw in fixed]
    assert all(raw["Answer"] in raw["options"] for raw in drawn)
    assert len({tuple(raw["options"]) for raw in drawn}) > 3 * len(IN_ORDER)


def test_conversations_name_their_objects_and_letters_follow_from_what_is_said():
    for seed in range(40):
        record = talk_record([MOVING, RESTING], "clip.mp4", np.random.default_rng(seed))
        texts = [turn["value"] for turn in record["conversations"]]
        assert len(texts) == 2 * QUESTIONS and texts[0].startswith("<video>\n")
        phrases = [part.split("</ins>")[0] for text in texts for part in text.split("<ins>")[1:]]
        assert [["red circle", "blue square"][number] for number in record["mentions"]] == phrases
        for question, answer in zip(texts[::2], texts[1::2]):
            if question.startswith("<video>\nWhat pattern") and "(A)" not in question:
                assert answer in ("The <ins>red circle</ins> is striped.", "The <ins>blue square</ins> is plain.")
            if "(A)" in question:
                letter = answer.rstrip(".")[-2]
                option = next(line for line in question.splitlines() if line.startswith(f"({letter})"))
                assert option[4:].removesuffix("it").strip() in answer
            if question.startswith("Is there"):
                assert answer.startswith("Yes" if "red circle" in question or "blue square" in question else "No")
        assert phrases and not texts[0].startswith("<video>\nIs there")


def test_whole_clips_are_asked_for_objects_that_are_there_and_that_are_not(held_out):
    records = json.loads(held_out.read_text())
    items = json.loads(write_benches(held_out).general.read_text())
    assert Counter(item["accept"][0] for item in items) == {"Yes": 8, "No": 8}
    for record, item in zip(records, items):
        assert item["video"] == record["video"] and item["answer"].startswith(item["accept"][0])
        named = item["question"].removeprefix("Is there a").removeprefix("n").removesuffix(" in the video?").strip()
        assert (named in {thing["phrase"] for thing in record["all_objects"]}) == (item["accept"] == ["Yes"])
        assert named in item["answer"] and " a orange" not in item["question"] + item["answer"]
