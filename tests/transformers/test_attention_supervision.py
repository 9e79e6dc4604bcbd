"""Attention supervision equals the slow reference, and stays finite and connected. Its cost: test_cost.py."""

import copy
import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.attention_supervision import (
    AttentionSupervisionConfig,
    Supervision,
    fuse_layers,
    grounding_sums,
    mask_loss,
    plan_supervision,
)
from transformers.models.qwen2_5_vl.attention_supervision import find_visual_tokens

from . import reference
from .inputs import (
    IGNORE,
    SUPERVISION,
    VOCABULARY,
    Spec,
    make_batch,
    make_tiny_config,
    make_tiny_model,
    offset_of,
    without_supervision,
)

LAYERS = [1, 3]
# Two videos and two images of different grids, lengths and numbers of tags, and text alone. Instance 1 of the first
# video has no mask in step 0; instance 0 of the second image has none at all, so its token takes no part.
MIXED = [
    Spec("video", (3, 3, 4), before=2, after=9, tags={1: 0, 2: 0, 6: 1}, masks={(0, 0), (0, 2), (1, 1)}),
    Spec("image", (1, 5, 2), before=4, after=4, tags={0: 0}),
    Spec(None, before=5, after=3),
    Spec("video", (2, 2, 3), before=1, after=12, tags={3: 1, 11: 0}, seconds_per_step=0.5),
    Spec("image", (1, 2, 2), before=3, after=5, tags={2: 0, 4: 1}, masks={(1, 0)}),
]
PAPER, RELEASE = {"preset": "paper", "layers": LAYERS}, {"preset": "release", "layers": LAYERS}


def model_with(options: dict, attn_implementation: str = "sdpa"):
    return make_tiny_model(make_tiny_config(options), attn_implementation=attn_implementation)


def starts_of(specs, batch, padding_side) -> list[int]:
    return [offset_of(spec, batch["input_ids"].shape[1], padding_side) for spec in specs]


def assert_same_grounding(found: torch.Tensor, expected: list[float]):
    """Counts are exact. The sums of shares add float32 shares of maps that may differ by 1e-4, see the maps' own test:
    how a processor orders its sums decides the digits below."""
    found, expected = found.double(), torch.tensor(expected).double()
    assert found[[0, 3, 4]].tolist() == expected[[0, 3, 4]].tolist()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def plan_of(model, batch, options=None):
    config = AttentionSupervisionConfig.from_dict(options or model.config.attention_supervision)
    grids = (batch.get("image_grid_thw"), batch.get("video_grid_thw"))
    visual = find_visual_tokens(model.config, batch["input_ids"], *grids)
    supervision = Supervision(*(batch[name] for name in Supervision._fields))
    mask, labels = batch["attention_mask"], batch["labels"]
    return plan_supervision(model.config.text_config, config, supervision, visual, mask, labels), config


