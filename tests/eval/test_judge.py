"""What a judge may reply, and what becomes of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swim.eval.judge import DIMENSIONS, Case, UnusableReply, judge, parse_scores
from swim.llm import Asker, AskFailed, Endpoint
from swim.reply_cache import ReplyCache

from ..chat_server import ChatServer

GOOD = dict(zip(DIMENSIONS, (4, 3, 2, 5)))
CASE = Case("7", "What is it?", "A red ball rolls left.", "A ball rolls.")

USABLE = {
    "JSON": json.dumps(GOOD),
    "fenced": f"```json\n{json.dumps(GOOD, indent=2)}\n```",
    "in prose": f"Here are my scores.\n{json.dumps(GOOD)}\nI hope that this helps {{really}}.",
    "an example first": '{"Subject Correspondence": "0 to 5"} means: ' + json.dumps(GOOD),
    "snake case": json.dumps({name.lower().replace(" ", "_"): score for name, score in GOOD.items()}),
    "as text": json.dumps({name: str(score) for name, score in GOOD.items()}),
    "as floats": json.dumps({name: float(score) for name, score in GOOD.items()}),
    "more keys": json.dumps({**GOOD, "comment": "good"}),
    "lines": "\n".join(f"{name}: {score}" for name, score in GOOD.items()),
    "bold": "\n".join(f"- **{name}:** {score}/5" for name, score in GOOD.items()),
    "bold inside": "\n".join(f"**{name}**: **{score}**" for name, score in GOOD.items()),
    "a table": "\n".join(f"| {name} | {score} |" for name, score in GOOD.items()),
    "another language around": "Hier sind die Noten:\n"
    + "\n".join(f"{name} = {score}" for name, score in GOOD.items()),
}
UNUSABLE = {
    "prose": ("The description is very good.", "no score for Subject Correspondence"),
    "three scores": (json.dumps({name: 3 for name in DIMENSIONS[:3]}), "no score for Hallucination Detection"),
    "seven": (json.dumps(GOOD | {DIMENSIONS[1]: 7}), "Appearance Description is 7, not a whole number"),
    "a half": (json.dumps(GOOD | {DIMENSIONS[1]: 4.5}), "Appearance Description is 4.5"),
    "a half in a line": (USABLE["lines"].replace(": 3", ": 4.5"), "Appearance Description is 4.5"),
    "negative": (json.dumps(GOOD | {DIMENSIONS[1]: -1}), "Appearance Description is -1"),
    "true": (json.dumps(GOOD | {DIMENSIONS[1]: True}), "Appearance Description is True"),
    "null": (json.dumps(GOOD | {DIMENSIONS[1]: None}), "Appearance Description is None"),
    "two numbers": (USABLE["lines"] + "\nSubject Correspondence: 1", "two scores for Subject Correspondence"),
    "another language": ("Motiv: 4, Aussehen: 3, Ablauf: 2, Erfindungen: 5", "no score for"),
    "a list": ("[4, 3, 2, 5]", "no score for"),
}


@pytest.mark.parametrize("name", USABLE)
def test_every_way_to_write_four_scores_is_read(name):
    assert parse_scores(USABLE[name]) == GOOD


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_is_no_four_scores_is_named(name):
    reply, message = UNUSABLE[name]
    with pytest.raises(UnusableReply, match=message):
        parse_scores(reply)


@given(st.text() | st.recursive(st.integers() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_reply_breaks_the_parser(reply):
    try:
        scores = parse_scores(reply)
    except UnusableReply:
        return
    assert list(scores) == list(DIMENSIONS) and all(type(s) is int and 0 <= s <= 5 for s in scores.values())


@pytest.fixture
def ask(tmp_path):
    """Function: (scores or the failure's text, requests) of judging CASE with these replies in turn."""

    def run(*replies):
        left = list(replies)
        with ChatServer(lambda request: left.pop(0)) as server:
            endpoint = Endpoint("judge", server.url, attempts=1, backoff_s=0.01)
            asker = Asker(endpoint, ReplyCache(tmp_path / "replies.sqlite"))
            try:
                return judge(CASE, asker), server.requests
            except AskFailed as error:
                return str(error), server.requests

    return run


def test_an_unusable_reply_is_shown_to_the_judge(ask):
    scores, requests = ask(UNUSABLE["seven"][0], USABLE["fenced"])
    assert scores == GOOD and len(requests) == 2
    assert [message["role"] for message in requests[1]["messages"]] == ["system", "user", "assistant", "user"]
    assert "Appearance Description is 7" in requests[1]["messages"][3]["content"]
    first = requests[0]
    assert first["temperature"] == 0 and first["response_format"]["type"] == "json_schema"
    assert CASE.reference in first["messages"][1]["content"] and CASE.prediction in first["messages"][1]["content"]


def test_three_unusable_replies_are_a_named_failure(ask):
    failure, requests = ask(*[UNUSABLE["prose"][0]] * 5)
    assert failure.startswith("no usable reply in 3 attempts: no score for") and len(requests) == 3
