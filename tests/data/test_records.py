"""Records: which carry supervision, what their turns and instances are, and what is refused."""

import copy
import json
import pickle
from pathlib import Path

import pytest

from swim.data.records import Turn, describe, parse_record
from swim.data.tags import Span
from swim.errors import DataError, Reason

RLE = {"size": [4, 4], "counts": [0, 16]}
RECORD = {
    "index": "videorefer_detailed_caption_7",
    "video": "clips/a.mp4",
    "conversations": [
        {"from": "human", "value": "<video>\nIs the <ins>dog</ins> near the <ins>cat</ins>?"},
        {"from": "gpt", "value": "The <ins>Dog</ins> is."},
    ],
    "annotation": [
        {"10": {"segmentation": RLE}, "2": {"segmentation": RLE}},
        {"2": {"segmentation": [[0, 0, 3, 0, 3, 3]]}},
    ],
}


def record_with(**changes) -> dict:
    return copy.deepcopy(RECORD) | changes


def parsed(**changes):
    return parse_record(record_with(**changes), "train.json, record 7", "/data")


def test_a_supervised_record():
    record = parsed()
    assert record.where == "train.json, record 7 (videorefer_detailed_caption_7)"
    assert (record.path, record.is_image) == (Path("/data/clips/a.mp4"), False)
    assert record.turns == [
        Turn("user", "Is the dog near the cat?", [Span(7, 10, "dog"), Span(20, 23, "cat")], [0, 1]),
        Turn("assistant", "The Dog is.", [Span(4, 7, "Dog")], [0]),
    ]
    assert record.instances == [{10: RLE, 2: RLE}, {2: [[0, 0, 3, 0, 3, 3]]}]
    assert record.annotated_frames == [2, 10]


@pytest.mark.parametrize(
    "changes",
    [{"index": "videorefer_qa_3"}, {"data_source": "LLaVA"}, {"annotation": []}],
    ids=["_qa_", "data_source", "no annotation"],
)
def test_records_without_supervision_keep_their_text_only(changes):
    record = parsed(**changes)
    assert record.turns == [Turn("user", "Is the dog near the cat?", [], []), Turn("assistant", "The Dog is.", [], [])]
    assert record.instances == [] and record.annotated_frames == []


def test_annotation_may_be_absent():
    raw = record_with()
    del raw["annotation"]
    assert parse_record(raw, "x", ".").instances == []


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("<video>\nA <ins>dog</ins>, <ins>cat</ins>", "A dog, cat"),
        ("<image>\nA <ins>dog</ins>, <ins>cat</ins>", "A dog, cat"),
        ("<video>A <ins>dog</ins>, <ins>cat</ins>", "A dog, cat"),
        ("<video>\n\nA <ins>dog</ins>, <ins>cat</ins>", "\nA dog, cat"),
        (" A <ins>dog</ins>, <ins>cat</ins>\n", " A dog, cat\n"),
    ],
)
def test_a_leading_placeholder_goes(question, text):
    record = parsed(conversations=[{"from": "human", "value": question}, {"from": "gpt", "value": "no"}])
    assert [turn.text for turn in record.turns] == [text, "no"] and record.stray_placeholders == 0
    assert [span.phrase for span in record.turns[0].spans] == ["dog", "cat"]
    assert all(text[span.start : span.end] == span.phrase for span in record.turns[0].spans)


def test_other_placeholders_of_questions_go_and_are_counted():
    human = ["A <ins>dog</ins>, <ins>cat</ins> <video>\n", "<video>\n <video>\nAnd?"]
    turns = [{"from": "human", "value": human[0]}, {"from": "gpt", "value": "no"}]
    turns += [{"from": "human", "value": human[1]}, {"from": "gpt", "value": "yes"}]
    record = parsed(conversations=turns)
    assert [turn.text for turn in record.turns] == ["A dog, cat", "no", "And?", "yes"]
    assert record.stray_placeholders == 2


@pytest.mark.parametrize("place", [0, 1])
def test_a_placeholder_within_a_text_is_named(place):
    texts = ["A <ins>dog</ins>, <ins>cat</ins>", "no"]
    texts[place] += " in the <image> there"
    turns = [{"from": role, "value": text} for role, text in zip(("human", "gpt"), texts)]
    with pytest.raises(DataError, match="the placeholder <image> at character .* would be read as words"):
        parsed(conversations=turns)


def test_frames_without_a_mask_are_not_annotated():
    frames = {
        "0": None,
        "1": {"segmentation": None},
        "2": {},
        "3": {"segmentation": RLE, "area": 3},
        "004": {"segmentation": RLE},
    }
    record = parsed(annotation=[frames, {"1": {"segmentation": None}}])
    assert record.instances == [{3: RLE, 4: RLE}, {}]
    assert record.annotated_frames == [3, 4]


