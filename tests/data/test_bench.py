"""Items of VideoRefer-Bench and records of the original layout: what they hold, and what is refused."""

import copy
import json
from pathlib import Path

import pytest

from swim.data.bench import DEFAULT_QUESTION, parse_annotated, parse_bench_d, parse_bench_q, parse_videorefer
from swim.errors import DataError, Reason

RLE = {"size": [4, 4], "counts": [0, 16]}
FRAMES = {"15": {"segmentation": RLE}, "2": {"segmentation": None}, "0": {"segmentation": [[0, 0, 3, 0, 3, 3]]}}
USABLE = {15: RLE, 0: [[0, 0, 3, 0, 3, 3]]}
ITEM = {"id": 7, "video": "a.mp4", "frame_idx": "15", "annotation": [FRAMES]}
Q = ITEM | {
    "Question": "What is the <ins>dog</ins> doing?",
    "options": ["(A) Sitting", "(B) Swimming"],
    "Answer": "(B) Swimming",
    "type": "Basic Questions",
}
QUESTION = {"from": "human", "value": "<video>\nDescribe the <ins>dog</ins>."}
D = ITEM | {"conversations": [QUESTION, {"from": "gpt", "value": "A dog."}]}


def with_changes(raw: dict, changes: dict) -> dict:
    """A copy; a change to None takes the key away."""
    return {key: value for key, value in (copy.deepcopy(raw) | changes).items() if value is not None}


def test_bench_q():
    item = parse_bench_q(Q, "q.json, item 0", "/data")
    assert (item.where, item.id, item.path, item.fps) == ("q.json, item 0 (7)", 7, Path("/data/a.mp4"), None)
    assert item.question == "What is the <ins>dog</ins> doing?" and item.options == ("(A) Sitting", "(B) Swimming")
    assert (item.answer, item.letter, item.type, item.frame_idx) == ("(B) Swimming", "B", "Basic Questions", "15")
    assert item.instances == [USABLE]


@pytest.mark.parametrize(
    ("options", "answer", "letter"),
    [
        (["(A) a", "(B) b"], "(A)", "A"),
        (["(A) a", "(B) b"], "(B) something else", "B"),
        (["yes", "no"], "no", "B"),
        (["(C) c", "(A) a"], "(A) a", "A"),
    ],
)
def test_answers(options, answer, letter):
    assert parse_bench_q(Q | {"options": options, "Answer": answer}, "q", ".").letter == letter


def test_optional_fields_and_frame_lists():
    item = parse_bench_q(with_changes(Q, {"annotation": None, "frame_idx": None, "id": None}), "q, item 3", ".")
    assert (item.where, item.id, item.instances, item.frame_idx) == ("q, item 3", None, [], None)
    item = parse_bench_d(D | {"video": ["f/1.jpg", "f/2.jpg"], "fps": 6}, "d", "/data")
    assert (item.path, item.fps) == ((Path("/data/f/1.jpg"), Path("/data/f/2.jpg")), 6.0)


def test_bench_d():
    item = parse_bench_d(D, "d.json, item 1", "/data")
    assert (item.question, item.reference) == ("Describe the <ins>dog</ins>.", "A dog.")
    assert (item.where, item.id, item.path, item.frame_idx) == ("d.json, item 1 (7)", 7, Path("/data/a.mp4"), "15")
    assert item.instances == [USABLE]
    captioned = parse_bench_d(ITEM | {"caption": "A dog."}, "d", ".")
    assert (captioned.question, captioned.reference) == (DEFAULT_QUESTION, "A dog.")


