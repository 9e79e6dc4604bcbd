"""Evidence of a word: features of maps made by hand, and a fit that tells them apart."""

import json
import math

import numpy as np
import pytest
import torch

from swim.attention.evidence import FEATURES, Fit, features_of, fit, judge, nouns_of_answer, read_fits, write_fits
from swim.attention.maps import Word
from swim.errors import DataError

EVEN = torch.full((3, 4, 5), 1 / 60)


def peaked(*cells: tuple[int, int]) -> torch.Tensor:
    """float32[T, 4, 5]: each step's attention on one cell."""
    maps = torch.zeros(len(cells), 4, 5)
    for step, (row, column) in zip(maps, cells):
        step[row, column] = 1 / len(cells)
    return maps


def test_features_of_maps_made_by_hand():
    even = dict(zip(FEATURES, features_of(0.5 * EVEN[None].repeat(2, 1, 1, 1), EVEN)))
    assert even == pytest.approx({"mass": 0.5, "sharpness": 0, "steadiness": 1, "peak": 1 / 20}, abs=1e-5)
    still = dict(zip(FEATURES, features_of(peaked((1, 1), (1, 1))[None], peaked((1, 1), (1, 1)))))
    assert still == pytest.approx({"mass": 1, "sharpness": 1, "steadiness": 1, "peak": 1}, abs=1e-5)
    near, far = (features_of(m[None], m)[2] for m in (peaked((1, 1), (1, 2)), peaked((0, 0), (3, 4))))
    assert far == pytest.approx(0, abs=1e-6) and 0.5 < near < 1
    assert features_of(peaked((2, 2))[None], peaked((2, 2)))[2] == 1.0  # an image is as steady as can be
    nothing = torch.zeros(2, 4, 5)
    assert all(math.isfinite(value) for value in features_of(nothing[None], nothing))


def test_a_fit_is_calibrated_on_what_it_can_tell_apart():
    rng = np.random.default_rng(0)
    supported = rng.random(400) < 0.5
    features = rng.normal(size=(400, len(FEATURES)))
    features[:, 1] = 0.3 + 0.1 * features[:, 1] + 0.15 * supported
    features[:, 3] = 7.0  # says nothing, and does not vary
    found = fit(features.tolist(), supported.tolist())
    probabilities = np.array([found.probability(values) for values in features])
    assert ((probabilities > 0.5) == supported).mean() > 0.72
    for low in (0.0, 0.25, 0.5, 0.75):  # of words with such a score so many are supported
        some = (probabilities >= low) & (probabilities < low + 0.25)
        assert abs(supported[some].mean() - probabilities[some].mean()) < 0.12
    with pytest.raises(ValueError, match="one kind alone"):
        fit([[0.0] * 4, [1.0] * 4], [True, True])


FITS = {"asked": Fit([0.0] * 4, [1.0] * 4, [1.0, 2.0, 3.0, 4.0], 0.5, 0.3)}


def test_fits_survive_a_file_and_others_are_refused(tmp_path):
    write_fits(tmp_path / "evidence.json", "a/model", FITS)
    assert read_fits(tmp_path / "evidence.json", "a/model") == FITS
    for content in ("{}", "[]", "{", json.dumps({"features": ["mass"], "fits": {}})):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(DataError, match="other.json: expected what swim evidence writes"):
            read_fits(tmp_path / "other.json", "a/model")
    with pytest.raises(DataError, match="no such file; swim evidence writes one"):
        read_fits(tmp_path / "none.json", "a/model")


def test_a_fit_says_nothing_of_another_model(tmp_path):
    """A model is its weights: its folder may move and its training's notes may go; training on into it makes another."""
    path, model, other = tmp_path / "evidence.json", tmp_path / "model", tmp_path / "other"
    for folder, weights in ((model, b"some"), (other, b"more")):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(weights)
        (folder / "training_args.bin").write_bytes(weights)
    write_fits(path, str(model), FITS)
    (model / "training_args.bin").unlink()
    model = model.rename(tmp_path / "moved")
    assert read_fits(path, str(model)) == FITS
    for stranger in (str(other), "a/model"):
        with pytest.raises(
            DataError, match=f"the fit is of .*/model, and says nothing of {stranger}; run swim evidence"
        ):
            read_fits(path, stranger)
    write_fits(path, str(model), FITS)
    (model / "model.safetensors").write_bytes(b"same")
    with pytest.raises(DataError, match="the fit is of weights that .*moved no longer has"):
        read_fits(path, str(model))
    write_fits(path, "a/model", FITS)
    with pytest.raises(DataError, match="the fit is of a/model, and says nothing of another/model"):
        read_fits(path, "another/model")


class Supervised:
    attention_supervision = {"layers": [0], "fusion": "mean"}


def test_tags_of_the_question_and_nouns_of_the_answer_are_judged():
    """A fit of sharpness alone: the dog is looked at, the bed is not."""
    sharp = Fit([0.0] * 4, [1.0] * 4, [0.0, 20.0, 0.0, 0.0], -10.0, 0.5)
    kinds = {"dog": "tag", "where": "question", "A": "answer", "bed": "answer", "is": "answer"}
    words = [Word(label, kind, n, n + 1) for n, (label, kind) in enumerate(kinds.items())]
    maps = EVEN[None, None].repeat(7, 1, 1, 1, 1)
    maps[0, 0] = peaked((1, 1), (1, 1), (1, 1))
    found = judge({"asked": sharp, "said": sharp}, words, maps, Supervised)
    assert {words[n].label: (each.place, each.looked) for n, each in found.items()} == {
        "dog": ("asked", True),
        "bed": ("said", False),
    }
    assert list(judge({"said": sharp}, words, maps, Supervised)) == [3] and judge({}, words, maps, Supervised) == {}


def test_the_nouns_of_an_answer():
    words = [Word(label, "answer", n, n + 1) for n, label in enumerate("The small dog sits on the bed .".split())]
    words.append(Word("dog", "tag", 9, 10))
    assert [word.label for word in nouns_of_answer(words)] == ["dog", "bed"] and nouns_of_answer([]) == []
