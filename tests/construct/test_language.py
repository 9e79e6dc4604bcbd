"""Words, and the languages that they tell."""

import pytest

from swim.construct.language import changed_language, foreign_letters, foreign_words, guess_language, words_of

SENTENCES = {
    "English": "What is the dog doing on the bed with a laptop?",
    "German": "Was macht der Hund mit dem Laptop auf dem Bett?",
    "French": "Que fait le chien avec un ordinateur sur le lit ?",
    "Spanish": "¿Qué hace el perro con un portátil en la cama?",
    "Italian": "Che cosa fa il cane con un computer sul letto?",
    "Portuguese": "O que o cachorro faz com um computador na cama?",
    "Dutch": "Wat doet de hond met een laptop op het bed?",
}


def test_each_character_of_a_script_without_spaces_is_a_word():
    assert words_of("The dog's 2 狗在 bed") == ["the", "dog", "s", "2", "狗", "在", "bed"]


@pytest.mark.parametrize("name", SENTENCES)
def test_sentences_tell_their_language(name):
    assert guess_language(SENTENCES[name]).name == name


def test_nothing_is_guessed_without_function_words():
    assert guess_language("dog laptop") is None and guess_language("") is None
    assert changed_language("dog laptop", SENTENCES["German"]) is None


@pytest.mark.parametrize("name", [name for name in SENTENCES if name != "English"])
def test_a_translation_is_noticed(name):
    assert changed_language(SENTENCES["English"], SENTENCES[name]) == f"{name} instead of English"
    assert changed_language(SENTENCES[name], SENTENCES[name]) is None


def test_other_letters_are_noticed():
    assert changed_language(SENTENCES["English"], "狗在床上做什么？") == "cjk letters instead of latin ones"
    assert changed_language("Что делает собака?", "What does it do?").startswith("latin letters")
    assert foreign_letters("the собака", SENTENCES["English"]) == ["собака"]
    assert foreign_letters("dog 2", SENTENCES["English"]) == []


def test_words_that_two_languages_share_are_no_sign():
    assert foreign_words("in the hat", SENTENCES["English"]) == []
    assert foreign_words("der", SENTENCES["English"]) == ["der"]
    assert foreign_words("the", SENTENCES["German"]) == ["the"]
