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
"""The losses: how far one step's map is from its mask. A loss is one function and one entry in LOSSES.

Each takes a Comparison and gives float32[B, Q, T], one number for each (token, step) pair, 0 where the map is right.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch


# torch's binary cross-entropy clamps its logarithms here; so did the released code.
MIN_LOG = -100.0
# d(log p) / d(log a) is bounded by 1 / this. It only binds where a cell equals its step's extreme value to four
# digits: below that the exact derivative is rounding noise times a huge number.
RELATIVE_FLOOR = 1e-4
# Keeps a quotient finite where even eps does not.
TINY = 1e-30


class _BoundedLogRatio(torch.autograd.Function):
    """log(part / span), at least MIN_LOG. Its derivative by part is 1 / max(part, floor): finite where part is 0, never
    a dead end. That by span is exact, which is what lowers a peak on an empty cell, where part is but eps."""

    @staticmethod
    def forward(ctx, part, span, floor):
        value = part.log() - span.log()
        ctx.save_for_backward(part, span, floor, value > MIN_LOG)
        return value.clamp_min(MIN_LOG)

    @staticmethod
    def backward(ctx, gradient):
        part, span, floor, counts = ctx.saved_tensors
        return gradient / torch.maximum(part, floor), -(gradient * counts).sum((3, 4), keepdim=True) / span, None


@dataclass
class Comparison:
    """Each step's map beside its mask, in the mask's cells; everything is 0 outside the sample's grid.

    attention: float32[B, Q, T, H', W'], the map.
    above: attention - min over the step's cells.
    below: max - attention + eps.
    span: float32[B, Q, T, 1, 1], max - min + eps, so that p = above / span.
    masks: float32[B, Q, T, H', W'], the share of a cell that the object covers.
    cells: bool[B, 1, T, H', W'], the sample's own.
    focal_gamma: see `focal`.
    """

    attention: torch.Tensor
    above: torch.Tensor
    below: torch.Tensor
    span: torch.Tensor
    masks: torch.Tensor
    cells: torch.Tensor
    focal_gamma: float

    @cached_property
    def log_p(self) -> torch.Tensor:
        """log(above / span)."""
        return _BoundedLogRatio.apply(self.above, self.span, self._floor)

    @cached_property
    def log_rest(self) -> torch.Tensor:
        """log(1 - p) as log(below / span): without cancellation where p nears 1."""
        return _BoundedLogRatio.apply(self.below, self.span, self._floor)

    @cached_property
    def log_share(self) -> torch.Tensor:
        """Log of the share of the step's attention that a cell gets."""
        total = self.attention.sum((3, 4), keepdim=True).clamp_min(TINY)
        return _BoundedLogRatio.apply(self.attention, total, torch.full_like(total, TINY))

    @cached_property
    def _floor(self) -> torch.Tensor:
        return (RELATIVE_FLOOR * self.attention.detach()).clamp_min(TINY)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """[B, Q, T]: the mean over the step's cells."""
        return self.sum(values) / self.cells.sum((3, 4)).clamp_min(1)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """[B, Q, T]: the sum over the step's cells."""
        return values.masked_fill(~self.cells, 0.0).sum((3, 4))

    def overlap(self) -> tuple[torch.Tensor, torch.Tensor]:
        """([B, Q, T], [B, Q, T]): p and mask in common, and the sum of both."""
        p = self.log_p.exp()
        return self.sum(p * self.masks), self.sum(p + self.masks)


def bce(pairs: Comparison) -> torch.Tensor:
    """Binary cross-entropy of p, mean over cells: the paper's choice."""
    return pairs.mean(-(pairs.masks * pairs.log_p + (1 - pairs.masks) * pairs.log_rest))


def focal(pairs: Comparison) -> torch.Tensor:
    """Binary cross-entropy, each term weighted by how wrong p is to the power `focal_gamma` (Lin et al., 2017, without
    its alpha); at 0 it is `bce`."""
    gamma = pairs.focal_gamma
    missed = pairs.masks * (gamma * pairs.log_rest).exp() * pairs.log_p
    spilt = (1 - pairs.masks) * (gamma * pairs.log_p).exp() * pairs.log_rest
    return pairs.mean(-(missed + spilt))


def dice(pairs: Comparison) -> torch.Tensor:
    """1 - 2 |p m| / (|p| + |m|), with one cell added above and below, so that an empty mask asks for an empty map."""
    common, both = pairs.overlap()
    return 1 - (2 * common + 1) / (both + 1)


def iou(pairs: Comparison) -> torch.Tensor:
    """1 - |p m| / (|p| + |m| - |p m|), with one cell added above and below."""
    common, both = pairs.overlap()
    return 1 - (common + 1) / (both - common + 1)


def kl(pairs: Comparison) -> torch.Tensor:
    """KL(mask || attention) of the step's two distributions, in nats; 0 where the mask is empty, which is none.

    It needs no min-max normalisation, and its target is spread evenly over the object.
    """
    total = pairs.sum(pairs.masks)[..., None, None]
    target = pairs.masks / total.clamp_min(TINY)
    return pairs.sum(torch.xlogy(target, target) - target * pairs.log_share)


LOSSES: dict[str, Callable[[Comparison], torch.Tensor]] = {
    "bce": bce,
    "dice": dice,
    "iou": iou,
    "focal": focal,
    "kl": kl,
}