def test_tags_over_several_turns_and_mentions():
    turns = ["<ins>dog</ins>", "<ins>dog</ins> and <ins>dog</ins>", "none", "<ins>dog</ins>"]
    conversations = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]
    record = parsed(conversations=conversations, mentions=[1, 0, 1, 0])
    assert [turn.instances for turn in record.turns] == [[1], [0, 1], [], [0]]


def test_images_and_unknown_keys():
    raw = record_with(image="b.jpg", own={"key": 1})
    del raw["video"]
    record = parse_record(raw, "x", "/data")
    assert (record.path, record.is_image) == (Path("/data/b.jpg"), True)


def test_frame_lists_and_rates():
    record = parsed(video=["f/1.jpg", "/other/2.jpg"], fps=12)
    assert (record.path, record.is_image, record.fps) == ((Path("/data/f/1.jpg"), Path("/other/2.jpg")), False, 12.0)
    assert parsed().fps is None and parsed(fps=None).fps is None
    rates = [parse_record(record_with(**own), "x", ".", folder_fps=6.0).fps for own in ({}, {"fps": 29.97})]
    assert rates == [6.0, 29.97]


def test_a_null_annotation_is_none():
    assert parsed(annotation=None).instances == []


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("<video>\nThere are two objects: <object0> [<region>], <object1> [<region>]. Why?", "<object0>"),
        ("Describe the [<region>].", "<region>"),
    ],
)
@pytest.mark.parametrize("index", ["videorefer_detailed_caption_7", "videorefer_qa_7"])
def test_the_original_layout_is_told_apart(question, found, index):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "It is."}]
    with pytest.raises(DataError, match=rf"original VideoRefer layout \({found} .*swim construct") as error:
        parsed(conversations=turns, index=index)
    assert error.value.reason is Reason.MALFORMED
    assert parsed(conversations=turns, annotation=[]).instances == []  # words like any other


def test_an_absolute_path_stays():
    assert parsed(video="/other/a.mp4").path == Path("/other/a.mp4")


BAD = {
    "no video": ({"video": None}, 'expected either "video" or "image"'),
    "video and image": ({"image": "a.jpg"}, 'expected either "video" or "image"'),
    "video a number": ({"video": 3}, "video: .*found 3"),
    "one turn": ({"conversations": RECORD["conversations"][:1]}, "conversations: "),
    "answer first": ({"conversations": RECORD["conversations"][::-1]}, "conversations: turn 0 should be from human"),
    "two questions": ({"conversations": RECORD["conversations"][:1] * 2}, "conversations: turn 1 should be from gpt"),
    "another speaker": ({"conversations": [{"from": "user", "value": ""}] * 2}, "conversations.0.from: .*found 'user'"),
    "no value": ({"conversations": [{"from": "human"}] * 2}, "conversations.0.value: Field required"),
    "value a number": ({"conversations": [{"from": "human", "value": 1}] * 2}, "conversations.0.value: .*found 1"),
    "video empty": ({"video": ""}, "video: expected a path, or a list .*found ''"),
    "no frames": ({"video": []}, "video: expected a path, or a list .*found "),
    "frames a number": ({"video": ["0.jpg", 3]}, "video: expected a path, or a list .*found "),
    "image empty": ({"video": None, "image": ""}, "image: "),
    "negative rate": ({"fps": -6}, "fps: .*greater than 0, found -6"),
    "rate 0": ({"fps": 0}, "fps: .*greater than 0, found 0"),
    "rate a word": ({"fps": "6"}, "fps: .*valid number, found '6'"),
    "rate true": ({"fps": True}, "fps: .*valid number, found True"),
    "endless rate": ({"fps": float("inf")}, "fps: .*finite number, found inf"),
    "frame not a number": (
        {"annotation": [{"first": {"segmentation": RLE}}, {}]},
        "annotation.0.first: expected a frame number such as \"15\", found 'first'",
    ),
    "negative frame": ({"annotation": [{}, {"-1": {"segmentation": RLE}}]}, "annotation.1.-1: expected a frame number"),
    "fraction of a frame": (
        {"annotation": [{}, {"1.5": {"segmentation": RLE}}]},
        "annotation.1.1.5: expected a frame number",
    ),
    "superscript frame": (
        {"annotation": [{"²": {"segmentation": RLE}}, {}]},
        "annotation.0.²: expected a frame number",
    ),
    "endless frame": ({"annotation": [{"1" * 5000: None}, {}]}, "annotation.0.1+: expected a frame number"),
    "frame twice": (
        {"annotation": [{}, {"4": None, "004": {"segmentation": RLE}}]},
        "annotation.1: frame 4 is given twice",
    ),
    "segmentation a word": ({"annotation": [{"0": {"segmentation": "abc"}}, {}]}, "annotation.0.0.segmentation"),
    "no usable mask": ({"annotation": [{"0": {"segmentation": None}}, {}]}, "no instance has a usable mask"),
    "no tag": (
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        "2 annotated instances but no <ins> tag",
    ),
    "more instances than phrases": ({"annotation": RECORD["annotation"] * 2}, "2 distinct tagged phrases"),
    "mentions too short": ({"mentions": [0]}, '"mentions" must hold'),
    "mentions words": ({"mentions": ["a", "b", "c"]}, "mentions.0: .*found 'a'"),
    "unclosed tag": (
        {"conversations": [{"from": "human", "value": "<ins>dog"}, {"from": "gpt", "value": "b"}]},
        "unclosed <ins>",
    ),
}