def gradients_of(model, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same_gradients(found: dict, expected: dict, tolerance: float):
    """Each parameter's gradient differs by at most `tolerance` of its own norm (absent equals zero)."""
    assert found.keys() == expected.keys()
    scale = max(float(gradient.norm()) for gradient in expected.values() if gradient is not None)
    assert scale > 0
    for name in found:
        one, other = (torch.zeros(1) if side[name] is None else side[name] for side in (found, expected))
        assert float((one - other).norm()) <= tolerance * float(other.norm()) + 1e-6 * scale, name


# ----------------------------------------------------------------------------------------------------------------------
# Rows and maps
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("with_positions", [False, True], ids=["own positions", "given positions"])
def test_rows_are_the_rows_of_eager_attention(padding_side, with_positions):
    batch = make_batch(MIXED, padding_side)
    model, eager = model_with(PAPER), model_with(PAPER, "eager")
    inputs = {k: v for k, v in without_supervision(batch).items() if k != "labels"}
    if with_positions:
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        given = {name: inputs[name] for name in (*names, "attention_mask")}
        inputs["position_ids"] = model.model.get_rope_index(**given)[0]
        assert inputs["position_ids"].shape == (3, *batch["input_ids"].shape)
    with torch.no_grad():
        attentions = eager(**inputs, output_attentions=True).attentions
        plan, _ = plan_of(model, batch)
        model.model(**inputs, attention_rows=plan.rows, use_cache=False)
    assert len(plan.rows.rows) == len(LAYERS)
    for rows, layer in zip(plan.rows.rows, LAYERS):
        assert rows.dtype == torch.float32
        checked = 0
        for b, (spec, start) in enumerate(zip(MIXED, starts_of(MIXED, batch, padding_side))):
            tokens = [word for word in sorted(spec.tags) if any(i == spec.tags[word] for i, _ in spec.annotated())]
            for row, word in enumerate(tokens):
                first = start + spec.first_cell
                expected = attentions[layer][b, :, start + spec.behind + word, first : first + spec.cells].mean(0)
                found = rows[b, row].exp()[plan.cells[b].flatten()]
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
                checked += 1
        assert checked == 7


@pytest.mark.parametrize("options", [PAPER, RELEASE], ids=["paper", "release"])
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_maps_grounding_and_loss_are_the_references(options, padding_side):
    batch = make_batch(MIXED, padding_side)
    rules = reference.PRESETS[options["preset"]]
    output = model_with(options)(**batch)
    found = reference.maps(model_with(options), batch, MIXED, starts_of(MIXED, batch, padding_side), LAYERS, rules)
    assert output.attention_maps.shape == (5, 3, 3, 5, 4) and not output.attention_maps.requires_grad
    expected = torch.zeros(5, 3, 3, 5, 4, dtype=torch.float64)
    for b, tokens in enumerate(found):
        for row, (_, attention) in enumerate(tokens):
            t, h, w = attention.shape
            expected[b, row, :t, :h, :w] = attention.detach()
    used = expected.flatten(2).sum(-1) > 0
    assert used.sum(1).tolist() == [3, 1, 0, 2, 1]
    torch.testing.assert_close(output.attention_maps[used].double(), expected[used], atol=1e-6, rtol=1e-4)
    assert_same_grounding(output.grounding, reference.grounding(found, batch))
    torch.testing.assert_close(
        output.mask_loss.double(), reference.mask_loss(found, batch, rules["eps"]), rtol=1e-4, atol=0
    )


VARIANTS = {
    "paper": ({}, 1),
    "release": ({"preset": "release"}, 1),
    "product": ({"fusion": "product"}, 1),
    "release, mean": ({"preset": "release", "fusion": "mean"}, 1),
    "previous": ({"query": "previous"}, 1),
    "release, token": ({"preset": "release", "query": "token"}, 1),
    "not causal": ({"causal": False}, 1),
    "release, causal": ({"preset": "release", "causal": True}, 1),
    "eps number": ({"eps": 1e-3}, 1),
    "release, eps auto": ({"preset": "release", "eps": "auto"}, 1),
    "one layer": ({"layers": [2]}, 1),
    "all layers": ({"layers": [0, 1, 2, 3], "fusion": "product"}, 1),
    "masks at r=2": ({}, 2),
    "release, masks at r=3": ({"preset": "release"}, 3),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_mask_loss_and_its_gradients_are_the_references(name):
    """Every parameter's gradient equals the one through eager attention and the reference within 1 % of its norm.

    Both run in float32, and a cell near its step's minimum multiplies their rounding: up to 0.1 % was seen on processors
    of two makers. A rule that is not the reference's changes gradients by more than 10 %, see the next test.
    """
    options, resolution = VARIANTS[name]
    options = {"layers": LAYERS, **options}
    rules = reference.PRESETS[options.get("preset", "paper")] | options
    specs = MIXED[:3]
    batch = make_batch(specs, "left", resolution)
    model = model_with(options)
    loss = model(**batch).mask_loss
    other = model_with(options)
    found = reference.maps(other, batch, specs, starts_of(specs, batch, "left"), options["layers"], rules)
    expected = reference.mask_loss(found, batch, rules["eps"], resolution)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=0)
    assert_same_gradients(gradients_of(model, loss), gradients_of(other, expected), 1e-2)


WRONG = {"fusion": "product", "query": "previous", "causal": False, "eps": 1e-3, "layers": [1, 2]}


@pytest.mark.parametrize("rule", WRONG)
def test_the_tolerance_tells_rules_apart(rule):
    """What the test above allows is far below what a wrong rule does to the gradient."""
    batch = make_batch(MIXED[:3], "left")
    right, wrong = (model_with(PAPER | options) for options in ({}, {rule: WRONG[rule]}))
    sides = [gradients_of(model, model(**batch).mask_loss) for model in (right, wrong)]
    name = "model.language_model.layers.1.self_attn.q_proj.weight"
    one, other = (side[name] for side in sides)
    assert float((one - other).norm()) > 0.1 * float(one.norm())


def test_pointing_and_inside_at_a_finer_mask_resolution():
    specs = [Spec("video", (2, 3, 3), tags={0: 0, 3: 1}), Spec("image", (1, 4, 2), tags={1: 0})]
    batch = make_batch(specs, resolution=2)
    batch["ins_masks"][0, 0, 0] = 0  # covers no cell by 0.1: left out
    batch["ins_masks"][0, 0, 0, 0, 0] = 0.3
    output = model_with(PAPER)(**batch)
    found = reference.maps(model_with(PAPER), batch, specs, [0, 0], LAYERS, reference.PRESETS["paper"])
    expected = reference.grounding(found, batch, resolution=2)
    assert expected[3:] == [4.0, 1.0]
    assert_same_grounding(output.grounding, expected)


def test_grounding_of_a_map_made_by_hand():
    specs = [Spec("video", (2, 2, 2), tags={0: 0})]
    batch = make_batch(specs)
    batch["ins_masks"][0, 0] = torch.tensor([[[1.0, 0.05], [0.0, 0.0]], [[0.0, 0.0], [0.1, 1.0]]])
    plan, _ = plan_of(model_with(PAPER), batch)
    attention = torch.tensor([[0.3, 0.1, 0.05, 0.05], [0.3, 0.1, 0.05, 0.05]]).view(1, 1, 2, 2, 2)
    # step 0 points and has 0.3 of 0.5 inside one of four cells; step 1 misses with 0.1 of 0.5 inside two of four
    torch.testing.assert_close(grounding_sums(attention, batch["ins_masks"], plan), torch.tensor([1, 0.8, 0.75, 2, 0]))


# ----------------------------------------------------------------------------------------------------------------------
# Options
# ----------------------------------------------------------------------------------------------------------------------

CHANGES = {
    "preset": "release",
    "layers": [0, 3],
    "fusion": "product",
    "query": "previous",
    "causal": False,
    "eps": 1e-3,
    "text_loss_weight": 0.5,
    "mask_loss_weight": 2.0,
}


def test_every_option_is_tried():
    assert set(CHANGES) == {field.name for field in fields(AttentionSupervisionConfig)}


@pytest.mark.parametrize("option", CHANGES)
def test_each_option_changes_the_loss(option):
    batch = make_batch(MIXED)
    with torch.no_grad():
        before, after = (model_with(options)(**batch).loss for options in (PAPER, PAPER | {option: CHANGES[option]}))
    assert abs(float(before - after)) > 1e-3


def test_presets_are_the_designs():
    shared = {"layers": None, "text_loss_weight": 0.05, "mask_loss_weight": 1.0}
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
    options = {"preset": "release", "layers": [0, 2], "eps": "auto", "mask_loss_weight": 0.25}
    model, batch = model_with(options), make_batch(MIXED)
    model.save_pretrained(tmp_path)
    loaded = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path, local_files_only=True).eval()
    assert type(loaded.config.attention_supervision) is dict and loaded.config.attention_supervision == options
    with torch.no_grad():
        assert torch.equal(loaded(**batch).loss, model(**batch).loss)


