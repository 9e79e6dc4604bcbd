"""Fused element-wise work changes nothing but the speed."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._dynamo.utils import counters
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling

from swim.train.fusing import fuse_elementwise
from swim.train.run import train

from ..transformers.inputs import Spec, make_batch, make_tiny_config, make_tiny_model
from ..transformers.test_attention_supervision import MIXED, PAPER, assert_same_gradients, gradients_of
from .conftest import weights

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
TARGETS = r".*language_model.*\.(q_proj|gate_proj|down_proj)"


@pytest.fixture
def models(monkeypatch):
    """Function: two equal models in training mode, the second one fused."""
    monkeypatch.setattr(modeling, "apply_rotary_pos_emb", modeling.apply_rotary_pos_emb)  # put back afterwards

    def make(use_reentrant: bool | None = None, lora: bool = False):
        pair = [make_tiny_model(make_tiny_config(PAPER)).train() for _ in range(2)]
        fuse_elementwise(pair[1])
        for position, model in enumerate(pair):
            if use_reentrant is not None:
                model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
            if lora:
                torch.manual_seed(0)
                pair[position] = get_peft_model(model, LoraConfig(r=4, target_modules=TARGETS, init_lora_weights=False))
        return pair

    return make


@pytest.mark.parametrize(
    "options",
    [{}, {"use_reentrant": False}, {"use_reentrant": True}, {"lora": True}],
    ids=["kept", "non-reentrant", "reentrant", "lora"],
)
def test_loss_maps_and_gradients_stay(models, options):
    batch = make_batch(MIXED)
    plain, fused = models(**options)
    expected, found = plain(**batch), fused(**batch)
    for name in ("loss", "text_loss", "mask_loss", "attention_maps"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6)
    assert_same_gradients(gradients_of(fused, found.loss), gradients_of(plain, expected.loss), 1e-4)


def test_layers_and_lengths_share_the_code(models):
    """The first two lengths are compiled, one graph each for norms, gates and rotary embeddings; no later one is."""
    fused = models()[1]
    graphs = []
    for extra in range(5):
        fused(**make_batch([Spec("video", (2, 3, 4 + extra), after=20 + extra, tags={1: 0})])).loss.backward()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] >= 3 and graphs[1:] == [graphs[1]] * 4
    assert not counters["graph_break"]


def test_a_run_with_the_key_learns_the_same_weights(configure, monkeypatch):
    monkeypatch.setattr(modeling, "apply_rotary_pos_emb", modeling.apply_rotary_pos_emb)
    train(configure("plain"))
    fused = configure("fused", fuse_elementwise=True)
    train(fused)
    assert modeling.apply_rotary_pos_emb._torchdynamo_orig_callable is not None
    found, expected = weights(fused.output_dir), weights(Path(fused.output_dir).parent / "plain")
    for name, weight in expected.items():
        # Adam divides a gradient by its size: where it is next to nothing, rounding decides a weight's step. Biases start
        # at 0 and consist of such steps alone.
        tolerance = 1e-2 if name.endswith("bias") else 1e-3
        assert (found[name] - weight).norm() <= tolerance * weight.norm(), name
