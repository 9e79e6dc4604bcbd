"""The loss at the sizes of real training: up to 200 supervised tokens and 24,000 visual tokens, float32 and bf16."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers.attention_supervision import (
    LOSSES,
    AttentionSupervisionConfig,
    Supervision,
    fuse_layers,
    mask_loss,
    plan_supervision,
)
from transformers.models.qwen2_5_vl.attention_supervision import find_visual_tokens

from .inputs import FIRST_WORD, IGNORE, VIDEO, make_tiny_config

LAYERS = [1, 3]
MODEL = make_tiny_config()


def make_plan(config: AttentionSupervisionConfig, grid: tuple[int, int, int], tokens: int):
    """The plan of one video of `grid` (T, H, W) and `tokens` supervised tokens that all name instance 0."""
    cells = math.prod(grid)
    ids = torch.tensor([[VIDEO] * cells + [FIRST_WORD] * tokens])
    named = torch.where(ids == VIDEO, IGNORE, 0)
    masks, mask_index = torch.zeros(1, 1, *grid), torch.ones(1, 1, grid[0], dtype=torch.bool)
    supervision = Supervision(torch.where(named == 0, ids, IGNORE), named, masks, mask_index)
    grids = torch.tensor([[grid[0], 2 * grid[1], 2 * grid[2]]])
    visual = find_visual_tokens(MODEL, ids, None, grids)
    return plan_supervision(MODEL.text_config, config, supervision, visual, None, None)


def make_rows(kind: str, tokens: int, cells: int, generator: torch.Generator) -> torch.Tensor:
    """float32[1, tokens, cells] of logarithms, as log_attention_rows makes them."""
    rows = torch.randn(1, tokens, cells, generator=generator)
    peak = torch.randint(cells, (1, tokens, 1), generator=generator)
    if kind == "uniform":
        return torch.full_like(rows, -math.log(cells))
    if kind == "one-hot":
        return torch.full_like(rows, -1e4).scatter(2, peak, 0.0)
    if kind == "sink":  # nearly everything lies on the first cell
        rows[..., 0] = 40.0
    if kind == "denormal":  # below float32's smallest normal number, e^-87
        rows = rows - 100.0
        return rows
    return rows.log_softmax(-1)


def make_masks(kind: str, grid: tuple[int, int, int], generator: torch.Generator) -> torch.Tensor:
    """float32[1, 1, T, H, W]"""
    if kind == "full":
        return torch.ones(1, 1, *grid)
    masks = torch.zeros(1, 1, *grid)
    if kind == "one pixel":
        masks[..., grid[1] // 2, grid[2] // 2] = 1
    if kind == "shares":
        masks = torch.rand(1, 1, *grid, generator=generator)
    return masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@settings(max_examples=20)
@given(
    preset=st.sampled_from(["paper", "release"]),
    loss=st.sampled_from(sorted(LOSSES)),
    tokens=st.integers(1, 200),
    grid=st.tuples(st.integers(1, 16), st.integers(1, 40), st.integers(1, 37)),
    row=st.sampled_from(["usual", "uniform", "one-hot", "sink", "denormal"]),
    mask=st.sampled_from(["full", "empty", "one pixel", "shares"]),
    seed=st.integers(0, 99),
)
@example("paper", "bce", 200, (16, 40, 37), "sink", "one pixel", 0)
@example("release", "bce", 24, (16, 40, 37), "usual", "shares", 0)
@example("paper", "bce", 24, (1, 150, 160), "one-hot", "empty", 0)
@example("release", "bce", 200, (1, 20, 20), "denormal", "full", 0)
@example("paper", "bce", 1, (1, 1, 1), "uniform", "full", 0)
@example("paper", "kl", 24, (16, 40, 37), "one-hot", "one pixel", 0)
@example("release", "dice", 24, (16, 40, 37), "denormal", "empty", 0)
@example("paper", "iou", 24, (16, 40, 37), "uniform", "full", 0)
@example("release", "focal", 24, (16, 40, 37), "sink", "shares", 0)
def test_loss_and_gradients_are_finite_at_any_size(dtype, preset, loss, tokens, grid, row, mask, seed):
    generator = torch.Generator().manual_seed(seed)
    config = AttentionSupervisionConfig(preset=preset, layers=LAYERS, loss=loss)
    plan = make_plan(config, grid, tokens)
    rows = [make_rows(row, tokens, math.prod(grid), generator).to(dtype).requires_grad_() for _ in LAYERS]
    masks = make_masks(mask, grid, generator).to(dtype)
    attention = fuse_layers([leaf.float() for leaf in rows], plan.cells, config)
    found = mask_loss(attention, masks, plan, config)
    found.backward()
    assert plan.pair_count == tokens * grid[0]
    assert torch.isfinite(attention).all() and -1e-5 <= float(found.detach()) <= 100
    assert all(torch.isfinite(leaf.grad).all() for leaf in rows)
