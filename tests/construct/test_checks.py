"""Every reason to refuse a rewriting, and what is no reason."""

import pytest

from swim.construct.checks import Refusal, Refused, Rewriting, accept, accept_synonyms
from swim.construct.tasks import read_task

from .records import PAIR, QUESTION, conversation

ONE = conversation("Describe the [<region>] in detail.", "A small dog with a white coat sits on the bed.")
NAMES = {0: "dog", 1: "laptop"}
Q = "How do the <ins>dog</ins> and the <ins>laptop</ins> relate?"
A = "The <ins>dog</ins> is a dog on the bed, while the <ins>laptop</ins> is a laptop."


def judge(raw, texts: dict, nouns=None, with_frames=False):
    task = read_task(raw, "file, record 0", "")
    return accept(task, Rewriting(nouns or {n: NAMES[n] for n in task.objects}, texts), with_frames)


GOOD = {
    "a bare noun": "Describe the <ins>dog</ins> in detail.",
    "words around": "Describe the small white <ins>dog</ins> on the bed in detail.",
    "another article": "Describe a <ins>dog</ins> in detail.",
    "no article": "Describe <ins>dog</ins> in detail.",
    "outer blanks": "  Describe the <ins>dog</ins> in detail.\n",
}


@pytest.mark.parametrize("name", GOOD)
def test_natural_phrases_are_accepted(name):
    record = judge(ONE, {0: GOOD[name]})
    assert record["conversations"][0]["value"] == GOOD[name].strip()


BAD = {
    "a placeholder left": ("Describe the <ins>dog</ins> <object0> in detail.", Refusal.PLACEHOLDER),
    "a region left": ("Describe the [<region>] in detail.", Refusal.PLACEHOLDER),
    "half a placeholder": ("Describe the <ins>dog</ins> <object in detail.", Refusal.PLACEHOLDER),
    "no tag": ("Describe the dog in detail.", Refusal.NO_PHRASE),
    "an open tag": ("Describe the <ins>dog in detail.", Refusal.TAGS),
    "an empty tag": ("Describe the <ins> </ins> in detail.", Refusal.TAGS),
    "nested tags": ("Describe the <ins>small <ins>dog</ins></ins> in detail.", Refusal.TAGS),
    "two tags": ("Describe the <ins>dog</ins>, the <ins>dog</ins> in detail.", Refusal.TAGS),
    "another noun in the tag": ("Describe the <ins>laptop</ins> in detail.", Refusal.NUMBERING),
    "a sentence more": ("Describe the <ins>dog</ins> in detail. It is called Rex.", Refusal.TEXT),
    "a sentence before": ("Please help. Describe the <ins>dog</ins> in detail.", Refusal.TEXT),
    "a clause more": ("Describe the <ins>dog</ins>, which is white, in detail.", Refusal.TEXT),
    "a word lost": ("Describe the <ins>dog</ins> in.", Refusal.TEXT),
    "a word changed": ("Describe the <ins>dog</ins> in depth.", Refusal.TEXT),
    "a sign lost": ("Describe the <ins>dog</ins> in detail", Refusal.TEXT),
    "a capital lost": ("describe the <ins>dog</ins> in detail.", Refusal.TEXT),
    "blanks changed": ("Describe the <ins>dog</ins> in  detail.", Refusal.TEXT),
    "part of a word": ("Describe the <ins>dog</ins> within detail.", Refusal.TEXT),
    "a long phrase": ("Describe the <ins>dog</ins> " + "on the bed " * 4 + "in detail.", Refusal.TEXT),
    "a made-up detail": ("Describe the famous <ins>dog</ins> in detail.", Refusal.UNGROUNDED),
    "a made-up colour": ("Describe the red <ins>dog</ins> in detail.", Refusal.UNGROUNDED),
    "a made-up number": ("Describe the 2 <ins>dog</ins> in detail.", Refusal.UNGROUNDED),
    "a made-up place": ("Describe the <ins>dog</ins> from Paris in detail.", Refusal.UNGROUNDED),
    "another language": ("Beschreibe den <ins>dog</ins> auf der Decke mit allen Details.", Refusal.LANGUAGE),
    "other letters": ("详细描述这只 <ins>dog</ins>。", Refusal.LANGUAGE),
    "a foreign word before": ("Describe der <ins>dog</ins> in detail.", Refusal.LANGUAGE),
}


@pytest.mark.parametrize("name", BAD)
def test_everything_else_is_refused_by_name(name):
    text, reason = BAD[name]
    with pytest.raises(Refused) as error:
        judge(ONE, {0: text})
    assert error.value.reason is reason, str(error.value)