BAD_Q = {
    "no options": ({"options": []}, "options: "),
    "options not a list": ({"options": "(A) a"}, "options: .*found"),
    "a number among the options": ({"options": ["(A) a", 3]}, "options.1: .*found 3"),
    "an empty option": ({"options": ["(A) a", ""]}, "options.1: "),
    "another answer": ({"Answer": "Flying"}, "Answer: expected one of the options .*found 'Flying'"),
    "a letter that is not there": (
        {"Answer": "(C) Flying"},
        r"Answer: expected one of the options .*found '\(C\) Flying'",
    ),
    "no question": ({"Question": None}, "Question: Field required"),
    "no answer": ({"Answer": None}, "Answer: Field required"),
    "no type": ({"type": None}, "type: Field required"),
    "type a number": ({"type": 3}, "type: .*found 3"),
    "no video": ({"video": None}, "video: Field required"),
    "video a number": ({"video": 3}, "video: expected a path, or a list .*found 3"),
    "frame no number": (
        {"annotation": [{"x": {"segmentation": RLE}}]},
        "annotation.0.x: expected a frame number .*found 'x'",
    ),
    "rate": ({"fps": -1}, "fps: .*found -1"),
}
BAD_D = {
    "nothing": ({"conversations": None}, 'expected "conversations" or "caption"'),
    "a question alone": ({"conversations": D["conversations"][:1]}, "conversations: "),
    "three turns": ({"conversations": D["conversations"] + D["conversations"][:1]}, "conversations: "),
    "the wrong way round": ({"conversations": D["conversations"][::-1]}, "conversations: turn 0 should be from human"),
    "no text": ({"conversations": None, "caption": ""}, "caption: "),
}


@pytest.mark.parametrize(
    ("parse", "raw", "bad"), [(parse_bench_q, Q, BAD_Q), (parse_bench_d, D, BAD_D)], ids=["q", "d"]
)
def test_bad_items_are_named(parse, raw, bad):
    for changes, message in bad.values():
        with pytest.raises(DataError, match=message) as error:
            parse(with_changes(raw, changes), "f.json, item 4", ".")
        assert error.value.reason is Reason.MALFORMED and str(error.value).startswith("f.json, item 4 (7): ")


def test_tags_must_be_well_formed():
    broken = [{"from": "human", "value": "Describe the <ins>dog."}, D["conversations"][1]]
    for parse, raw in (
        (parse_bench_q, Q | {"Question": "the </ins>dog"}),
        (parse_bench_d, D | {"conversations": broken}),
    ):
        with pytest.raises(DataError, match=r"^f, item 4 \(7\): .*ins>") as error:
            parse(raw, "f, item 4", ".")
        assert error.value.reason is Reason.TAGS


def videorefer(question: str, answer: str = "Fine.", instances: int = 1, **changes) -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": 0, "video": "a.mp4", "conversations": turns, "annotation": [FRAMES] * instances, **changes}


@pytest.mark.parametrize(
    ("question", "answer", "instances", "objects"),
    [
        ("<video>\nDescribe the [<region>] in detail.", "A dog.", 1, (0,)),
        ("There are two objects: <object0> [<region>], <object1> [<region>]. Which?", "<object1>", 2, (0, 1)),
        ("<object1><region> and the rest.", "<object0> [ <region> ] too.", 3, (1, 0)),
        ("What is this?", "A dog.", 2, ()),
    ],
)
def test_original_records(question, answer, instances, objects):
    record = parse_videorefer(videorefer(question, answer, instances), "t.json, record 0", "/data")
    assert record.objects == objects and record.instances == [USABLE] * instances
    assert [(turn.role, turn.text, turn.spans) for turn in record.turns] == [
        ("user", question.removeprefix("<video>\n"), []), ("assistant", answer, []),
    ]  # fmt: skip
    assert (record.where, record.path, record.caption) == ("t.json, record 0 (0)", Path("/data/a.mp4"), None)


def test_an_original_record_with_a_caption():
    record = parse_videorefer(ITEM | {"caption": "A dog."}, "t", ".")
    assert (record.turns, record.caption, record.objects, record.instances) == ([], "A dog.", (), [USABLE])


@pytest.mark.parametrize(
    ("raw", "message", "reason"),
    [
        (videorefer("<object2> [<region>]", instances=2), "<object2> but 2 annotated instances", Reason.TAGS),
        (videorefer("[<region>]", instances=2), "without a number but 2 annotated instances", Reason.TAGS),
        (videorefer("[<region>]", instances=0), "annotation: ", Reason.MALFORMED),
        (videorefer("[<region>]", annotation=[{"0": None}]), "no instance has a usable mask", Reason.NO_MASK),
        (videorefer("[<region>]", conversations=None), 'expected "conversations" or "caption"', Reason.MALFORMED),
    ],
)
def test_bad_original_records_are_named(raw, message, reason):
    with pytest.raises(DataError, match=rf"^t, record 1 \(0\): .*{message}") as error:
        parse_videorefer(raw, "t, record 1", ".")
    assert error.value.reason is reason


