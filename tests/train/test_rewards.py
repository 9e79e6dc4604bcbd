"""Rewards: values by hand, for odd completions too; a judge over real HTTP that fails."""

import json

import numpy as np
import pytest
import torch

from swim.data.records import Record, Turn
from swim.data.sample import TextSample
from swim.eval.judge import DIMENSIONS
from swim.llm import Asker, Endpoint
from swim.reply_cache import ReplyCache
from swim.train.grpo import _inside
from swim.train.rewards import make_reward
from swim.train.rollouts import Prompt

from ..chat_server import Answer, ChatServer

OPTIONS = "What does it do?\n(A) it sits\n(B) it runs\n(C) it sleeps\nAnswer with the letter."


def prompt_of(question: str, answer: str) -> Prompt:
    turns = [Turn("user", question, [], []), Turn("assistant", answer, [], [])]
    return Prompt(TextSample(Record("r", None, False, turns, [])), None, [1], np.array([-100]), None)


def rewards(name: str, prompt: Prompt, texts: list[str], **options) -> list[float | None]:
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    return make_reward(name, **options)(
        prompts=[None] * len(texts),
        completions=completions,
        completion_ids=[[1]] * len(texts),
        prompt_of=[prompt] * len(texts),
        trainer=None,
        log_metric=lambda *_: None,
    )


def test_an_answer_is_right_word_for_word():
    texts = ["The red circle is plain.", "the  RED circle\nis plain.", "The red circle is plain", "", "plain."]
    assert rewards("answer", prompt_of("What?", "The red circle is plain."), texts) == [1, 1, 0, 0, 0]


def test_a_letter_is_read_by_the_strict_parser():
    texts = ["(B)", "B. it runs", "The dog is (B).", "it runs", "(A)", "Either (A) or (B).", "", "(", "the answer is"]
    assert rewards("letter", prompt_of(OPTIONS, "The dog is (B)."), texts) == [1, 1, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("question, answer", [("What?", "(B)"), (OPTIONS, "I do not know.")])
def test_where_the_record_chooses_no_letter_the_reward_says_nothing(question, answer):
    assert rewards("letter", prompt_of(question, answer), ["(B)", ""]) == [None, None]


def test_a_format_is_the_whole_completion():
    pattern = r"<think>.*</think>\s*\([A-Z]\)"
    texts = ["<think>well\nnow</think> (B)", "<think>a</think>(B) or so", "(B)", ""]
    assert rewards("format", prompt_of("What?", "x"), texts, pattern=pattern) == [1, 0, 0, 0]


def test_a_function_of_ones_own_is_taken_by_its_place(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(
        "def short(completions, **_):\n    return [1.0 for _ in completions]\nTEN = 10\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert rewards("my_rewards:short", prompt_of("What?", "x"), ["a", "b"]) == [1, 1]
    for name, problem in {
        "my_rewards:long": "no attribute 'long'",
        "my_rewards:TEN": "expected a function, found int",
        "no_such_module:f": "No module named",
        "speed": "no reward 'speed'; expected answer, letter, format, looks, judge or package.module:function",
    }.items():
        with pytest.raises(ValueError, match=problem):
            make_reward(name)
    for name, lacking in {"format": "format_pattern", "judge": "judge: {model: NAME}"}.items():
        with pytest.raises(ValueError, match=lacking):
            make_reward(name)


def test_a_judge_that_fails_says_nothing_and_is_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    scores = dict(zip(DIMENSIONS, (5, 5, 4, 1)))

    def reply(request):
        text = json.dumps(request["messages"])
        if "fine words" in text:
            return json.dumps(scores)
        return "prose" if "strange words" in text else Answer(400, {"error": {"message": "no"}})

    counted = {}
    with ChatServer(reply) as server:
        endpoint = Endpoint("j", base_url=server.url, backoff_s=0.01, attempts=2)
        judge = make_reward("judge", asker=Asker(endpoint, ReplyCache(tmp_path / "replies")))
        texts = ["fine words", "strange words", "other words"]
        found = judge(
            completions=[[{"role": "assistant", "content": text}] for text in texts],
            prompt_of=[prompt_of("What?", "A dog.")] * 3,
            log_metric=counted.__setitem__,
        )
    assert found == [0.75, None, None] and counted == {"judge_failed": pytest.approx(2 / 3)}


def test_looks_is_the_share_on_the_object_by_hand():
    heat = torch.tensor([[[[3.0, 1.0]], [[1.0, 1.0]]], [[[0.0, 2.0]], [[1.0, 3.0]]]]) / 6  # two tokens, two steps
    covered = torch.tensor([[[[True, False]], [[False, True]]], [[[False, False]], [[True, False]]]])
    index = torch.tensor([[True, True], [True, True]])  # instance 1 covers no cell of step 0
    assert _inside(heat, covered, index, [0, 1]) == pytest.approx((0.75 + 0.5 + 0.25) / 3)
    assert _inside(heat, covered, index, []) == 0.0
    assert _inside(heat, covered, torch.zeros(2, 2, dtype=torch.bool), [0, 1]) == 0.0