# ----------------------------------------------------------------------------------------------------------------------
# The two terms
# ----------------------------------------------------------------------------------------------------------------------


def test_loss_is_the_weighted_sum_and_logits_are_absent():
    batch = make_batch(MIXED)
    for weights, expected in (({}, (0.05, 1.0)), ({"text_loss_weight": 0.5, "mask_loss_weight": 3}, (0.5, 3))):
        output = model_with(PAPER | weights)(**batch)
        assert output.logits is None
        assert float(output.text_loss) > 0 and float(output.mask_loss) > 0
        torch.testing.assert_close(output.loss, expected[0] * output.text_loss + expected[1] * output.mask_loss)


@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_text_loss_and_its_gradients_are_stocks(padding_side):
    batch = make_batch(MIXED, padding_side)
    model, stock = model_with(PAPER), model_with(PAPER)
    found, expected = model(**batch).text_loss, stock(**without_supervision(batch)).loss
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert_same_gradients(gradients_of(model, found), gradients_of(stock, expected), 1e-4)


# ----------------------------------------------------------------------------------------------------------------------
# Batches without supervision or labels; the vision tower
# ----------------------------------------------------------------------------------------------------------------------


def tower_calls(model) -> list:
    calls = []
    model.model.visual.register_forward_hook(
        lambda module, args, kwargs, output: calls.append(kwargs), with_kwargs=True
    )
    return calls


UNSUPERVISED = {
    "no tag": [Spec("video", (2, 3, 4)), Spec("image", (1, 2, 2))],
    "tags without a mask": [Spec("video", (2, 3, 4), tags={0: 0, 3: 1}, masks=set())],
    "text": [Spec(None), Spec(None, after=3)],
}


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_without_supervision_the_mask_loss_is_a_connected_zero(name):
    batch = make_batch(UNSUPERVISED[name])
    model = model_with(PAPER)
    output = model(**batch)
    assert float(output.mask_loss) == 0.0 and output.mask_loss.requires_grad
    assert output.grounding.tolist() == [0.0] * 5
    gradients = gradients_of(model, output.mask_loss)
    reached = {name for name, gradient in gradients.items() if gradient is not None}
    rows_need = {f"model.language_model.layers.{layer}.self_attn.{p}_proj.weight" for layer in LAYERS for p in "qk"}
    assert rows_need <= reached
    assert all(float(gradients[name].abs().max()) == 0.0 for name in reached)
    everything = gradients_of(model, model(**batch).loss)
    assert {name for name, gradient in everything.items() if gradient is None} == set()


