"""The words of referring phrases by what they do."""

import pytest

from swim.attention.wording import classed_words, subject_of
from swim.data.tags import strip_tags

PHRASES = {
    "What is the small <ins>dog</ins> on the bed?": "function the, attribute small, head dog, relation on, function the, related bed",
    "Describe the silver <ins>SUV</ins> in the video.": "function the, attribute silver, head SUV",
    "Describe the <ins>dog</ins> on the bed in detail.": "function the, head dog, relation on, function the, related bed",
    "What pattern does the <ins>cyan circle</ins> have?": "function the, attribute cyan, head circle",
    "What is the <ins>man in a red shirt</ins> looking at?": (
        "function the, head man, relation in, function a, related red, related shirt, relation looking, relation at"
    ),
    "Is it a black and white <ins>cat</ins>, lying there?": "function a, attribute black, function and, attribute white, head cat",
    "The <ins>woman</ins> who rides": "function The, head woman",
    "<ins>dog</ins>": "head dog",
    "<ins>\u72d7</ins> \u5728\u54ea\u91cc": "head \u72d7",
}


@pytest.mark.parametrize("text", PHRASES)
def test_the_words_of_a_phrase(text):
    plain, [tag] = strip_tags(text)
    found = classed_words(plain, tag)
    assert ", ".join(f"{word.kind} {plain[word.start : word.end]}" for word in found) == PHRASES[text]


def test_each_tag_has_its_own_phrase():
    plain, tags = strip_tags("Is the big <ins>dog</ins> left of the <ins>laptop</ins>?")
    heads = [next(word for word in classed_words(plain, tag) if word.kind == "head") for tag in tags]
    assert [plain[head.start : head.end] for head in heads] == ["dog", "laptop"]


def test_a_tag_without_a_word_has_no_phrase():
    plain, [tag] = strip_tags("What is <ins>...</ins>?")
    assert classed_words(plain, tag) == []


@pytest.mark.parametrize(
    "caption, subject",
    [
        ("The man in the black suit walks to the door.", "man"),
        ("The white-haired old man takes off his hat.", "white-haired old man"),
        ("The red and white traffic light, on the left", "red and white traffic light"),
        ("In the video, a small dog runs.", "small dog"),
        ("Bald man", "bald man"),
        ("Two people hug.", "two people"),
        ("The traffic lights", "traffic lights"),
        ("In this clip a small dog runs.", "small dog"),
        ("Sheldon stands up.", "Sheldon"),
        ("He gets up and walks to the bed.", None),
        ("Running to the door", None),
        ("...", None),
    ],
)
def test_what_a_caption_begins_with(caption, subject):
    assert subject_of(caption) == subject
