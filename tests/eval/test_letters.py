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


# Replies that a careful reader takes for a choice, in English, Chinese, German, Spanish and French -> the letter.
CLEAR = {
    "B\n\nThe man wears a scarf; option A is not visible.": "B",
    "(B)\nHe wears a scarf.": "B",
    "\\boxed{B}": "B",
    "The result is $\\boxed{\\text{B}}$.": "B",
    "<answer>B</answer>": "B",
    "<think>A or B? (A) maybe.</think>\nB": "B",
    "I looked at it. A?</think>B": "B",
    "(B)A scarf": "B",
    "B.A scarf": "B",
    "B - A scarf": "B",
    "B A scarf": "B",
    "[B]": "B",
    "I choose B.": "B",
    "I would pick option (b).": "B",
    "The answer is b.": "B",
    "The correct answer is B. Here's why: option A is wrong because there is no helmet, and option C is wrong too.": "B",
    "答案是B": "B",
    "选B": "B",
    "我选B。": "B",
    "B。": "B",
    "正确答案为(B)。": "B",
    "答案：B": "B",
    "应该选B，因为他戴着围巾": "B",
    "选项B": "B",
    "B是正确的": "B",
    "答案选B": "B",
    "B、围巾": "B",
    "因此选择 B": "B",
    "选择B": "B",
    "答案是 B，不是 A。": "B",
    "It is (B), not (A)": "B",
    "The cyan circle (B)": "B",
    "Answer: B": "B",
    "Final answer: (B)": "B",
    "Answer: A scarf": "B",
    "The answer is A because he wears it": "A",
    "answer is A": "A",
    "B!": "B",
    "B, the scarf": "B",
    "b) a scarf": "B",
    "Option B is correct.": "B",
    "(B) is the right answer.": "B",
    "I'd go with B": "B",
    "It's B.": "B",
    "The answer is B, not A.": "B",
    "The answer isn't A. The answer is B.": "B",
    "Explanation: he wears one.\n\nB": "B",
    "Reasoning...\nAnswer: B": "B",
    "(A) A helmet\n(B) A scarf\n(C) An umbrella\nAnswer: B": "B",
    "Is it A? No, it is B.": "B",
    "B because it is cold": "B",
    "Die Antwort ist B.": "B",
    "Antwort: B": "B",
    "Richtig ist B.": "B",
    "Ich wähle B.": "B",
    "Option B ist richtig.": "B",
    "Die richtige Antwort lautet (B), nicht (A).": "B",
    "La respuesta es B.": "B",
    "La respuesta correcta es la B": "B",
    "Elijo la opción B.": "B",
    "La réponse est B.": "B",
    "The answer is A. Wait, actually the answer is B.": "B",
    "**B. A scarf**\n\nOption A is shown by another person.": "B",
    "B: A scarf": "B",
    "【B】": "B",
    "The answer: option B": "B",
    "The correct option is (B) A scarf.": "B",
    "B. A scarf, not A. A helmet": "B",
    "The answer is: \n\nB": "B",
    "Answer:\nB. A scarf": "B",
    "The correct answer is:\n(B) A scarf": "B",
    "b": "B",
    "Correct: B": "B",
    "I believe the correct answer is (C).": "C",
    "C. An umbrella\n\nReason: he is wet.": "C",
    "The man is wearing a scarf, so the answer is B.": "B",
    "Answer: [B]": "B",
    "The answer is **B. A scarf**.": "B",
    "Based on the video, option B best describes it.": "B",
    "The best answer is B": "B",
    "My choice is B": "B",
    "B is the best answer.": "B",
    "The answer is A helmet": "A",
    "the answer is c) An umbrella": "C",
    "A: the answer is C": "C",
    "选B因为他冷": "B",
    "The answer is a.": "A",
    "No, the answer is A": "A",
    "I'm not sure, but the answer is B": "B",
    "B</s>": "B",
    "B<|im_end|>": "B",
    "- B": "B",
    "> B": "B",
    '{"answer": "B"}': "B",
    "A is wrong, B is right": "B",
    "It's not A. It's B.": "B",
    "#### B": "B",
    "The final answer is: $\\boxed{B}$": "B",
}