def test_without_labels_the_text_loss_is_a_connected_zero():
    batch = make_batch(MIXED)
    for labels in (None, torch.full_like(batch["labels"], IGNORE)):
        model = model_with(PAPER)
        output = model(**batch | {"labels": labels})
        assert float(output.text_loss) == 0.0 and float(output.loss) == float(output.mask_loss) > 0
        gradients = gradients_of(model, output.text_loss)
        assert gradients["lm_head.weight"] is not None and gradients["model.language_model.norm.weight"] is not None
        assert all(float(gradient.abs().max()) == 0.0 for gradient in gradients.values() if gradient is not None)


@pytest.mark.parametrize(
    ("specs", "patches"),
    [
        (UNSUPERVISED["text"], 4),
        (MIXED, 4 * (36 + 10 + 12 + 4)),
        (MIXED[:1], 4 * 36),
        (MIXED[1:2], 4 * 10),
    ],
    ids=["text", "videos and images", "video", "image"],
)
def test_the_vision_tower_runs_exactly_once(specs, patches):
    model = model_with(PAPER)
    calls = tower_calls(model)
    output = model(**make_batch(specs))
    assert [int(call["grid_thw"].prod(1).sum()) for call in calls] == [patches]
    gradients = gradients_of(model, output.loss)
    visual = [gradient for name, gradient in gradients.items() if "visual" in name]
    assert all(gradient is not None for gradient in visual)
    assert (max(float(gradient.abs().max()) for gradient in visual) == 0.0) == (specs is UNSUPERVISED["text"])


def test_a_given_vision_output_is_not_made_again():
    batch, model = make_batch(MIXED[:2]), model_with(PAPER)
    expected = model(**batch).loss
    with torch.no_grad():
        outputs = {
            "video": model.model.get_video_features(batch["pixel_values_videos"], batch["video_grid_thw"]),
            "image": model.model.get_image_features(batch["pixel_values"], batch["image_grid_thw"]),
        }
    calls = tower_calls(model)
    torch.testing.assert_close(model(**batch, mm_encoder_outputs=outputs).loss, expected)
    assert calls == []


# ----------------------------------------------------------------------------------------------------------------------
# Checkpointing, attention implementations, dtypes
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_gradient_checkpointing_keeps_the_gradients(use_reentrant):
    batch = make_batch(MIXED)
    plain, checkpointed = model_with(PAPER).train(), model_with(PAPER).train()
    checkpointed.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    calls = []
    checkpointed.model.language_model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = gradients_of(plain, plain(**batch).loss)
    assert_same_gradients(gradients_of(checkpointed, checkpointed(**batch).loss), expected, 1e-5)
    assert len(calls) == 2  # the layer really was computed again


def test_mask_loss_alone_survives_a_reentrant_checkpoint():
    batch = make_batch(MIXED)
    plain, checkpointed = model_with(PAPER).train(), model_with(PAPER).train()
    checkpointed.gradient_checkpointing_enable({"use_reentrant": True})
    expected = gradients_of(plain, plain(**batch).mask_loss)
    assert_same_gradients(gradients_of(checkpointed, checkpointed(**batch).mask_loss), expected, 1e-5)


def test_sdpa_and_eager_give_the_same_gradients():
    batch = make_batch(MIXED, "left")
    models = [model_with(PAPER, implementation) for implementation in ("sdpa", "eager")]
    losses = [model(**batch).loss for model in models]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    assert_same_gradients(gradients_of(models[0], losses[0]), gradients_of(models[1], losses[1]), 1e-3)


@pytest.mark.parametrize("options", [PAPER, RELEASE], ids=["paper", "release"])
def test_bf16_is_finite_and_near_float32(options):
    batch = make_batch(MIXED)
    expected = float(model_with(options)(**batch).mask_loss)
    model = model_with(options).to(torch.bfloat16)
    output = model(**batch)
    assert output.mask_loss.dtype == torch.float32 and output.attention_maps.dtype == torch.float32
    assert abs(float(output.mask_loss) - expected) < 0.2 * expected
    gradients = gradients_of(model, output.loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values() if gradient is not None)