OTHER_REASONS = {
    "no usable mask": Reason.NO_MASK,
    **dict.fromkeys(["no tag", "more instances than phrases", "mentions too short", "unclosed tag"], Reason.TAGS),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records_are_named(name):
    changes, message = BAD[name]
    with pytest.raises(DataError, match=message) as error:
        parsed(**changes)
    assert error.value.reason is OTHER_REASONS.get(name, Reason.MALFORMED)
    assert str(error.value).startswith("train.json, record 7 (videorefer_detailed_caption_7): ")
    assert str(error.value).count("train.json") == 1


@pytest.mark.parametrize("raw", [None, 3, "text", []])
def test_a_record_that_is_no_object_is_refused(raw):
    with pytest.raises(DataError, match="^f.json, record 0: "):
        parse_record(raw, "f.json, record 0", ".")


def test_names_of_records():
    assert describe({"index": 4, "id": 5}, "f") == "f (4)"
    assert describe({"id": "b-1"}, "f") == "f (b-1)"
    assert describe({}, "f") == describe(None, "f") == "f"


def test_an_error_keeps_its_place_between_processes():
    error = pickle.loads(pickle.dumps(DataError("bad", "f.json, record 1")))
    assert (str(error), error.message, error.where) == ("f.json, record 1: bad", "bad", "f.json, record 1")
    assert str(DataError("bad").at("here")) == "here: bad" and str(error.at("elsewhere")) == "f.json, record 1: bad"


def test_real_records(test_data):
    raw = json.loads((test_data / "nl_refer_real" / "train.json").read_text())
    records = [parse_record(r, f"train.json, record {n}", test_data) for n, r in enumerate(raw)]
    assert [[turn.instances for turn in record.turns] for record in records] == [
        [[0], [0]], [[0, 1], [0, 1]], [[0], [0]], [[], []], [[], []],
    ]  # fmt: skip
    assert [record.annotated_frames for record in records] == [
        list(range(0, 136, 15)), list(range(0, 136, 15)), list(range(12)), [], [],
    ]  # fmt: skip
    assert [record.path.exists() for record in records] == [True] * 5
    assert records[3].turns[1].text == "A dog."
    assert records[4].turns[0].text == "What kind of vehicle appears in the video?"


def test_urls_are_taken_as_they_stand_and_paths_below_the_root():
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "That."}]
    for video in ("https://host/a%20b.mp4?x=1", "HTTP://host/v.webm", "data:video/mp4;base64,AAAA"):
        assert parse_record({"video": video, "conversations": turns}, "here", "/root").path == video
    assert parse_record({"image": "data:image/png;base64,AA", "conversations": turns}, "here", "/root").is_image
    frames = parse_record({"video": ["a.jpg", "https://host/b.jpg"], "conversations": turns}, "here", "/root").path
    assert frames == (Path("/root/a.jpg"), "https://host/b.jpg")


@pytest.mark.parametrize("half", ["\ud83d", "\udc00", "\ufffe"])
def test_half_a_character_is_named(half):
    with pytest.raises(DataError, match=r"half a character .* after .*whole dog") as error:
        parsed(
            conversations=[
                {"from": "human", "value": "<ins>whole dog" + half + "</ins>"},
                {"from": "gpt", "value": "x"},
            ]
        )
    assert str(error.value).encode()  # it can be printed


def test_a_file_url_is_not_joined_to_a_root():
    assert parsed(video="file:///with%20space/a.mp4").path == Path("/with space/a.mp4")
    assert parsed(video=["file:///a/1.jpg", "2.jpg"]).path[0] == Path("/a/1.jpg")
