# Copyright 2026 The SWIM authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Maps against masks: the mask loss, and how well they point."""

import math

import torch
import torch.nn.functional as F

from .losses import LOSSES, TINY, Comparison
from .options import AttentionSupervisionConfig
from .plan import SupervisionPlan
from .rows import outside_autocast


# A cell counts as lying on the object when the object covers at least this share of it.
ON_OBJECT = 0.1
# What `grounding_sums` counts, in this order.
GROUNDING_SUMS = ("points", "inside", "covered", "scored", "left_out")


def _resize_weights(sizes: torch.Tensor, padded: int, resolution: int) -> torch.Tensor:
    """float32[B, r * padded, padded]: bilinear weights (align_corners=False) from each sample's size to r times it.

    Rows beyond r * size are zero. Matrices instead of `interpolate`, since the samples of a batch differ in size.
    """
    target = torch.arange(resolution * padded, device=sizes.device)
    last = (sizes - 1).clamp_min(0)[:, None]
    source = torch.minimum(((target + 0.5) / resolution - 0.5).clamp_min(0), last.float())
    low = source.floor()
    share = source - low
    high = torch.minimum(low.long() + 1, last)
    weights = F.one_hot(low.long(), padded) * (1 - share)[..., None] + F.one_hot(high, padded) * share[..., None]
    return weights * (target < resolution * sizes[:, None])[..., None]


def _resize(maps: torch.Tensor, plan: SupervisionPlan) -> torch.Tensor:
    """[B, Q, T, H, W] -> [B, Q, T, r * H, r * W], each sample within its own block."""
    if plan.resolution == 1:
        return maps
    rows = _resize_weights(plan.grid[:, 1], maps.shape[3], plan.resolution)[:, None, None]
    columns = _resize_weights(plan.grid[:, 2], maps.shape[4], plan.resolution)[:, None, None]
    return rows @ maps @ columns.transpose(-1, -2)


def _masks_of_rows(ins_masks: torch.Tensor, plan: SupervisionPlan) -> torch.Tensor:
    """float32[B, Q, T, r * H, r * W]: the mask of the instance that each row names."""
    _, _, steps, height, width = plan.cells.shape
    masks = ins_masks[:, :, :steps, : plan.resolution * height, : plan.resolution * width].float()
    return masks[torch.arange(len(masks), device=masks.device)[:, None], plan.instances]


@outside_autocast
def mask_terms(
    attention: torch.Tensor, ins_masks: torch.Tensor, plan: SupervisionPlan, config: AttentionSupervisionConfig
) -> dict[str, torch.Tensor]:
    """Each loss of `config.loss` by name, between each step's map and its mask, mean over the (token, step) pairs.

    attention: float32[B, Q, T, H, W], from fuse_layers.
    ins_masks: float[B, N, T, Hm, Wm].

    Returns float32 scalars, unweighted; exact, connected zeros where nothing is supervised. All but `kl` compare

        p = (a - min) / (max - min + eps)        min and max over the step's cells; eps "auto" is 1 / K
    """
    if plan.pair_count == 0:
        return {name: attention.sum() * 0.0 for name in config.losses}
    pairs = _compare(attention, ins_masks, plan, config)
    return {name: (LOSSES[name](pairs) * plan.pairs).sum() / plan.pair_count for name in config.losses}


def mask_loss(
    attention: torch.Tensor, ins_masks: torch.Tensor, plan: SupervisionPlan, config: AttentionSupervisionConfig
) -> torch.Tensor:
    """float32 scalar: the weighted sum of `mask_terms`."""
    return weighted_sum(mask_terms(attention, ins_masks, plan, config), config)


def weighted_sum(terms: dict[str, torch.Tensor], config: AttentionSupervisionConfig) -> torch.Tensor:
    """The mask loss from its terms."""
    first, *rest = (weight * terms[name] for name, weight in config.losses.items())
    return sum(rest, start=first)


def _compare(
    attention: torch.Tensor, ins_masks: torch.Tensor, plan: SupervisionPlan, config: AttentionSupervisionConfig
) -> Comparison:
    """The maps in the masks' cells, beside them."""
    cells = plan.cells
    eps = 1.0 / plan.grid.prod(1).clamp_min(1).view(-1, 1, 1, 1, 1) if config.eps == "auto" else config.eps
    low = attention.masked_fill(~cells, math.inf).amin((3, 4), keepdim=True)
    high = attention.masked_fill(~cells, -math.inf).amax((3, 4), keepdim=True)
    # Steps without cells have no extremes; they are left out below.
    low, high = (torch.where(cells.any((3, 4), keepdim=True), extreme, 0.0) for extreme in (low, high))
    above, below = attention - low, high - attention + eps
    above, below, size = (_resize(part.masked_fill(~cells, 0.0), plan) for part in (above, below, attention))
    return Comparison(
        attention=size,
        above=above,
        below=below,
        span=(high - low + eps).clamp_min(TINY),
        masks=_masks_of_rows(ins_masks, plan),
        cells=cells.repeat_interleave(plan.resolution, 3).repeat_interleave(plan.resolution, 4),
        focal_gamma=config.focal_gamma,
    )


@torch.no_grad()
@outside_autocast
def grounding_sums(attention: torch.Tensor, ins_masks: torch.Tensor, plan: SupervisionPlan) -> torch.Tensor:
    """float32[5], in the order of GROUNDING_SUMS: pairs that point at the object, sum of `inside`, sum of the share of
    cells covered, pairs scored, pairs left out because the object covers no cell by ON_OBJECT.

    A pair points when the step's highest cell lies on the object; inside is the share of the step's mass that does.
    """
    if plan.pair_count == 0:
        return attention.new_zeros(len(GROUNDING_SUMS))
    masks = F.avg_pool3d(_masks_of_rows(ins_masks, plan), (1, plan.resolution, plan.resolution))
    on_object = (masks >= ON_OBJECT).flatten(3)
    maps = attention.flatten(3)
    scored = plan.pairs & on_object.any(-1)
    highest = maps.argmax(-1, keepdim=True)
    points = on_object.gather(-1, highest).squeeze(-1)
    inside = (maps * on_object).sum(-1) / maps.sum(-1).clamp_min(TINY)
    covered = on_object.sum(-1) / plan.cells.flatten(3).sum(-1).clamp_min(1)
    sums = [(value * scored).sum() for value in (points, inside, covered)]
    return torch.stack([*sums, scored.sum(), (plan.pairs & ~scored).sum()]).float()
