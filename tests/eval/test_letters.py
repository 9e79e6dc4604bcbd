"""The parser's table, row by row, and that no reply breaks it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swim.eval.letters import PARSERS, letter_of, parse_letter

OPTIONS = ["(A) A helmet", "(B) A scarf", "(C) An umbrella"]
# reply: (released is right, strict is right, strict finds no letter), the right answer being A
TABLE = {
    "(A)": (True, True, False),
    "A": (True, True, False),
    "A.": (True, True, False),
    "A)": (True, True, False),
    "a": (True, True, False),
    "(A) A helmet": (True, True, False),
    "(a)": (False, True, False),
    "Answer: C": (True, False, False),
    "An umbrella": (True, False, False),
    "B. NASA)": (True, False, False),
    "Both (A) and (B)": (True, False, True),
    "The answer is A.": (False, True, False),
    " A": (False, True, False),
    "**A**": (False, True, False),
    "(B) is wrong, so (A)": (False, False, True),
    "": (False, False, True),
}


@pytest.mark.parametrize("reply", TABLE)
def test_both_parsers_give_the_tables_results(reply):
    released, strict, unparsed = TABLE[reply]
    assert (parse_letter(reply, OPTIONS, "released") == "A") == released
    assert (parse_letter(reply, OPTIONS) == "A") == strict
    assert (parse_letter(reply, OPTIONS) is None) == unparsed


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("(B)\n", "B"),
        ("C: An umbrella", "C"),
        ("The correct answer is (b)", "B"),
        ("Option B", "B"),
        ("the answer is a helmet", None),  # an article, and no option's words either
        ("a scarf", "B"),
        ("A helmet.", "A"),
        ("A helmet is worn by the man", None),
        ("(D)", None),
        ("D", None),
        ("The answer is A. The answer is B.", None),
        ("（Ａ）", "A"),
        ("I think so", None),
        ("Answer: **C**", "C"),
        ("A or B", None),
    ],
)
def test_strict_takes_what_is_clear_and_nothing_else(reply, letter):
    assert parse_letter(reply, OPTIONS) == letter


@given(st.text(), st.sampled_from(PARSERS))
def test_no_reply_breaks_a_parser(reply, parser):
    found = parse_letter(reply, OPTIONS, parser)
    assert found is None or isinstance(found, str)
    if parser == "strict":
        assert found in (None, "A", "B", "C")


def test_what_is_no_option_or_parser_is_named():
    with pytest.raises(ValueError, match="expected an option such as"):
        letter_of("A helmet")
    with pytest.raises(ValueError, match="parser: expected one of strict, released"):
        parse_letter("A", OPTIONS, "loose")
