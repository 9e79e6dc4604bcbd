"""Thinking is no answer."""

import pytest

from swim.replies import without_reasoning


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("B", "B"),
        ("<think>A or B?\nB.</think>\n\nB", "B"),
        ("<THINK>a</THINK>b", "b"),
        ("<thinking>a</thinking>The dog sits.", "The dog sits."),
        ("a</think>b", "b"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("<think>never closed", ""),
        ("The dog sits. <think>never closed", "The dog sits."),
        ("<think></think>", ""),
        ("I think so, <thinker>", "I think so, <thinker>"),
        ("", ""),
    ],
)
def test_blocks_of_reasoning_go(reply, answer):
    assert without_reasoning(reply) == answer
