"""The store of answers: nothing lost, nothing twice, whatever was killed when."""

import json

import pytest

from swim.data.records import Record
from swim.infer.answers import AnswerStore, Question

SETTINGS = {"model": "m", "budget": (1, 2)}
QUESTIONS = [Question(str(n), Record("here", None, False, [], [])) for n in range(4)]


def test_answers_come_back_in_the_order_of_the_questions(tmp_path):
    first, second = AnswerStore(tmp_path, SETTINGS), AnswerStore(tmp_path, SETTINGS, rank=1)
    second.add([{"id": "3", "answer": "d"}, {"id": "1", "answer": "b\né\u2028"}])
    first.add([{"id": "0", "answer": ""}, {"id": "2", "error": "unreadable"}])
    expected = {"0": "", "1": "b\né\u2028", "3": "d"}
    assert AnswerStore(tmp_path, SETTINGS).answers == expected
    assert first.finish(QUESTIONS) == expected and list(first.finish(QUESTIONS)) == ["0", "1", "3"]
    lines = (tmp_path / "answers.jsonl").read_text().split("\n")
    assert [json.loads(line)["id"] for line in lines if line] == ["0", "1", "3"]


@pytest.mark.parametrize("torn", [1, 5, 20])
def test_a_torn_line_is_asked_again_and_harms_nothing(tmp_path, torn):
    store = AnswerStore(tmp_path, SETTINGS)
    store.add([{"id": "0", "answer": "a"}])
    store.add([{"id": "1", "answer": "bbbbbbbbbbbb"}])
    part = tmp_path / "parts" / "00000.jsonl"
    part.write_bytes(part.read_bytes()[:-torn])  # as if killed while it was written
    again = AnswerStore(tmp_path, SETTINGS)
    assert again.answers == ({"0": "a", "1": "bbbbbbbbbbbb"} if torn == 1 else {"0": "a"})
    again.add([{"id": "1", "answer": "b"}])
    assert AnswerStore(tmp_path, SETTINGS).answers == {"0": "a", "1": "b"}


def test_another_evaluation_is_refused(tmp_path):
    AnswerStore(tmp_path, SETTINGS)
    AnswerStore(tmp_path, {"budget": [1, 2], "model": "m"})  # the same, as JSON has it
    with pytest.raises(ValueError, match="holds another evaluation; different: model, new. Choose another --output"):
        AnswerStore(tmp_path, {**SETTINGS, "model": "n", "new": 1})
