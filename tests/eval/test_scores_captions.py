"""Caption metrics: values by hand, the library's own sums, and texts that break its tools."""

import random
import shutil

import numpy as np
import pytest

pytest.importorskip("pycocoevalcap")

from pycocoevalcap.bleu.bleu import Bleu  # noqa: E402

from swim.eval.scores_captions import METEOR, PTB, WORDS, _bleu, _penn_treebank, java_works, score_captions  # noqa: E402

needs_java = pytest.mark.skipif(not java_works(), reason="no Java")
GOLD = {"a": ["A dog runs over the green grass."], "b": ["The man, in black, opens a door.", "He opens a door"]}


@pytest.fixture
def without_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def test_words_by_pattern_where_there_is_no_java(without_java):
    found = score_captions(GOLD, {"a": "a DOG runs over the green grass", "b": "A man opens the door!"})
    assert found.tokenizer == WORDS and METEOR not in found.corpus
    a, b = found.items["a"], found.items["b"]
    assert a["BLEU-4"] == pytest.approx(100, abs=0.01) and a["ROUGE-L"] == 100 and a["CIDEr"] == pytest.approx(1000)
    # of five words a, man, opens, door and the are in a reference; the closest one has four: no brevity
    assert b["BLEU-1"] == pytest.approx(100, abs=0.01)
    # "opens the" and "the door" are in none; "a man" neither; "man opens" neither: 0 of 4
    assert b["BLEU-2"] == pytest.approx(0, abs=0.01)
    # longest common subsequences: man opens door (3 of 5; 3 of 7) and opens door (2 of 4): P .6, R .5, beta 1.2
    assert b["ROUGE-L"] == pytest.approx(100 * (1 + 1.44) * 0.6 * 0.5 / (0.5 + 1.44 * 0.6), abs=0.01)
    assert found.corpus["ROUGE-L"]["value"] == pytest.approx((a["ROUGE-L"] + b["ROUGE-L"]) / 2, abs=0.01)
    low, high = found.corpus["CIDEr"]["interval_95"]
    assert low <= found.corpus["CIDEr"]["value"] <= high and low < high
    # of the corpus: matches over both, 12 of 12 words
    assert found.corpus["BLEU-1"]["value"] == pytest.approx(100, abs=0.01)


def test_nothing_said_is_worth_nothing_and_one_item_has_no_interval(without_java):
    found = score_captions(GOLD, {"a": None, "b": ""})
    assert all(value == pytest.approx(0, abs=1e-3) for scores in found.items.values() for value in scores.values())
    alone = score_captions({"a": GOLD["a"]}, {"a": GOLD["a"][0]})
    assert alone.corpus["BLEU-4"] == {"value": pytest.approx(100, abs=0.01), "interval_95": None}
    assert alone.items["a"]["CIDEr"] == 0  # nothing is rare among one


def test_bleu_is_the_librarys():
    rng = random.Random(0)

    def some() -> str:
        return " ".join(rng.choices("a the dog cat runs sits on grass bed red".split(), k=rng.randint(0, 12)))

    given = {str(n): [some()] for n in range(60)}
    gold = {key: [f"the {some()}" for _ in range(rng.randint(1, 3))] for key in given}
    value, items = Bleu(4).compute_score(gold, given, verbose=0)
    found = dict(_bleu(gold, given))
    for n in range(4):
        metric = found[f"BLEU-{n + 1}"]
        assert metric.value == pytest.approx(value[n], abs=1e-9) and metric.interval[0] < value[n] < metric.interval[1]
        np.testing.assert_allclose(metric.items, items[n], atol=1e-9)


@needs_java
def test_published_tokens_and_meteor():
    found = score_captions(GOLD, {"a": "a dog runs over the green grass", "b": "something else"})
    assert found.tokenizer == PTB
    assert found.items["a"][METEOR] == pytest.approx(100) and found.items["b"][METEOR] < 20
    low, high = found.corpus[METEOR]["interval_95"]
    assert low <= found.corpus[METEOR]["value"] <= high
    assert _penn_treebank(['The man\'s dog, "Rex" (old) runs.']) == ["the man 's dog rex -lrb- old -rrb- runs"]


@needs_java
def test_no_text_loses_its_place():
    """Line and paragraph separators, half of nothing, and the bars that METEOR's tool separates its texts by."""
    texts = [
        "",
        "a\nb",
        "two\u2028lines\u2029and\x0bmore\x85",
        "x ||| y",
        "\U0001f600",
        "caf\u00e9 \u732b",
        "\t",
        "b " * 3000,
    ]
    gold = {str(n): [f"caption number {n}"] for n in range(len(texts) + 1)}
    given = {str(n): text for n, text in enumerate(texts)} | {str(len(texts)): f"caption number {len(texts)}"}
    found = score_captions(gold, given)
    assert found.items[str(len(texts))]["ROUGE-L"] == 100 and found.items[str(len(texts))][METEOR] == pytest.approx(100)
    assert all(found.items[str(n)]["BLEU-1"] == pytest.approx(0, abs=0.01) for n in range(len(texts)))


def test_a_java_that_only_says_where_to_get_one_is_none(monkeypatch, tmp_path):
    stub = tmp_path / "java"
    stub.write_text("#!/bin/sh\necho 'Unable to locate a Java Runtime.' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert shutil.which("java") == str(stub) and not java_works()
