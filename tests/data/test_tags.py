"""Tags become exact character spans and instances."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swim.data.tags import Span, assign_instances, strip_placeholders, strip_tags
from swim.errors import DataError, Reason

TEXTS = {
    "no tag": ("a dog", "a dog", []),
    "empty": ("", "", []),
    "one": ("a <ins>dog</ins>.", "a dog.", [(2, 5, "dog")]),
    "both ends": ("<ins>dog</ins> and <ins>cat</ins>", "dog and cat", [(0, 3, "dog"), (8, 11, "cat")]),
    "the whole text": ("<ins>dog</ins>", "dog", [(0, 3, "dog")]),
    "untagged twin before": ("a dog, the <ins>dog</ins>", "a dog, the dog", [(11, 14, "dog")]),
    "side by side": ("<ins>a</ins><ins>b</ins>", "ab", [(0, 1, "a"), (1, 2, "b")]),
    "white space kept": ("a<ins> dog </ins>b", "a dog b", [(1, 6, " dog ")]),
    "several lines": ("x\n<ins>two\nlines</ins>\n", "x\ntwo\nlines\n", [(2, 11, "two\nlines")]),
    "chinese": ("一只<ins>狗</ins>。", "一只狗。", [(2, 3, "狗")]),
    "emoji": ("<ins>👩‍🚀</ins>!", "👩‍🚀!", [(0, 3, "👩‍🚀")]),
    "other brackets": ("<b><inst>a <ins>x<3</ins> </ in>", "<b><inst>a x<3 </ in>", [(11, 14, "x<3")]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_and_spans_are_exact(name):
    tagged, clean, spans = TEXTS[name]
    assert strip_tags(tagged) == (clean, [Span(*span) for span in spans])
    assert all(clean[start:end] == phrase for start, end, phrase in spans)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a <ins>dog", "unclosed <ins> in 'a <ins>dog'"),
        ("a dog</ins>", "</ins> without <ins> at character 5"),
        ("<ins>a <ins>dog</ins></ins>", "nested <ins> at character 7"),
        ("a <ins></ins>", "empty <ins></ins> at character 7"),
        ("a <ins> \n</ins>", "empty <ins></ins>"),
        ("<ins>a</ins></ins>", "</ins> without <ins> at character 12"),
        ("<ins>" + "x" * 200, "x{60,80}\\.\\.\\.'"),
    ],
)
def test_bad_tags_say_where(text, message):
    with pytest.raises(DataError, match=message):
        strip_tags(text)


ALMOST = [
    "a <INS>dog</INS>",
    "a <Ins>dog</ins>",
    "a &lt;ins&gt;dog&lt;/ins&gt;",
    "a &LT;INS&GT;dog",
    "a < ins>dog</ins>",
    "a <ins >dog</ins>",
    "a <ins>dog</ins >",
    "a <ins>dog< /ins>",
    "a <ins>dog<\\/ins>",
    "a <ins class='x'>dog</ins>",
    "a <ins1>dog</ins1>",
    "a <ins/>dog",
    "a <ins dog</ins>",
    "a ＜ins＞狗＜/ins＞",
    "a \\u003cins\\u003edog",
]


@pytest.mark.parametrize("text", ALMOST)
def test_what_is_almost_a_tag_is_refused(text):
    with pytest.raises(DataError, match="is almost a tag; write <ins>noun</ins>") as error:
        strip_tags(text)
    assert error.value.reason == Reason.TAGS


@pytest.mark.parametrize(
    "text", ["<insect>", "a <inside joke>", "ins > del", "x<ins" + "ane>", "&lt;instance&gt;", "x < inst"]
)
def test_other_words_in_brackets_are_text(text):
    assert strip_tags(text) == (text, [])


PLACEHOLDERS = {
    "none": ("What?", ("What?", 0)),
    "leading": ("<video>\nWhat?", ("What?", 0)),
    "leading image": ("<image>\nWhat?", ("What?", 0)),
    "leading without a line break": ("<video>What?", ("What?", 0)),
    "one line break is the placeholder's": ("<video>\n\nWhat?", ("\nWhat?", 0)),
    "alone": ("<video>", ("", 0)),
    "indented": (" <video>\nWhat?", ("What?", 1)),
    "doubled": ("<video>\n<video>\nWhat?", ("What?", 1)),
    "both kinds": ("<image><video>What?", ("What?", 1)),
    "at the end": ("What?\n<video>", ("What?", 1)),
    "at the end of the line": ("What? <image> \n", ("What?", 1)),
    "everywhere": (" <video>\n<video> What?\n<image>", ("What?", 3)),
    "other letters": ("<VIDEO>\nWhat?", ("What?", 1)),
    "spaced": ("< video >\nWhat?", ("What?", 1)),
    "a tag at the end": ("<video>\nWhere is the <ins>dog</ins>?\n<video>", ("Where is the <ins>dog</ins>?", 1)),
    "another word": ("A <videotape> of <images>", ("A <videotape> of <images>", 0)),
}


@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_placeholders_are_removed_where_they_can_be_nothing_else(name):
    text, expected = PLACEHOLDERS[name]
    assert strip_placeholders(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "In the <video>, what?",
        "<video>\nWhat <image> is it?",
        "&lt;video&gt;\nWhat?",
        "<video/> What?",
        "＜video＞What?",
    ],
)
def test_a_placeholder_that_may_be_text_is_refused(text):
    with pytest.raises(DataError, match="would be read as words"):
        strip_placeholders(text)


words = st.text(alphabet="ab 狗🐶\n<>/", min_size=1).filter(lambda text: text.strip() and "ins" not in text)


@given(st.lists(st.tuples(words, words), max_size=5), words)
def test_any_text_survives(pairs, ending):
    tagged = "".join(f"{before}<ins>{phrase}</ins>" for before, phrase in pairs) + ending
    clean, spans = strip_tags(tagged)
    assert clean == "".join(before + phrase for before, phrase in pairs) + ending
    assert [clean[span.start : span.end] for span in spans] == [phrase for _, phrase in pairs]
    assert [span.phrase for span in spans] == [phrase for _, phrase in pairs]


@pytest.mark.parametrize(
    ("phrases", "instances", "named"),
    [
        (["dog", "cat", "the brown one"], 1, [0, 0, 0]),  # one instance: every tag names it
        (["dog", "cat"], 2, [0, 1]),
        (["dog", "Cat", " DOG ", "cat", "dog"], 2, [0, 1, 0, 1, 0]),  # strip and casefold
        (["Straße", "STRASSE", "x"], 2, [0, 0, 1]),
        (["dog", "dog"], 2, [0, 1]),  # as many tags as instances: one each
        (["dog", "cat", "dog"], 3, [0, 1, 2]),
        (["c", "a", "b"], 3, [0, 1, 2]),  # order of appearance, not of the alphabet
    ],
)
def test_phrases_name_instances(phrases, instances, named):
    assert assign_instances(phrases, instances) == named


@pytest.mark.parametrize(
    ("phrases", "instances", "mentions"),
    [(["dog", "dog", "dog"], 2, [0, 1, 0]), (["a", "b"], 1, [0, 0]), (["a", "b"], 2, [1, 0]), (["a", "b"], 5, [4, 4])],
)
def test_mentions_override(phrases, instances, mentions):
    assert assign_instances(phrases, instances, mentions) == mentions


@pytest.mark.parametrize(
    ("phrases", "instances", "mentions", "message"),
    [
        (["dog"], 2, None, "1 distinct tagged phrases \\['dog'\\] in 1 tags do not fit 2 annotated"),
        (["dog", "cat", "bird"], 2, None, "3 distinct .* in 3 tags do not fit 2"),
        (["dog", "dog", "dog"], 2, None, "1 distinct .* in 3 tags do not fit 2"),
        (
            ["dog", "dog"],
            2,
            [0],
            '"mentions" must hold one instance index from 0 to 1 for each of the 2 tags, found \\[0\\]',
        ),
        (["dog", "dog"], 2, [0, 2], '"mentions" .* found \\[0, 2\\]'),
        (["dog", "dog"], 2, [0, -1], '"mentions"'),
        (["dog", "dog"], 2, [0, True], '"mentions"'),
        (["dog", "dog"], 2, [], '"mentions"'),
    ],
)
def test_any_other_mismatch_is_an_error(phrases, instances, mentions, message):
    with pytest.raises(DataError, match=message):
        assign_instances(phrases, instances, mentions)