def test_rows_are_float32_under_autocast():
    batch, model = make_batch(MIXED), model_with(PAPER)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    assert output.mask_loss.dtype == torch.float32
    assert abs(float(output.mask_loss) - float(model(**batch).mask_loss)) < 0.2 * float(output.mask_loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize("options", [PAPER, RELEASE], ids=["paper", "release"])
def test_flat_attention_is_finite(options, dtype):
    """Queries of zero: every row is uniform, max and min of a step are equal."""
    batch, model = make_batch(MIXED), model_with(options).to(dtype)
    for layer in model.model.language_model.layers:
        torch.nn.init.zeros_(layer.self_attn.q_proj.weight)
        torch.nn.init.zeros_(layer.self_attn.q_proj.bias)
    output = model(**batch)
    assert math.isfinite(float(output.mask_loss))
    gradients = gradients_of(model, output.loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values() if gradient is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize("options", [PAPER, RELEASE], ids=["paper", "release"])
def test_sharp_attention_is_finite(options, dtype):
    """Queries of a hundred times their size: rows are one-hot to the last digit, some steps hold no mass at all."""
    batch, model = make_batch(MIXED), model_with(options).to(dtype)
    for layer in LAYERS:
        model.model.language_model.layers[layer].self_attn.q_proj.weight.data.mul_(100)
    output = model(**batch)
    # a step without mass has p = 0 everywhere: its loss is at most 100 where the mask is
    assert math.isfinite(float(output.mask_loss)) and float(output.mask_loss) < 100
    gradients = gradients_of(model, output.loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values() if gradient is not None)


# ----------------------------------------------------------------------------------------------------------------------
# Numerics of the loss itself
# ----------------------------------------------------------------------------------------------------------------------

GRID = (2, 3, 4)


@pytest.fixture(scope="module")
def planned():
    """For each preset (plan, config, batch) of one video with two supervised tokens."""
    model, batch = make_tiny_model(make_tiny_config()), make_batch([Spec("video", GRID, tags={0: 0, 3: 1})])
    return {name: (*plan_of(model, batch, {"preset": name, "layers": LAYERS}), batch) for name in reference.PRESETS}


ROWS = {
    "uniform": torch.zeros(24),
    "one-hot": torch.full((24,), -1e4).index_fill(0, torch.tensor([5]), 0.0),
    "one-hot in the mask": torch.full((24,), -1e4).index_fill(0, torch.tensor([0]), 0.0),
    "two equal peaks": torch.full((24,), -50.0).index_fill(0, torch.tensor([0, 23]), -0.7),
    "far below one": torch.full((24,), -300.0) + torch.linspace(0, 1, 24),
    "all but nothing": torch.full((24,), -1e30),
}
MASKS = {
    "full": torch.ones(GRID),
    "empty": torch.zeros(GRID),
    "one cell": torch.zeros(GRID).index_put(
        (torch.tensor([0, 1]), torch.tensor([0, 2]), torch.tensor([0, 3])), torch.ones(2)
    ),
    "shares": torch.linspace(0, 1, 24).view(GRID),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("preset", reference.PRESETS)
def test_any_row_and_any_mask_is_finite(planned, preset, row, mask, dtype):
    plan, config, _ = planned[preset]
    rows = [ROWS[row].expand(1, 2, -1).clone().requires_grad_() for _ in LAYERS]
    masks = MASKS[mask].expand(1, 2, *GRID).to(dtype)
    attention = fuse_layers([leaf.to(dtype).float() for leaf in rows], plan.cells, config)
    loss = mask_loss(attention, masks, plan, config)
    loss.backward()
    assert 0 <= float(loss.detach()) <= 100
    assert all(torch.isfinite(leaf.grad).all() for leaf in rows)
    # d loss / d log(row) is a sum of at most 1 / RELATIVE_FLOOR per pair and cell, averaged
    assert all(float(leaf.grad.abs().max()) < 1e5 for leaf in rows)


@pytest.mark.parametrize("resolution", [1, 2, 3])
def test_autocast_does_not_reach_the_mask_loss(resolution):
    """A mixed-precision step computes the loss of its map in float32, masks finer than the grid included."""
    batch = make_batch(MIXED[:2], resolution=resolution)
    model = model_with(PAPER)
    plan, config = plan_of(model, batch)
    with torch.no_grad():
        model.model(**{k: v for k, v in without_supervision(batch).items() if k != "labels"}, attention_rows=plan.rows)
    losses, sums, maps = [], [], []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            maps.append(fuse_layers(plan.rows.rows, plan.cells, config))
            losses.append(mask_loss(maps[0], batch["ins_masks"], plan, config))
            sums.append(grounding_sums(maps[0], batch["ins_masks"], plan))
    assert losses[0].dtype == losses[1].dtype == torch.float32
    for pair in (maps, losses, sums):
        assert torch.equal(*pair)


def test_p_of_one_on_an_empty_cell_pulls_it_down_gently(planned):
    """The peaks, one in each step, lie on empty cells: the gradient lowers them, and stays of order one."""
    for preset in reference.PRESETS:
        plan, config, _ = planned[preset]
        row = torch.linspace(-5, -4, 24).expand(1, 2, -1).clone()
        row[..., 5], row[..., 17] = -0.1, -0.2
        leaf = row.requires_grad_()
        masks = torch.zeros(1, 2, *GRID)
        masks[..., 1, 3] = 1
        mask_loss(fuse_layers([leaf], plan.cells, config), masks, plan, config).backward()
        peaks = leaf.grad[..., [5, 17]]
        assert float(peaks.min()) > 0.01 and float(leaf.grad.abs().max()) < 10


def test_zero_eps_is_finite_too(planned):
    plan, _, _ = planned["paper"]
    config = AttentionSupervisionConfig(preset="release", layers=LAYERS, eps=0)
    for row in ROWS.values():
        leaf = row.expand(1, 2, -1).clone().requires_grad_()
        loss = mask_loss(
            fuse_layers([leaf, leaf], plan.cells, config), MASKS["shares"].expand(1, 2, *GRID), plan, config
        )
        loss.backward()
        assert math.isfinite(float(loss.detach())) and torch.isfinite(leaf.grad).all()


def test_paper_loss_means_the_same_at_any_number_of_cells():
    """A uniform map costs the same on 4 cells and on 400, and so does a map that is right."""
    losses = {"flat": [], "right": []}
    for side in (2, 20):
        batch = make_batch([Spec("video", (1, side, side), tags={0: 0})])
        batch["ins_masks"][:] = 0
        batch["ins_masks"][..., : side // 2] = 1
        plan, config = plan_of(make_tiny_model(make_tiny_config()), batch, {"layers": [1]})
        flat = torch.zeros(1, 1, side * side)
        right = torch.where(batch["ins_masks"].flatten(3)[:, :, 0] > 0, 0.0, -9.0)
        for name, row in (("flat", flat), ("right", right)):
            loss = mask_loss(fuse_layers([row], plan.cells, config), batch["ins_masks"], plan, config)
            losses[name].append(float(loss))
    assert losses["flat"][0] == pytest.approx(losses["flat"][1], rel=1e-5)
    assert losses["right"][0] == pytest.approx(losses["right"][1], rel=1e-2) and losses["right"][0] < 0.5


log_value = st.one_of(st.floats(-12, 0), st.floats(-1e4, 0), st.sampled_from([0.0, -1e-7, -88.0, -104.0, -1e30]))
share = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))


@settings(max_examples=60)
@given(
    logs=st.lists(log_value, min_size=24, max_size=24),
    other=st.lists(log_value, min_size=24, max_size=24),
    mask=st.lists(share, min_size=24, max_size=24),
    preset=st.sampled_from(sorted(reference.PRESETS)),
)
def test_any_log_rows_give_the_references_value_and_finite_gradients(planned, logs, other, mask, preset):
    plan, config, batch = planned[preset]
    rows = [torch.tensor(values).expand(1, 2, -1).clone().requires_grad_() for values in (logs, other)]
    masks = torch.tensor(mask).view(GRID).expand(1, 2, *GRID)
    attention = fuse_layers(rows, plan.cells, config)
    loss = mask_loss(attention, masks, plan, config)
    loss.backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in rows)
    # the reference's steps 3 to 5 on the same map; logarithms near 0 and the clamp at -100 are where float32 differs
    exact = attention.detach().double()
    found = [[(0, exact[0, 0]), (1, exact[0, 1])]]
    expected = reference.mask_loss(found, batch | {"ins_masks": masks}, config.eps)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=2e-2, abs=2e-3)


