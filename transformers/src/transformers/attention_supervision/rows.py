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
"""The chosen attention rows of each supervised layer, and their fusion into one map."""

import math
from dataclasses import dataclass
from functools import wraps

import torch

from .options import AttentionSupervisionConfig


# Stands for minus infinity in log space and stays finite when layers are multiplied or subtracted.
LOG_ZERO = -1e30


@dataclass
class RowPlan:
    """Which attention rows to compute, and the collector of what the supervised layers hand out.

    The decoder passes it to every attention module, which calls it with its own queries and keys. It is pure, so a
    checkpointed layer may call it again; `collect` runs outside the layers, once each.

    layers: the supervised layers.
    positions: int64[B, Q], the position of each row.
    columns: int64[B, T*H*W], the position of each cell's visual token, any position in the padding.
    blocked: bool[B, Q, S], columns outside the row's softmax.
    rows_at_once: None is all of them; fewer need less memory, in a loop.
    by_head: keep the heads apart.
    """

    layers: tuple[int, ...]
    positions: torch.Tensor
    columns: torch.Tensor
    blocked: torch.Tensor
    rows_at_once: int | None = None
    by_head: bool = False

    def __post_init__(self):
        self.rows = []

    def __call__(self, attention: torch.nn.Module, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The rows of one attention module as a tuple: empty for a layer that is not supervised."""
        if attention.layer_idx not in self.layers:
            return ()
        blocked = self.blocked
        window = getattr(attention, "sliding_window", None)
        if window is not None:
            distance = self.positions[..., None] - torch.arange(key.shape[2], device=key.device)
            blocked = blocked | (distance >= window)
        size = self.rows_at_once or self.positions.shape[1]
        parts = zip(self.positions.split(size, dim=1), blocked.split(size, dim=1))
        rows = [
            log_attention_rows(query, key, attention.scaling, positions, self.columns, hidden, self.by_head)
            for positions, hidden in parts
        ]
        return (rows[0] if len(rows) == 1 else torch.cat(rows, dim=1),)

    def collect(self, hidden_states: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Keeps the rows that a supervised layer returned beside its hidden states; returns the latter."""
        self.rows.append(rows)
        return hidden_states


def log_attention_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    scaling: float,
    positions: torch.Tensor,
    columns: torch.Tensor,
    blocked: torch.Tensor,
    by_head: bool = False,
) -> torch.Tensor:
    """float32[B, Q, C]: log of the mean over heads of softmax(q k^T * scaling), rows `positions`, columns `columns`.

    by_head: float32[B, Q, heads, C] instead, the log of each head's own.

    query: [B, heads, S, D], rotary embedding applied, as the attention module has it.
    key: [B, key-value heads, S, D], likewise.
    positions: int64[B, Q].
    columns: int64[B, C].
    blocked: bool[B, Q, S], True outside the softmax.

    Only these rows are computed, O(Q * S), from the model's own q and k in float32 whatever the autocast.
    """
    with torch.autocast(device_type=query.device.type, enabled=False):
        batch, heads, _, size = query.shape
        rows, kv_heads = positions.shape[1], key.shape[1]
        query = query.gather(2, positions[:, None, :, None].expand(-1, heads, -1, size)).float() * scaling
        scores = query.reshape(batch, kv_heads, -1, size) @ key.float().transpose(2, 3)
        scores = scores.view(batch, heads, rows, key.shape[2]) + blocked[:, None] * LOG_ZERO
        columns = columns[:, None, None, :].expand(-1, heads, rows, -1)
        log_rows = scores.log_softmax(3).gather(3, columns)
        return log_rows.transpose(1, 2) if by_head else log_rows.logsumexp(1) - math.log(heads)


def outside_autocast(function):
    """`function(attention, ...)` in the precision of its arguments: autocast would make bf16 of matrix products."""

    @wraps(function)
    def wrapped(attention, *args):
        with torch.autocast(device_type=attention.device.type, enabled=False):
            return function(attention, *args)

    return wrapped


def fuse_layers(log_rows: list[torch.Tensor], cells: torch.Tensor, config: AttentionSupervisionConfig) -> torch.Tensor:
    """float32[B, Q, T, H, W]: the layers' rows as one map that sums to 1 over the sample's cells.

    log_rows: L of float32[B, Q, T * H * W], from log_attention_rows.
    cells: bool[B, 1, T, H, W], True where a cell belongs to the sample.

    Fused and normalised in log space; with eps a number e the map is fused / (sum + e), so that its sum is below 1.
    Outside the sample's cells the map is 0.
    """
    stacked = torch.stack(log_rows)
    fused = stacked.sum(0) if config.fusion == "product" else stacked.logsumexp(0) - math.log(len(log_rows))
    fused = fused.masked_fill(~cells.flatten(2), LOG_ZERO)
    total = fused.logsumexp(-1, keepdim=True)
    if config.eps not in ("auto", 0):
        total = torch.logaddexp(total, torch.full_like(total, math.log(config.eps)))
    attention = (fused - total).exp()
    return attention.view(*attention.shape[:2], *cells.shape[2:]).masked_fill(~cells, 0.0)
