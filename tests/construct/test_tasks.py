"""What of a record is rewritten, what the model sees of it, and the way back into a valid record."""

import json

import pytest

from swim.construct.tasks import Kind, NothingToRewrite, finish, read_task
from swim.data.records import parse_record
from swim.errors import DataError

from .records import CAPTION, PAIR, QUESTION, conversation

WAYS = {
    "[<region>]": "<object0>",
    "<region>": "<object0>",
    "[ <region> ]": "<object0>",
    "(<region>)": "<object0>",
    "<object0>": "<object0>",
    "<object0> [<region>]": "<object0>",
    "<object0><region>": "<object0>",
    "<object 0> <region>": "<object0>",
    "<Object0> [<Region>]": "<object0>",
}


def contents(raw: dict) -> list[str]:
    return [text.content for text in read_task(raw, "file, record 0", "").texts]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_a_placeholder_is_read(way):
    assert contents(conversation(f"Where is {way} now?", "Here.")) == [f"Where is {WAYS[way]} now?", "Here."]


ANNOUNCEMENTS = [
    "There are two objects: <object0> [<region>], <object1> [<region>].",
    "There are two objects: <object0><region>, <object1><region>.",
    "There are 2 objects in the video: <object0> [<region>] and <object1> [<region>].",
    "Consider these objects: <object0> [<region>], and <object1>[<region>]. ",
    "视频中有两个物体：<object0> [<region>]、<object1> [<region>]。",
]


@pytest.mark.parametrize("announcement", ANNOUNCEMENTS)
def test_announcements_go(announcement):
    raw = conversation(f"<video>\n{announcement} Is <object0> near <object1>?", "Yes.", instances=2)
    (question, _) = read_task(raw, "file, record 0", "").texts
    assert (question.prefix, question.content) == ("<video>\n", "Is <object0> near <object1>?")
    assert question.objects == [0, 1] and question.fixed == ["Is ", " near ", "?"]


def test_an_announcement_that_alone_names_an_object_stays():
    texts = contents(conversation(ANNOUNCEMENTS[0] + " How do they relate?", "No.", instances=2))
    assert texts[0] == "There are two objects: <object0>, <object1>. How do they relate?"
    assert contents(conversation(ANNOUNCEMENTS[0], "<object0> is by <object1>.", instances=2))[0].startswith(
        "There are"
    )


def test_what_resembles_an_announcement_stays():
    text = "I see this: <object0> [<region>] sits near <object1> [<region>]. Why?"
    assert contents(conversation(text, "No.", instances=2))[0] == "I see this: <object0> sits near <object1>. Why?"


def test_layouts_are_told_apart_by_their_keys():
    tasks = [read_task(raw, "file, record 0", "") for raw in (PAIR, CAPTION, QUESTION)]
    assert [task.kind for task in tasks] == [Kind.CONVERSATION, Kind.BENCH_D, Kind.BENCH_Q]
    assert [text.content for text in tasks[1].texts] == [
        "Please give a detailed description of <object0>.",
        "The small dog sits on the bed.",
    ]
    assert [text.role for text in tasks[2].texts] == ["question"] + ["option"] * 4
    assert list(tasks[2].open_texts) == [0, 2]


def test_a_finished_conversation_keeps_all_but_its_texts():
    task = read_task(PAIR, "file, record 0", "")
    before = json.dumps(PAIR)
    texts = {
        0: "How do the <ins>dog</ins> and the <ins>laptop</ins> relate?",
        1: "The <ins>dog</ins> is a dog on the bed, while the <ins>laptop</ins> is a laptop.",
    }
    record = finish(task, texts)
    assert [turn["value"] for turn in record["conversations"]] == ["<video>\n" + texts[0], texts[1]]
    assert "mentions" not in record and record["annotation"] == PAIR["annotation"] and record["id"] == 0
    assert json.dumps(PAIR) == before


def test_mentions_are_written_where_the_order_does_not_tell():
    swapped = conversation("Is <object1> near <object0>?", "Yes.", instances=2)
    record = finish(read_task(swapped, "file, record 0", ""), {0: "Is the <ins>laptop</ins> near the <ins>dog</ins>?"})
    assert record["mentions"] == [1, 0] and parse_record(record, "x", "").turns[0].instances == [1, 0]
    partial = conversation("Where is <object2>? And where is <object0>?", "There.", instances=3)
    record = finish(
        read_task(partial, "file, record 0", ""), {0: "Where is the <ins>cat</ins>? And where is the <ins>dog</ins>?"}
    )
    assert parse_record(record, "x", "").turns[0].instances == [2, 0]


def test_the_answer_of_a_question_follows_its_option():
    task = read_task(QUESTION, "file, record 0", "")
    option = "(B) It eats the <ins>laptop</ins>"
    record = finish(task, {0: "What does the <ins>dog</ins> do beside the <ins>laptop</ins>?", 2: option})
    assert record["Answer"] == record["options"][1] == option and record["options"][0] == "(A) It sits"
    alone = read_task({**QUESTION, "Answer": "(B)"}, "file, record 0", "")
    assert finish(alone, {0: record["Question"], 2: option})["Answer"] == "(B)"


BAD = {
    "an object without annotation": (conversation("Where is <object1>?", "Here."), "<object1> but 1 annotated"),
    "a region of many": (conversation("Where is [<region>]?", "Here.", instances=2), "without a number but 2"),
    "tagged already": (conversation("Where is the <ins>dog</ins> <object0>?", "Here."), "tagged already"),
    "no masks": ({**PAIR, "annotation": [{"0": None}, {"0": {"segmentation": None}}]}, "usable mask"),
    "a caption of many": ({**CAPTION, "annotation": PAIR["annotation"]}, "nothing says which"),
    "no conversation": ({"id": 4, "video": "clip.mp4", "annotation": PAIR["annotation"]}, "conversations"),
    "an unknown answer": ({**QUESTION, "Answer": "(E) Nothing"}, "Answer"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_records_are_named(name):
    raw, message = BAD[name]
    with pytest.raises(DataError, match="file, record 0") as error:
        read_task(raw, "file, record 0", "")
    assert message in str(error.value)


def test_a_record_without_placeholders_is_told_from_a_bad_one():
    with pytest.raises(NothingToRewrite):
        read_task(conversation("What happens?", "A dog sits."), "file, record 0", "")