@settings(max_examples=60)
@given(
    logs=st.lists(st.floats(-60, 0), min_size=24, max_size=24),
    other=st.lists(st.floats(-60, 0), min_size=24, max_size=24),
    fusion=st.sampled_from(["mean", "product"]),
)
def test_fused_maps_are_the_references_and_sum_to_one(planned, logs, other, fusion):
    plan = planned["paper"][0]
    config = AttentionSupervisionConfig(fusion=fusion)
    rows = [torch.tensor(values).expand(1, 2, -1) for values in (logs, other)]
    found = fuse_layers(rows, plan.cells, config)
    expected = reference.fuse([row[0, 0].double().exp() for row in rows], fusion, "auto").view(GRID)
    torch.testing.assert_close(found[0, 1].double(), expected, rtol=1e-4, atol=1e-12)
    assert float(found[0, 0].sum()) == pytest.approx(1, abs=1e-5)


def test_a_product_of_many_small_layers_does_not_underflow(planned):
    """Thirty layers of 1e-6 make 1e-180, far below float32; in log space the map is still there."""
    plan = planned["paper"][0]
    row = torch.full((1, 2, 24), math.log(1e-6)).index_fill(2, torch.tensor([7]), math.log(2e-6))
    found = fuse_layers([row] * 30, plan.cells, AttentionSupervisionConfig(fusion="product"))
    assert float(found[0, 0].flatten()[7]) == pytest.approx(2**30 / (2**30 + 23), rel=1e-3)