def real(test_data: Path, name: str) -> list[dict]:
    path = test_data / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return json.loads(path.read_text())


def test_real_bench_items(test_data):
    questions = [parse_bench_q(raw, "q", test_data) for raw in real(test_data, "nl_refer_real/bench_q.json")]
    assert [(item.letter, len(item.instances)) for item in questions] == [("A", 1), ("C", 2), ("B", 0)]
    assert all(item.path.exists() for item in questions)
    tasks = [parse_bench_d(raw, "d", test_data) for raw in real(test_data, "nl_refer_real/bench_d.json")]
    assert [list(item.instances[0]) for item in tasks] == [list(range(0, 136, 15)), list(range(12))]
    assert tasks[1].question == "Describe the silver <ins>SUV</ins> in detail."


def test_real_original_records(test_data):
    folder = test_data / "videorefer_dog"
    (task,) = (parse_bench_d(raw, "d", folder) for raw in real(folder, "videorefer_bench_d.json"))
    assert task.question == DEFAULT_QUESTION and task.reference.startswith("The French Bulldog") and task.path.exists()
    records = [parse_videorefer(raw, "t", folder) for raw in real(folder, "videorefer_train.json")]
    assert [(record.objects, len(record.instances)) for record in records] == [((0, 1), 2), ((0,), 1)]


def test_annotated_items_of_every_layout_become_supervised_records(test_data):
    folder = test_data / "nl_refer_real"
    seen = set()
    for path in sorted(folder.glob("*.json")):
        for position, raw in enumerate(json.loads(path.read_text())):
            if not raw.get("annotation") or "_qa_" in str(raw.get("index", "")) or "data_source" in raw:
                continue
            record = parse_annotated(raw, f"{path.name}, item {position}", test_data)
            spans = [span for turn in record.turns for span in turn.spans]
            named = [instance for turn in record.turns for instance in turn.instances]
            assert spans and len(spans) == len(named) and max(named) < len(record.instances)
            assert all(turn.text[s.start : s.end] == s.phrase for turn in record.turns for s in turn.spans)
            seen.add("Question" if "Question" in raw else "conversations")
    assert seen == {"Question", "conversations"}


def test_tags_of_options_name_instances_too():
    raw = {**copy.deepcopy(Q), "options": ["(A) The <ins>cat</ins>", "(B) Swimming"], "annotation": [FRAMES, FRAMES]}
    asked, told = parse_annotated(raw, "item 0", "/data").turns
    assert asked.text == "What is the dog doing?\n(A) The cat\n(B) Swimming" and asked.instances == [0, 1]
    assert (told.text, told.spans) == ("(B) Swimming", [])
    raw["mentions"] = [1, 0]
    assert parse_annotated(raw, "item 0", "/data").turns[0].instances == [1, 0]


def test_a_caption_gets_the_tag_of_its_text():
    raw = {"id": 1, "video": "v.mp4", "caption": "A <ins>dog</ins> runs.", "annotation": [{"0": {"segmentation": RLE}}]}
    record = parse_annotated(raw, "item 0", "/data")
    assert [turn.instances for turn in record.turns] == [[], [0]]
    assert record.turns[1].text == "A dog runs."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotation": []}, "no annotation|no instance has a usable mask"),
        ({"caption": "A dog runs."}, "1 annotated instances but no <ins> tag"),
        ({"caption": "A <ins>dog</ins> and a <ins>cat"}, "unclosed <ins>"),
    ],
)
def test_items_that_cannot_be_scored_are_named(change, message):
    raw = {"id": 1, "video": "v.mp4", "caption": "A <ins>dog</ins> runs.", "annotation": [{"0": {"segmentation": RLE}}]}
    with pytest.raises(DataError, match=message) as error:
        parse_annotated({**raw, **change}, "item 0", "/data")
    assert "item 0" in str(error.value)