NOUNS = {
    "the same noun": ({0: "dog", 1: "dog"}, Refusal.NOT_TOLD_APART),
    "the same but for case": ({0: "dog", 1: " Dog"}, Refusal.NOT_TOLD_APART),
    "the same but for an article": ({0: "the dog", 1: "a dog"}, Refusal.NOT_TOLD_APART),
    "one of them fits both": ({0: "dog", 1: "white dog"}, Refusal.NOT_TOLD_APART),
    "one missing": ({0: "dog"}, Refusal.NO_PHRASE),
    "one empty": ({0: "dog", 1: " "}, Refusal.NO_PHRASE),
    "only an article": ({0: "dog", 1: "the"}, Refusal.NO_PHRASE),
}


@pytest.mark.parametrize("name", NOUNS)
def test_instances_must_be_told_apart(name):
    nouns, reason = NOUNS[name]
    texts = {0: Q.replace("laptop", nouns.get(1, "x")), 1: A.replace(">laptop<", f">{nouns.get(1, 'x')}<")}
    with pytest.raises(Refused) as error:
        judge(PAIR, texts, nouns)
    assert error.value.reason is reason


def test_two_dogs_with_different_looks_are_told_apart():
    raw = conversation("Does <object0> like <object1>?", "The brown dog plays with a white dog.", instances=2)
    text = {0: "Does the <ins>brown dog</ins> like the <ins>white dog</ins>?"}
    assert judge(raw, text, {0: "brown dog", 1: "white dog"})["conversations"][0]["value"] == text[0]


def test_a_head_noun_may_be_inferred_but_nothing_that_describes_it():
    for noun, fine in (("bulldog", True), ("white puppy", True), ("young dog", False), ("first dog", False)):
        text = {0: f"Describe the <ins>{noun}</ins> in detail."}
        if fine:
            assert judge(ONE, text, {0: noun})
        else:
            with pytest.raises(Refused) as error:
                judge(ONE, text, {0: noun})
            assert error.value.reason is Refusal.UNGROUNDED
    french = conversation("Où est le <object0> ?", "Le chat blanc est sur le lit.")
    assert judge(french, {0: "Où est le <ins>matou blanc</ins> ?"}, {0: "matou blanc"})


def test_a_tag_holds_a_noun_and_no_sentence():
    for noun in ("dog. It is famous", "dog, the best", "dog of the small white coat on the bed"):
        with pytest.raises(Refused, match="more than a short noun") as error:
            judge(ONE, {0: f"Describe the <ins>{noun}</ins> in detail."}, {0: noun}, with_frames=True)
        assert error.value.reason is Refusal.TEXT


def test_a_phrase_in_the_place_of_another_is_refused():
    with pytest.raises(Refused) as error:
        judge(PAIR, {0: "How do the <ins>laptop</ins> and the <ins>dog</ins> relate?", 1: A})
    assert error.value.reason is Refusal.NUMBERING
    with pytest.raises(Refused, match="text 1 is missing") as error:
        judge(PAIR, {0: Q})
    assert error.value.reason is Refusal.NO_PHRASE
    assert judge(PAIR, {0: Q, 1: A})


def test_a_verb_may_agree_with_its_phrase():
    raw = conversation("What is <object0> made of? <object0> is open.", "Steel scissors.")
    text = "What are the <ins>scissors</ins> made of? The <ins>scissors</ins> are open."
    assert judge(raw, {0: text}, {0: "scissors"})["conversations"][0]["value"] == text
    with pytest.raises(Refused):
        judge(raw, {0: text.replace(" are open", " were open")}, {0: "scissors"})


def test_frames_may_give_details_that_the_conversation_does_not():
    text = {0: "Describe the spotted <ins>dog</ins> in detail."}
    with pytest.raises(Refused):
        judge(ONE, text)
    assert judge(ONE, text, with_frames=True)


LANGUAGES = {
    "German": ("Was macht <object0> auf dem Bett?", "Was macht der <ins>Hund</ins> auf dem Bett?", "Hund"),
    "German, contracted": ("Wer steht bei dem <object0>?", "Wer steht beim <ins>Hund</ins>?", None),
    "French": ("Où est le <object0> ?", "Où est l'<ins>ours</ins> ?", "ours"),
    "Spanish": ("¿Qué hace <object0> en la cama?", "¿Qué hace el <ins>perro</ins> en la cama?", "perro"),
    "Chinese": ("<object0>在床上做什么？", "床上的<ins>狗</ins>在床上做什么？", "狗"),
    "Japanese": ("<object0>は何をしていますか。", "<ins>犬</ins>は何をしていますか。", "犬"),
    "Korean": ("<object0>는 어디에 있습니까?", "<ins>곰</ins>은 어디에 있습니까?", "곰"),
    "Russian": ("Что делает <object0> на кровати?", "Что делает <ins>собака</ins> на кровати?", "собака"),
}