# ----------------------------------------------------------------------------------------------------------------------
# What cannot be supervised
# ----------------------------------------------------------------------------------------------------------------------

ONE = [Spec("video", (2, 3, 4), before=3, after=8, tags={1: 0, 4: 1})]


def changed(**tensors):
    """A change of a batch: each tensor replaced by what the function makes of it."""

    def change(batch):
        for name, function in tensors.items():
            batch[name] = function(batch[name])

    return change


def tag_before_the_video(batch):
    batch["attn_labels"][0, 1] = batch["input_ids"][0, 1]
    batch["ins_contents_labels"][0, 1] = 0


def at(position, value):
    def put(tensor):
        tensor[(0, *position)] = value
        return tensor

    return put


BAD = {
    "no attn_labels": (changed(attn_labels=lambda _: None), "missing: attn_labels"),
    "no ins_contents_labels": (changed(ins_contents_labels=lambda _: None), "missing: ins_contents_labels"),
    "no ins_masks": (changed(ins_masks=lambda _: None), "missing: ins_masks"),
    "no mask_index": (changed(mask_index=lambda _: None), "missing: mask_index"),
    "attn_labels alone": (
        changed(ins_contents_labels=lambda _: None, ins_masks=lambda _: None, mask_index=lambda _: None),
        "missing: ins_contents_labels, ins_masks, mask_index",
    ),
    "a list": (changed(mask_index=lambda m: m.tolist()), "missing: mask_index"),
    "attn_labels on another device": (
        changed(attn_labels=lambda a: a.to("meta")),
        "attn_labels: expected device cpu as input_ids, found meta",
    ),
    "ins_masks on another device": (
        changed(ins_masks=lambda m: m.to("meta")),
        "ins_masks: expected device cpu as input_ids, found meta",
    ),
    "mask_index on another device": (
        changed(mask_index=lambda m: m.to("meta")),
        "mask_index: expected device cpu as input_ids, found meta",
    ),
    "attn_labels int32": (changed(attn_labels=lambda a: a.int()), "attn_labels: expected torch.int64"),
    "ins_contents_labels float": (
        changed(ins_contents_labels=lambda a: a.float()),
        "ins_contents_labels: expected torch.int64",
    ),
    "ins_masks int": (changed(ins_masks=lambda m: m.long()), "ins_masks: expected a floating dtype"),
    "mask_index int": (changed(mask_index=lambda m: m.long()), "mask_index: expected torch.bool"),
    "attn_labels too short": (changed(attn_labels=lambda a: a[:, 1:]), "attn_labels: expected shape"),
    "ins_contents_labels too short": (
        changed(ins_contents_labels=lambda a: a[:, 1:]),
        "ins_contents_labels: expected shape",
    ),
    "ins_masks 4-d": (changed(ins_masks=lambda m: m[0]), "ins_masks: expected shape"),
    "ins_masks of another batch": (changed(ins_masks=lambda m: m.repeat(2, 1, 1, 1, 1)), "ins_masks: expected shape"),
    "mask_index of fewer steps": (changed(mask_index=lambda m: m[..., :1]), "mask_index: expected shape"),
    "masks of half a grid": (
        changed(ins_masks=lambda m: m[..., :2]),
        "ins_masks: expected at least 2 steps of r \\* 3 x r \\* 4",
    ),
    "masks twice as high only": (
        changed(ins_masks=lambda m: m.repeat(1, 1, 1, 2, 1)),
        "ins_masks: expected at least 2 steps",
    ),
    "masks of one step": (
        changed(ins_masks=lambda m: m[:, :, :1], mask_index=lambda m: m[:, :, :1]),
        "ins_masks: expected at least 2 steps",
    ),
    "steps beyond the grid": (
        changed(
            ins_masks=lambda m: torch.cat([m, m], 2),
            mask_index=lambda m: torch.cat([m, m], 2),
        ),
        "mask_index: sample 0 has 2 steps",
    ),
    "masks above 1": (changed(ins_masks=lambda m: m + 1), "ins_masks: expected values from 0 to 1"),
    "masks below 0": (changed(ins_masks=lambda m: m - 1), "ins_masks: expected values from 0 to 1"),
    "masks NaN": (changed(ins_masks=lambda m: m * math.nan), "ins_masks: expected values from 0 to 1"),
    "instance too high": (
        changed(ins_contents_labels=at((30,), 2)),
        "ins_contents_labels: expected -100 or an instance index below 2, found \\[2\\]",
    ),
    "instance negative": (changed(ins_contents_labels=at((30,), -1)), "ins_contents_labels: .* found \\[-1\\]"),
    "attn_labels beyond the vocabulary": (
        changed(attn_labels=at((35,), VOCABULARY)),
        "attn_labels: expected -100 or a token id below 160",
    ),
    "no visual token": (
        changed(input_ids=lambda ids: torch.where(ids == 5, 77, ids)),
        "sample 0: expected one visual block in a supervised sample, found 0",
    ),
    "two visual blocks": (
        changed(input_ids=at((10,), 77), video_grid_thw=lambda g: g.repeat(2, 1)),
        "sample 0: expected one visual block in a supervised sample, found 2",
    ),
    "more blocks than grids": (changed(input_ids=at((10,), 77)), "sample 0: more visual blocks than rows"),
    "a tag before the video": (
        tag_before_the_video,
        "sample 0: expected every supervised token after the visual block .* found one at 1",
    ),
    "a tag in the padding": (
        changed(attention_mask=at((30,), 0)),
        "sample 0: found a supervised token where attention_mask is 0",
    ),
    "a grid of another size": (
        changed(video_grid_thw=lambda g: g + torch.tensor([1, 0, 0])),
        "sample 0: expected 36 visual tokens",
    ),
    "attention_mask 4-d": (changed(attention_mask=lambda m: m[:, None, None]), "attention_mask: expected shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    change, message = BAD[name]
    batch, model = copy.deepcopy(make_batch(ONE)), model_with(PAPER)
    assert batch["ins_contents_labels"][0, 30] == 0  # the word that some changes touch is a tagged one
    model(**batch)
    change(batch)
    with pytest.raises(ValueError, match=message):
        model(**batch)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_masks_of_any_floating_dtype_give_the_same_loss(dtype):
    batch, model = make_batch(ONE), model_with(PAPER)
    exact = (batch["ins_masks"] * 4).round() / 4  # quarters are numbers of every floating dtype
    expected = model(**batch | {"ins_masks": exact}).mask_loss
    assert torch.equal(model(**batch | {"ins_masks": exact.to(dtype)}).mask_loss, expected)


BAD_OPTIONS = {
    "unknown option": ({"layer": [1]}, "unknown option layer, did you mean 'layers'.; the options are preset, layers"),
    "unknown preset": ({"preset": "papers"}, "preset: expected one of .*, found 'papers'"),
    "unknown fusion": ({"fusion": "add"}, "fusion: expected one of .*, found 'add'"),
    "unknown query": ({"query": "next"}, "query: expected one of .*, found 'next'"),
    "causal a number": ({"causal": 1}, "causal: expected true or false"),
    "eps a word": ({"eps": "small"}, "eps: expected"),
    "eps negative": ({"eps": -1e-6}, "eps: expected"),
    "eps NaN": ({"eps": math.nan}, "eps: expected"),
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
        model_with(options)(**make_batch(ONE))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            lambda model, batch: {"input_ids": None, "inputs_embeds": model.get_input_embeddings()(batch["input_ids"])},
            "input_ids",
        ),
        (
            lambda model, batch: {"inputs_embeds": model.get_input_embeddings()(batch["input_ids"])},
            "inputs_embeds: expected none",
        ),
        (lambda model, batch: {"logits_to_keep": 1}, "logits_to_keep: expected 0"),
        (
            lambda model, batch: {"past_key_values": model(**without_supervision(batch)).past_key_values},
            "past_key_values: expected none",
        ),
        (
            lambda model, batch: {"position_ids": torch.zeros(4, *batch["input_ids"].shape).long()},
            "position_ids: expected 3 components",
        ),
    ],
    ids=["embeddings alone", "embeddings too", "logits_to_keep", "past_key_values", "packed"],
)
def test_arguments_that_exclude_supervision_are_named(arguments, message):
    model, batch = model_with(PAPER), make_batch(ONE)
    with pytest.raises(ValueError, match=message):
        model(**batch | arguments(model, batch))


def test_an_unsupervised_sample_may_hold_any_number_of_visual_blocks():
    batch = make_batch([ONE[0], Spec("video", (2, 2, 2), before=2, after=20)])
    batch["input_ids"][1, 7] = 88  # splits the second sample's block of 8 into two of 4
    batch["mm_token_type_ids"][1, 7] = 0
    batch["video_grid_thw"] = torch.tensor([[2, 6, 8], [1, 4, 4], [1, 2, 6]])
    batch["second_per_grid_ts"] = torch.ones(3)
    model = model_with(PAPER)
    with pytest.raises(ValueError, match="sample 1"):  # supervised it is an error
        tagged = {name: batch[name].clone() for name in SUPERVISION}
        tagged["attn_labels"][1, 20], tagged["ins_contents_labels"][1, 20] = 20, 0
        tagged["mask_index"][1, 0, 0] = True
        model(**batch | tagged)
    batch["pixel_values_videos"] = batch["pixel_values_videos"][: 4 * (24 + 4 + 3)]
    assert float(model(**batch).mask_loss) > 0
