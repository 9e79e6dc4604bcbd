"""What the model is shown, and every way in which it may write its reply."""

import json

import pytest

from swim.construct.checks import Refusal, Refused
from swim.construct.prompt import ask_again, estimate, messages_of, parse_reply, schema_of
from swim.construct.tasks import read_task
from swim.llm import estimate_tokens

from .records import PAIR, QUESTION

REPLY = {"objects": [{"object": 0, "noun": "dog"}], "texts": [{"text": 0, "rewritten": "The <ins>dog</ins>."}]}
TASK = read_task(PAIR, "file, record 0", "")
USABLE = {
    "JSON": json.dumps(REPLY),
    "fenced": f"```json\n{json.dumps(REPLY, indent=1)}\n```",
    "in prose": f"Here {{it}} is:\n{json.dumps(REPLY)}\nDone.",
    "more keys": json.dumps({**REPLY, "comment": "good"}),
}
UNUSABLE = {
    "prose": "The dog.",
    "cut": json.dumps(REPLY)[:-20],
    "a list": "[1, 2]",
    "no objects": json.dumps({"texts": REPLY["texts"]}),
    "no texts": json.dumps({**REPLY, "texts": []}),
    "a number as text": json.dumps({**REPLY, "texts": [{"text": 0, "rewritten": 5}]}),
    "deeply nested": '{"texts": ' + "[" * 100_000,
    "empty object": "{}",
}


@pytest.mark.parametrize("name", USABLE)
def test_replies_are_read_however_they_are_wrapped(name):
    found = parse_reply(USABLE[name])
    assert found.nouns == {0: "dog"} and found.texts == {0: "The <ins>dog</ins>."} and found.synonyms is None


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_no_reply_is_refused(name):
    with pytest.raises(Refused) as error:
        parse_reply(UNUSABLE[name])
    assert error.value.reason is Refusal.NOT_JSON


def test_the_model_sees_canonical_placeholders_and_no_announcement():
    system, user = messages_of(TASK)
    assert "<region>" not in user["content"] and "There are two objects" not in user["content"]
    texts = json.loads(user["content"])
    assert [entry["rewrite"] for entry in texts] == [True, True]
    assert texts[0]["content"] == "How do <object0> and <object1> relate?"
    assert "synonym" not in system["content"] and "synonym" in messages_of(TASK, synonyms=True)[0]["content"]


def test_the_answer_of_a_question_is_not_shown():
    shown = messages_of(read_task(QUESTION, "file, record 0", ""))[1]["content"]
    assert shown.count("It eats") == 1 and "Answer" not in shown


def test_frames_go_along_with_the_colours_of_their_outlines():
    system, user = messages_of(TASK, frames=["data:image/jpeg;base64,AA=="], colours={0: "red", 1: "green"})
    assert [part["type"] for part in user["content"]] == ["image_url", "text"]
    assert "<object0> red, <object1> green" in user["content"][1]["text"] and "frames show" in system["content"]


def test_schemas_are_strict():
    def walk(schema):
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False and schema["required"] == list(schema["properties"])
            for value in schema["properties"].values():
                walk(value)
        if schema["type"] == "array":
            walk(schema["items"])

    for synonyms in (False, True):
        walk(schema_of(synonyms))
        assert ("synonym" in json.dumps(schema_of(synonyms))) is synonyms


def test_a_refusal_is_shown_with_its_reply():
    messages = messages_of(TASK)
    again = ask_again(messages, "bad", Refused(Refusal.TEXT, "text 0 differs"))
    assert again[:2] == messages and again[2] == {"role": "assistant", "content": "bad"}
    assert "text changed beyond the rewriting" in again[3]["content"] and "text 0 differs" in again[3]["content"]


def test_estimates_grow_with_frames_and_synonyms():
    plain, frames, synonyms = estimate(TASK, False, 0), estimate(TASK, False, 4), estimate(TASK, True, 0)
    assert frames[0] == plain[0] + 4 * 255 and synonyms[1] >= 2 * plain[1] - 1 and plain[0] > 300


def test_a_picture_counts_as_a_picture_and_not_as_its_base64():
    parts = [{"type": "image_url", "image_url": {"url": "data:" + "A" * 9999}}, {"type": "text", "text": "x" * 40}]
    assert estimate_tokens([{"content": parts}, {"content": "y" * 8}]) == 12 + 255
