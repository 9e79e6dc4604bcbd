"""The options: their presets and defaults, that each of them does something, and what is refused."""

import math
from dataclasses import fields

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.attention_supervision import AttentionSupervisionConfig

from .. import reference
from ..inputs import make_batch, make_tiny_config, make_tiny_model
from ..test_attention_supervision import MIXED, PAPER, model_with

CHANGES = {
    "preset": "release",
    "layers": [0, 3],
    "fusion": "product",
    "query": "previous",
    "causal": False,
    "eps": 1e-3,
    "loss": "dice",
    "focal_gamma": 0.5,
    "text_loss_weight": 0.5,
    "mask_loss_weight": 2.0,
}


def test_every_option_is_tried():
    assert set(CHANGES) == {field.name for field in fields(AttentionSupervisionConfig)}


@pytest.mark.parametrize("option", CHANGES)
def test_each_option_changes_the_loss(option):
    batch = make_batch(MIXED)
    plain = PAPER | ({"loss": "focal"} if option == "focal_gamma" else {})
    with torch.no_grad():
        before, after = (model_with(options)(**batch).loss for options in (plain, plain | {option: CHANGES[option]}))
    assert abs(float(before - after)) > 1e-3


def test_presets_are_the_designs():
    shared = {"layers": None, "loss": "bce", "focal_gamma": 2.0, "text_loss_weight": 0.05, "mask_loss_weight": 1.0}
    for name, options in reference.PRESETS.items():
        assert AttentionSupervisionConfig(preset=name).to_dict() == {"preset": name, **options, **shared}
    assert AttentionSupervisionConfig() == AttentionSupervisionConfig(preset="paper")
    overridden = AttentionSupervisionConfig.from_dict({"preset": "release", "causal": True, "eps": 0.5}).to_dict()
    assert overridden == {"preset": "release", **reference.PRESETS["release"], **shared, "causal": True, "eps": 0.5}


def test_default_layers_are_every_fifth_from_two():
    assert AttentionSupervisionConfig().layers_of(28) == (2, 7, 12, 17, 22, 27)
    assert AttentionSupervisionConfig().layers_of(4) == (2,)
    assert AttentionSupervisionConfig(layers=[3, 0]).layers_of(4) == (3, 0)


def test_a_model_without_options_uses_the_defaults():
    batch = make_batch(MIXED)
    with torch.no_grad():
        plain = make_tiny_model(make_tiny_config())(**batch)
        explicit = model_with({"preset": "paper", "layers": [2]})(**batch)
    assert torch.equal(plain.loss, explicit.loss) and float(plain.mask_loss) > 0


def test_options_survive_a_checkpoint(tmp_path):
    options = {
        "preset": "release",
        "layers": [0, 2],
        "eps": "auto",
        "mask_loss_weight": 0.25,
        "loss": {"bce": 1, "dice": 0.5},
    }
    model, batch = model_with(options), make_batch(MIXED)
    model.save_pretrained(tmp_path)
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path, local_files_only=True).eval()
    assert type(loaded.config.attention_supervision) is dict and loaded.config.attention_supervision == options
    with torch.no_grad():
        assert torch.equal(loaded(**batch).loss, model(**batch).loss)


BAD_OPTIONS = {
    "unknown option": ({"layer": [1]}, "unknown option layer, did you mean 'layers'.; the options are preset, layers"),
    "unknown preset": ({"preset": "papers"}, "preset: expected one of .*, found 'papers'"),
    "unknown fusion": ({"fusion": "add"}, "fusion: expected one of .*, found 'add'"),
    "unknown query": ({"query": "next"}, "query: expected one of .*, found 'next'"),
    "causal a number": ({"causal": 1}, "causal: expected true or false"),
    "eps a word": ({"eps": "small"}, "eps: expected"),
    "eps negative": ({"eps": -1e-6}, "eps: expected"),
    "eps NaN": ({"eps": math.nan}, "eps: expected"),
    "unknown loss": ({"loss": "hinge"}, "loss: expected one of .*'bce'.* found 'hinge'"),
    "unknown loss of several": ({"loss": {"bce": 1, "Dice": 1}}, "loss: expected one of .* found 'Dice'"),
    "loss a list": ({"loss": ["bce"]}, "loss: expected one of .* found \\['bce'\\]"),
    "no loss": ({"loss": {}}, "loss: expected at least one"),
    "loss without weight": ({"loss": {"dice": 0}}, "loss: expected a weight above 0 for dice, found 0"),
    "loss weight a word": ({"loss": {"dice": "1"}}, "loss: expected a weight above 0 for dice, found '1'"),
    "gamma negative": ({"focal_gamma": -1}, "focal_gamma: expected a number of at least 0"),
    "weight negative": ({"mask_loss_weight": -1}, "mask_loss_weight: expected a number of at least 0"),
    "weight a word": ({"text_loss_weight": "1"}, "text_loss_weight: expected a number of at least 0"),
    "no layers": ({"layers": []}, "layers: expected a list of layer indices"),
    "layers a number": ({"layers": 3}, "layers: expected a list of layer indices"),
    "a layer twice": ({"layers": [1, 1]}, "layers: an index stands twice"),
    "layers beyond the model": ({"layers": [1, 4]}, "layers: expected indices from 0 to 3 .* found \\[4\\]"),
    "negative layer": ({"layers": [-1]}, "layers: expected indices from 0 to 3 .* found \\[-1\\]"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_named(name):
    options, message = BAD_OPTIONS[name]
    with pytest.raises(ValueError, match=message):
        model_with(options)(**make_batch(MIXED))
