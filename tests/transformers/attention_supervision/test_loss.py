"""The numerics of fusion and loss: any rows and masks give the reference's value, and finite gradients."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.attention_supervision import (
    LOSSES,
    AttentionSupervisionConfig,
    fuse_layers,
    grounding_sums,
    mask_loss,
    mask_terms,
)

from .. import reference
from ..inputs import Spec, make_batch, make_tiny_config, make_tiny_model, without_supervision
from ..test_attention_supervision import LAYERS, MIXED, PAPER, model_with, plan_of

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
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("preset", reference.PRESETS)
def test_any_row_and_any_mask_is_finite(planned, preset, loss, row, mask, dtype):
    plan, config, _ = planned[preset]
    config = replace(config, loss=loss)
    rows = [ROWS[row].expand(1, 2, -1).clone().requires_grad_() for _ in LAYERS]
    masks = MASKS[mask].expand(1, 2, *GRID).to(dtype)
    attention = fuse_layers([leaf.to(dtype).float() for leaf in rows], plan.cells, config)
    found = mask_loss(attention, masks, plan, config)
    found.backward()
    assert -1e-5 <= float(found.detach()) <= 100  # kl is 0 but for rounding
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


@pytest.mark.parametrize("loss", LOSSES)
def test_p_of_one_on_an_empty_cell_pulls_it_down_gently(planned, loss):
    """The peaks, one in each step, lie on empty cells: the gradient lowers them, or at least raises the object's cells,
    and stays of order one. To an overlap the height of a peak is all the same: its p is 1."""
    for preset in reference.PRESETS:
        plan, config, _ = planned[preset]
        config = replace(config, loss=loss)
        row = torch.linspace(-5, -4, 24).expand(1, 2, -1).clone()
        row[..., 5], row[..., 17] = -0.1, -0.2
        leaf = row.requires_grad_()
        masks = torch.zeros(1, 2, *GRID)
        masks[..., 1, 3] = 1
        mask_loss(fuse_layers([leaf], plan.cells, config), masks, plan, config).backward()
        peaks = leaf.grad[..., [5, 17]]
        assert float(leaf.grad[..., [7, 19]].max()) < -1e-4 and float(leaf.grad.abs().max()) < 10
        assert float(peaks.min()) > 0.01 or loss in ("dice", "iou")


@pytest.mark.parametrize("loss", LOSSES)
def test_zero_eps_is_finite_too(planned, loss):
    plan, _, _ = planned["paper"]
    config = AttentionSupervisionConfig(preset="release", layers=LAYERS, eps=0, loss=loss)
    for row in ROWS.values():
        leaf = row.expand(1, 2, -1).clone().requires_grad_()
        found = mask_loss(
            fuse_layers([leaf, leaf], plan.cells, config), MASKS["shares"].expand(1, 2, *GRID), plan, config
        )
        found.backward()
        assert math.isfinite(float(found.detach())) and torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("resolution", [1, 2])
@pytest.mark.parametrize("preset", reference.PRESETS)
@pytest.mark.parametrize("loss", LOSSES)
def test_values_and_gradients_by_the_map_are_the_references(loss, preset, resolution):
    """In float32, of a map whose cells differ: each loss rounds a few dozen additions, none of which cancels."""
    batch = make_batch([Spec("video", GRID, tags={0: 0, 3: 1})], resolution=resolution)
    options = {"preset": preset, "layers": LAYERS, "loss": loss, "focal_gamma": 1.5}
    plan, config = plan_of(make_tiny_model(make_tiny_config()), batch, options)
    generator = torch.Generator().manual_seed(resolution)
    attention = torch.rand(1, 2, *GRID, generator=generator).softmax(-1).div(6).requires_grad_()
    exact = attention.detach().double().requires_grad_()
    value = mask_loss(attention, batch["ins_masks"], plan, config)
    expected = reference.mask_loss([[(0, exact[0, 0]), (1, exact[0, 1])]], batch, config.to_dict(), resolution)
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found, right = (torch.autograd.grad(*each)[0].double() for each in ((value, attention), (expected, exact)))
    assert float(right.norm()) > 0 and float((found - right).norm()) < 1e-4 * float(right.norm())


def test_focal_without_gamma_is_cross_entropy(planned):
    plan, config, batch = planned["paper"]
    attention = fuse_layers([torch.linspace(-5, 0, 24).expand(1, 2, -1)], plan.cells, config)
    values = [
        mask_loss(attention, batch["ins_masks"], plan, replace(config, loss=loss, focal_gamma=0))
        for loss in ("focal", "bce")
    ]
    torch.testing.assert_close(*values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", ["dice", "iou", "kl"])
def test_a_map_that_is_its_mask_costs_nothing(planned, loss):
    """For kl up to the cells outside, which have to get some attention: e^-20 of it."""
    plan, _, _ = planned["paper"]
    config = AttentionSupervisionConfig(eps=0, loss=loss)
    masks = MASKS["one cell"].expand(1, 2, *GRID)
    attention = fuse_layers([(masks - 1).flatten(2) * 20], plan.cells, config)
    assert float(mask_loss(attention, masks, plan, config)) == pytest.approx(0, abs=1e-5)
    away = fuse_layers([(masks.flip(-1) - 1).flatten(2) * 20], plan.cells, config)
    assert float(mask_loss(away, masks, plan, config)) > 0.5


def test_an_empty_mask_asks_for_an_empty_map_or_nothing(planned):
    """Where the object covers nothing p should be 0; a distribution has no such state, and kl says nothing."""
    plan, config, _ = planned["paper"]
    masks = MASKS["empty"].expand(1, 2, *GRID)
    row = torch.linspace(-5, 0, 24).expand(1, 2, -1).clone().requires_grad_()
    for loss in LOSSES:
        value = mask_loss(fuse_layers([row], plan.cells, config), masks, plan, replace(config, loss=loss))
        (gradient,) = torch.autograd.grad(value, row)
        assert (float(value.detach()) > 0.01 and gradient.abs().max() > 0) == (loss != "kl")
        assert loss != "kl" or (float(value.detach()) == 0 and not gradient.any())


def test_several_losses_are_summed_with_their_weights_and_returned_by_name(planned):
    plan, config, batch = planned["paper"]
    several = replace(config, loss={"bce": 1, "dice": 0.5, "kl": 0.25})
    attention = fuse_layers([torch.linspace(-5, 0, 24).expand(1, 2, -1)], plan.cells, config)
    terms = mask_terms(attention, batch["ins_masks"], plan, several)
    alone = [mask_loss(attention, batch["ins_masks"], plan, replace(config, loss=name)) for name in terms]
    assert list(terms) == ["bce", "dice", "kl"] and list(terms.values()) == alone
    total = mask_loss(attention, batch["ins_masks"], plan, several)
    assert float(total) == pytest.approx(float(alone[0] + 0.5 * alone[1] + 0.25 * alone[2]), rel=1e-6)


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


@settings(max_examples=150)
@given(
    logs=st.lists(log_value, min_size=24, max_size=24),
    other=st.lists(log_value, min_size=24, max_size=24),
    mask=st.lists(share, min_size=24, max_size=24),
    preset=st.sampled_from(sorted(reference.PRESETS)),
    loss=st.sampled_from(sorted(LOSSES)),
)
def test_any_log_rows_give_the_references_value_and_finite_gradients(planned, logs, other, mask, preset, loss):
    plan, config, batch = planned[preset]
    config = replace(config, loss=loss)
    rows = [torch.tensor(values).expand(1, 2, -1).clone().requires_grad_() for values in (logs, other)]
    masks = torch.tensor(mask).view(GRID).expand(1, 2, *GRID)
    attention = fuse_layers(rows, plan.cells, config)
    total = mask_loss(attention, masks, plan, config)
    total.backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in rows)
    # the reference's steps 3 to 5 on the same map; logarithms near 0 and the clamp at -100 are where float32 differs
    exact = attention.detach().double()
    found = [[(0, exact[0, 0]), (1, exact[0, 1])]]
    expected = reference.mask_loss(found, batch | {"ins_masks": masks}, config.to_dict())
    assert float(total.detach()) == pytest.approx(float(expected), rel=2e-2, abs=2e-3)


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
