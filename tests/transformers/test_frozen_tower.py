"""A vision tower that does not learn runs once, forward only, whatever checkpointing and adapters ask for."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model

from .inputs import family, make_batch, tower_runs
from .test_attention_supervision import MIXED, PAPER, assert_same_gradients, gradients_of, model_with

pytestmark = pytest.mark.usefixtures("each_family")
CHECKPOINTING = {"kept": None, "non-reentrant": False, "reentrant": True}


def training_model(use_reentrant: bool | None, learning: tuple[str, ...] = ()):
    """A model whose tower is frozen but for the parameters that begin with one of `learning`."""
    model = model_with(PAPER).train()
    for name, parameter in model.model.visual.named_parameters():
        parameter.requires_grad_(name.startswith(learning) if learning else False)
    if use_reentrant is not None:
        model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()  # as the Trainer and PEFT do
    return model


def loss_of(model, batch: dict) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="None of the inputs have requires_grad")
        return model(**batch).loss


def with_pixel_gradients(batch: dict) -> dict:
    """The same batch, asking for the gradient of its pixels: the tower then takes part in the backward pass."""
    pixels = ("pixel_values", "pixel_values_videos")
    return {name: value.clone().requires_grad_() if name in pixels else value for name, value in batch.items()}


@pytest.mark.parametrize("use_reentrant", CHECKPOINTING.values(), ids=CHECKPOINTING)
def test_a_frozen_tower_runs_forward_once_with_the_same_loss_and_gradients(use_reentrant):
    batch = make_batch(MIXED)
    model, differentiated = training_model(use_reentrant), training_model(use_reentrant)
    runs, expected_runs = tower_runs(model.model.visual), tower_runs(differentiated.model.visual)
    loss, expected = loss_of(model, batch), loss_of(differentiated, with_pixel_gradients(batch))
    assert torch.equal(loss, expected)
    found = gradients_of(model, loss)
    assert_same_gradients(found, gradients_of(differentiated, expected), 0)
    assert runs == {"forward": 1}
    assert expected_runs == {"forward": 1 if use_reentrant is None else 2, "backward": 1}


@pytest.mark.parametrize("use_reentrant", CHECKPOINTING.values(), ids=CHECKPOINTING)
def test_a_learning_merger_gets_its_gradient_and_the_blocks_before_it_run_once(use_reentrant):
    batch = make_batch(MIXED)
    mergers = family().mergers
    model, differentiated = (training_model(use_reentrant, learning=mergers) for _ in range(2))
    runs = tower_runs(model.model.visual)
    found = gradients_of(model, loss_of(model, batch))
    expected = gradients_of(differentiated, loss_of(differentiated, with_pixel_gradients(batch)))
    assert_same_gradients(found, expected, 0)
    learnt = [name for name, gradient in found.items() if "visual" in name and gradient is not None]
    assert {name.split(".")[2] for name in learnt} == set(mergers)
    assert all(found[name].abs().sum() > 0 for name in learnt if name.endswith("weight"))
    assert runs == {"forward": 1}


@pytest.mark.parametrize("learning", ["blocks.1", "patch_embed", "blocks.0.norm1"])
@pytest.mark.parametrize("use_reentrant", CHECKPOINTING.values(), ids=CHECKPOINTING)
def test_any_learning_part_of_the_blocks_gets_its_gradient(use_reentrant, learning):
    batch, model = make_batch(MIXED), training_model(use_reentrant, learning=(learning,))
    plain = training_model(None, learning=(learning,))
    found, expected = (gradients_of(one, loss_of(one, batch)) for one in (model, plain))
    assert_same_gradients(found, expected, 1e-5)
    assert any(gradient is not None and name.startswith("model.visual") for name, gradient in found.items())


@pytest.mark.parametrize("use_reentrant", CHECKPOINTING.values(), ids=CHECKPOINTING)
@pytest.mark.parametrize("tower", [False, True], ids=["language model", "tower too"])
def test_lora_runs_the_tower_backward_only_where_it_has_adapters(tower, use_reentrant):
    targets = ["q_proj", "v_proj", *(["qkv"] if tower else [])]
    model = model_with(PAPER).train()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=targets))
    if use_reentrant is not None:
        adapted.activation_checkpointing_enable({"use_reentrant": use_reentrant})
    adapted.enable_input_require_grads()
    runs = tower_runs(model.model.visual)
    gradients = gradients_of(adapted, loss_of(adapted, make_batch(MIXED)))
    assert runs["forward"] == (2 if tower and use_reentrant is not None else 1)
    assert ("backward" in runs) == tower
    for name, gradient in gradients.items():
        assert (gradient is not None) == ("lora_" in name and (tower or "visual" not in name)), name