# Replies that choose nothing, or nothing that can be known.
UNDECIDED = [
    "",
    "A or B",
    "Both (A) and (B)",
    "(B) is wrong, so (A)",
    "Neither A nor B",
    "None of the above",
    "It is not (B)",
    "Not B",
    "The answer is not B",
    "I would eliminate A",
    "The answer is either A or B",
    "The answer is A or B",
    "The answer is A, B",
    "A, B",
    "A/B",
    "AB",
    "Maybe B",
    "It could be (B)",
    "(B)?",
    "B?",
    "Is the answer B?",
    "I can't choose B",
    "I don't think the answer is B.",
    "Option A is incorrect",
    "(A) A helmet\n(B) A scarf\n(C) An umbrella",
    "A) helmet B) scarf",
    "A. B. C.",
    "A.M. in the morning",
    "B.A. degree",
    "<think>The answer is B",
    "<think>B",
    "The answer is A. The answer is B.",
    "The answer is D",
    "D",
    "(D)",
    "A helmet is worn by the man",
    "A man with a scarf",
    "\\boxed{A} or \\boxed{B}",
    "<answer>A</answer><answer>B</answer>",
    "A\nB\nC",
    "A\nActually B or C",
    "If it rains the answer is C, otherwise B",
    "答案是A或B",
    "不选B",
    "答案不是B",
    "排除B",
    "选A还是B？",
    "可能是B",
    "A和B都对",
    "不应该选B",
    "B不对",
    "A oder B",
    "Die Antwort ist nicht B.",
    "B ist falsch.",
    "Entweder A oder B.",
    "La respuesta no es B.",
    "A o B",
    "No elijo B",
    "Ni A ni B",
    "The answer is B and C",
    "The answer might be B",
    "(A) seems likely but (B) is possible",
    "I see (A) a helmet and (B) a scarf",
    "person(a)",
    "Which one, (B)?",
    "The answer is B? The answer is C?",
    "I do not know",
    "(B) is wrong",
    "B is not correct.",
    "B isn't the right answer",
    "B is incorrect",
    "The answer is B or maybe C",
    "You could argue for B.",
    "A seems right, B too",
    "the answer is a helmet worn by him",
    "The answer is a",
    "It is a",
    "It is a.",
    "The answer is a scarf or a helmet",
    "The answer is A man",
    "Answer: None",
    "Probably B",
    "I think A",
    "This is b",
    "B. A scarf?",
    "option a scarf is there",
    "It is A dog",
    "A quick look shows a scarf",
    "I. think so",
    "the choice is a matter of taste",
    "It is a matter of (A) or (B)",
]


def test_the_table_is_large_and_half_of_it_undecided():
    assert len(CLEAR) >= 80 and len(UNDECIDED) >= 80


@pytest.mark.parametrize("reply", CLEAR)
def test_what_a_careful_reader_sees_is_read(reply):
    assert parse_letter(reply, OPTIONS) == CLEAR[reply]


@pytest.mark.parametrize("reply", UNDECIDED)
def test_what_a_careful_reader_leaves_open_is_left_open(reply):
    assert parse_letter(reply, OPTIONS) is None


WORDS = ["(A) Yes", "(B) No", "(C) Not visible", "(D) Both"]


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("(B) No", "B"),
        ("The answer is B, No", "B"),
        ("No.", "B"),
        ("Answer: No", "B"),
        ("The answer is Yes", "A"),
        ("D. Both", "D"),
        ("(C) Not visible", "C"),
        ("A. Yes, because he is not there", "A"),
        ("A. Yes, B. No", None),
        ("(A) Yes is wrong", None),
        ("Yes, he does", None),
    ],
)
def test_options_that_deny_are_options(reply, letter):
    assert parse_letter(reply, WORDS) == letter


def test_each_options_own_text_is_its_letter():
    for options in (OPTIONS, WORDS):
        for option in options:
            for reply in (
                option,
                option[4:],
                f"{option[1]}. {option[4:]}",
                f"The answer is {option}.",
                f"<think>?</think>{option}",
            ):
                assert parse_letter(reply, options) == option[1], reply


def test_long_replies_are_read_in_no_time():
    """No rule backtracks over a reply: what repeats its parts thousands of times is read like any other."""
    for part in ("(A) ", "the answer is ", "a ", "or ", "选", "[(", "B, ", "\\boxed{"):
        parse_letter(part * 5000, OPTIONS)


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
        ("the answer is a helmet", "A"),  # an article, and one option's words
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