@pytest.mark.parametrize("name", LANGUAGES)
def test_other_languages_are_kept(name):
    question, rewritten, noun = LANGUAGES[name]
    raw = conversation(question, "...")
    if noun is None:  # a contraction that swallows a word of the text
        with pytest.raises(Refused):
            judge(raw, {0: rewritten}, {0: "Hund"})
        return
    assert judge(raw, {0: rewritten}, {0: noun})["conversations"][0]["value"] == rewritten


@pytest.mark.parametrize("name", ["Chinese", "Russian", "Korean"])
def test_an_english_noun_in_other_letters_is_refused(name):
    question, rewritten, noun = LANGUAGES[name]
    with pytest.raises(Refused) as error:
        judge(conversation(question, "..."), {0: rewritten.replace(noun, "dog")}, {0: "dog"})
    assert error.value.reason is Refusal.LANGUAGE


BENCH_Q = "What does the <ins>dog</ins> do beside the <ins>laptop</ins>?"


def test_answer_letters_stay():
    judge(QUESTION, {0: BENCH_Q, 2: "(B) It eats the <ins>laptop</ins>"})
    for option in (
        "(C) It eats the <ins>laptop</ins>",
        "It eats the <ins>laptop</ins>",
        "(b) It eats the <ins>laptop</ins>",
    ):
        with pytest.raises(Refused) as error:
            judge(QUESTION, {0: BENCH_Q, 2: option})
        assert error.value.reason is Refusal.LETTER


def test_a_phrase_does_not_give_the_answer_away():
    texts = {0: BENCH_Q.replace("the <ins>dog", "the sleeping <ins>dog"), 2: "(B) It eats the <ins>laptop</ins>"}
    raw = {**QUESTION, "options": [*QUESTION["options"][:3], "(D) It is sleeping"]}
    for with_frames in (False, True):
        with pytest.raises(Refused) as error:
            judge(raw, texts, with_frames=with_frames)
        assert error.value.reason is Refusal.ANSWER_GIVEN


def test_synonyms_pass_the_same_checks():
    task = read_task(ONE, "file, record 0", "")

    def variant(noun, text):
        return accept_synonyms(task, Rewriting({0: "dog"}, {0: GOOD["a bare noun"]}, Rewriting({0: noun}, {0: text})))

    assert variant("canine", "Describe the <ins>canine</ins> in detail.")
    for noun, text, reason in (
        ("Dog", "Describe the <ins>Dog</ins> in detail.", Refusal.SYNONYM),
        ("", "Describe the <ins>dog</ins> in detail.", Refusal.SYNONYM),
        ("canine", "Describe the <ins>dog</ins> in detail.", Refusal.NUMBERING),
        ("canine", "Explain the <ins>canine</ins> in detail.", Refusal.TEXT),
    ):
        with pytest.raises(Refused) as error:
            variant(noun, text)
        assert error.value.reason is reason


def test_a_marked_fact_is_refused_wherever_it_is_added():
    """Before, behind and between all words, tags included; the other texts stay good."""
    question = {0: BENCH_Q, 2: "(B) It eats the <ins>laptop</ins>"}
    for raw, texts in ((PAIR, {0: Q, 1: A}), (QUESTION, question)):
        assert judge(raw, texts)
        for number, text in texts.items():
            for place in range(len(text) + 1):
                if place in (0, len(text)) or " " in text[place - 1 : place + 1] or ">" in text[place - 1 : place + 1]:
                    changed = {**texts, number: f"{text[:place]} FACTX17 {text[place:]}"}
                    with pytest.raises(Refused):
                        judge(raw, changed)


def test_every_word_outside_a_phrase_is_kept():
    """None can be dropped, doubled or swapped with the next; articles beside a phrase are its own."""
    words = A.split(" ")
    for place in (n for n, word in enumerate(words) if "<ins>" not in word and word.casefold() != "the"):
        dropped, doubled = [*words[:place], *words[place + 1 :]], [*words[: place + 1], *words[place:]]
        swapped = [*words[:place], *reversed(words[place : place + 2]), *words[place + 2 :]]
        for changed in (dropped, doubled, *([swapped] if swapped != words else [])):
            with pytest.raises(Refused):
                judge(PAIR, {0: Q, 1: " ".join(changed)})


SMUGGLED = {
    "a negation": "Does the <ins>dog</ins> not sit on the bed?",
    "a negation before": "Does not the <ins>dog</ins> sit on the bed?",
    "a preposition": "Does at the <ins>dog</ins> sit on the bed?",
    "a verb": "Does the <ins>dog</ins> does sit on the bed?",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_small_words_beside_a_phrase_cannot_turn_the_sentence(name):
    raw = conversation("Does <object0> sit on the bed?", "The dog that is on the bed does.")
    assert judge(raw, {0: "Does the <ins>dog</ins> that is on the bed sit on the bed?"})
    with pytest.raises(Refused) as error:
        judge(raw, {0: SMUGGLED[name]})
    assert error.value.reason is Refusal.TEXT
