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
"""Attention supervision for Qwen2.5-VL: the attention of a named noun should fall on that object's mask.

The method is SWIM ("See What I Mean", arXiv 2605.18018). Everything that computes, scores or supervises an attention
map is here; training and analysis call the same functions. Read it in the order of the data:

    config -> plan (which rows, which columns; one copy to the host) -> rows of each supervised layer
           -> fuse the layers -> loss against the masks, pointing and inside -> `supervised_forward`

`log_attention_maps` takes the same rows of any tokens, to look at and to score.

Shapes: B batch, S sequence, Q supervised tokens in the sample with most of them, L supervised layers, N instances,
T temporal steps, H x W merged grid of one step, K = T * H * W visual tokens of a sample, r mask cells per grid cell
and side. Q, T, H, W are padded to the largest sample of the batch.
"""

import difflib
import math
from dataclasses import asdict, dataclass, fields
from functools import partial, wraps
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ...modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast


IGNORE = -100
# A cell counts as lying on the object when the object covers at least this share of it.
ON_OBJECT = 0.1
# torch's binary cross-entropy clamps its logarithms here; so did the released code.
MIN_LOG = -100.0
# d(log p) / d(log a) is bounded by 1 / this. It only binds where a cell equals its step's extreme value to four
# digits: below that the exact derivative is rounding noise times a huge number.
RELATIVE_FLOOR = 1e-4
# Stands for minus infinity in log space and stays finite when layers are multiplied or subtracted.
LOG_ZERO = -1e30
# Keeps a quotient finite where even eps does not.
TINY = 1e-30
# Rows that an analysis computes at a time: a long answer of a long video must fit the memory.
ROWS_AT_ONCE = 16

# What `grounding_sums` counts, in this order.
GROUNDING_SUMS = ("points", "inside", "covered", "scored", "left_out")

PRESETS = {
    "paper": {"fusion": "mean", "query": "token", "causal": True, "eps": "auto"},
    "release": {"fusion": "product", "query": "previous", "causal": False, "eps": 1e-6},
}
CHOICES = {"preset": tuple(PRESETS), "fusion": ("mean", "product"), "query": ("token", "previous")}


@dataclass
class AttentionSupervisionConfig:
    """Options of the attention loss; saved with a checkpoint as the plain dict `config.attention_supervision`.

    preset: "paper" or "release"; fills every option below that is left None.
    layers: indices of the supervised decoder layers; None is every fifth from 2 (28 layers: 2, 7, 12, 17, 22, 27).
    fusion: "mean" or "product" of the layers' rows.
    query: "token", the noun token's own row, or "previous", the row of the position that predicts it.
    causal: False leaves the text after the query in the softmax's denominator, as the released code did.
    eps: a number added where sums and ranges are divided by, or "auto": 1/K, so that the loss means the same at any K.
    text_loss_weight, mask_loss_weight: the two terms of `loss`.

    Raises ValueError for an unknown preset, option or value.
    """

    preset: str = "paper"
    layers: list[int] | None = None
    fusion: str | None = None
    query: str | None = None
    causal: bool | None = None
    eps: float | str | None = None
    text_loss_weight: float = 0.05
    mask_loss_weight: float = 1.0

    def __post_init__(self):
        _require(self.preset in PRESETS, f"preset: expected one of {sorted(PRESETS)}, found {self.preset!r}")
        for option, value in PRESETS[self.preset].items():
            if getattr(self, option) is None:
                setattr(self, option, value)
        for option, allowed in CHOICES.items():
            value = getattr(self, option)
            _require(value in allowed, f"{option}: expected one of {list(allowed)}, found {value!r}")
        _require(isinstance(self.causal, bool), f"causal: expected true or false, found {self.causal!r}")
        _require(
            self.eps == "auto" or (_is_number(self.eps) and self.eps >= 0),
            f'eps: expected "auto" or a number of at least 0, found {self.eps!r}',
        )
        for option in ("text_loss_weight", "mask_loss_weight"):
            value = getattr(self, option)
            _require(_is_number(value) and value >= 0, f"{option}: expected a number of at least 0, found {value!r}")
        if self.layers is not None:
            valid = isinstance(self.layers, (list, tuple)) and all(type(layer) is int for layer in self.layers)
            _require(valid and len(self.layers) > 0, f"layers: expected a list of layer indices, found {self.layers!r}")
            _require(len(set(self.layers)) == len(self.layers), f"layers: an index stands twice in {self.layers!r}")
            self.layers = list(self.layers)

    @classmethod
    def from_dict(cls, options: dict | None) -> "AttentionSupervisionConfig":
        """The options of `config.attention_supervision`. Raises ValueError for a key that does not exist."""
        options = dict(options or {})
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(options) - set(known))
        close = difflib.get_close_matches(unknown[0], known, n=1) if unknown else []
        meant = f", did you mean {close[0]!r}?" if close else ""
        _require(not unknown, f"unknown option {', '.join(unknown)}{meant}; the options are {', '.join(known)}")
        return cls(**options)

    def to_dict(self) -> dict:
        return asdict(self)

    def layers_of(self, num_layers: int) -> tuple[int, ...]:
        """The supervised layers of a model with `num_layers` decoder layers. Raises ValueError beyond the model."""
        layers = range(2, num_layers, 5) if self.layers is None else self.layers
        outside = [layer for layer in layers if not 0 <= layer < num_layers]
        _require(
            len(layers) > 0 and not outside,
            f"layers: expected indices from 0 to {num_layers - 1} for a model of {num_layers} layers, "
            f"found {outside or 'none'}",
        )
        return tuple(layers)


@dataclass
class SupervisedOutput(CausalLMOutputWithPast):
    """Output of a forward with the four supervision tensors; `logits` is None.

    loss: text_loss_weight * text_loss + mask_loss_weight * mask_loss.
    text_loss, mask_loss: float32 scalars; an exact, connected zero where nothing is labelled or supervised.
    attention_maps: float32[B, Q, T, H, W], the fused maps that were supervised, without gradient; zeros in the padding.
    grounding: float32[5], sums over the (token, step) pairs, see `grounding_sums`.
    """

    text_loss: torch.FloatTensor | None = None
    mask_loss: torch.FloatTensor | None = None
    attention_maps: torch.FloatTensor | None = None
    grounding: torch.FloatTensor | None = None


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _require(condition: bool, message: str):
    if not condition:
        raise ValueError(f"attention_supervision: {message}")


# ----------------------------------------------------------------------------------------------------------------------
# Plan: which rows and columns of which sample
# ----------------------------------------------------------------------------------------------------------------------


@dataclass
class RowPlan:
    """Which attention rows to compute, and the collector of what the supervised layers hand out.

    The decoder passes it to every attention module, which calls it with its own queries and keys. It is pure, so a
    checkpointed layer may call it again; `collect` runs outside the layers, once each.

    layers: supervised layers. columns: int64[B, T*H*W], the visual token of each cell, any index in the padding.
    positions: int64[B, Q], the position of each row. blocked: bool[B, Q, S], columns outside the row's softmax.
    rows_at_once: None is all of them; fewer need less memory, in a loop.
    """

    layers: tuple[int, ...]
    positions: torch.Tensor
    columns: torch.Tensor
    blocked: torch.Tensor
    rows_at_once: int | None = None

    def __post_init__(self):
        self.rows = []

    def __call__(self, attention: torch.nn.Module, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The rows of one attention module as a tuple: empty for a layer that is not supervised."""
        if attention.layer_idx not in self.layers:
            return ()
        blocked = self.blocked
        if attention.sliding_window is not None:
            distance = self.positions[..., None] - torch.arange(key.shape[2], device=key.device)
            blocked = blocked | (distance >= attention.sliding_window)
        if self.rows_at_once is None:
            return (log_attention_rows(query, key, attention.scaling, self.positions, self.columns, blocked),)
        parts = zip(self.positions.split(self.rows_at_once, dim=1), blocked.split(self.rows_at_once, dim=1))
        rows = [log_attention_rows(query, key, attention.scaling, rows, self.columns, hide) for rows, hide in parts]
        return (torch.cat(rows, dim=1),)

    def collect(self, hidden_states: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Keeps the rows that a supervised layer returned beside its hidden states; returns the latter."""
        self.rows.append(rows)
        return hidden_states


@dataclass
class SupervisionPlan:
    """What one batch asks for, made by `plan_supervision` from one copy to the host.

    rows: the RowPlan. cells: bool[B, 1, T, H, W], True where a cell belongs to the sample.
    grid: int64[B, 3], each supervised sample's T, H, W. instances: int64[B, Q], the instance that each row names.
    pairs: bool[B, Q, T], the (token, step) pairs that count. pair_count: their number. resolution: r.
    label_positions: int64[P] into the flattened B * S positions, those that predict a labelled token; label_ids: int64[P].
    image_grids, video_grids: the grids on the host, as lists.
    """

    rows: RowPlan
    cells: torch.Tensor
    grid: torch.Tensor
    instances: torch.Tensor
    pairs: torch.Tensor
    pair_count: int
    resolution: int
    label_positions: torch.Tensor
    label_ids: torch.Tensor
    image_grids: list[list[int]]
    video_grids: list[list[int]]


class Supervision(NamedTuple):
    """The four tensors of a batch, each None where it was not given.

    attn_labels: int64[B, S], the token ids of the text after the visual block, IGNORE elsewhere.
    ins_contents_labels: int64[B, S], the instance that a token names, IGNORE where it names none.
    ins_masks: float[B, N, T, r * H, r * W], the covered share of each cell, from 0 to 1.
    mask_index: bool[B, N, T], the steps in which an instance is annotated.
    """

    attn_labels: torch.Tensor | None
    ins_contents_labels: torch.Tensor | None
    ins_masks: torch.Tensor | None
    mask_index: torch.Tensor | None


def check_supervision(
    input_ids: torch.Tensor,
    attn_labels: torch.Tensor | None,
    ins_contents_labels: torch.Tensor | None,
    ins_masks: torch.Tensor | None,
    mask_index: torch.Tensor | None,
):
    """Raises ValueError naming tensor, expected and found for a missing tensor, a wrong dtype, shape or device."""
    tensors = {
        "attn_labels": attn_labels,
        "ins_contents_labels": ins_contents_labels,
        "ins_masks": ins_masks,
        "mask_index": mask_index,
    }
    missing = [name for name, tensor in tensors.items() if not isinstance(tensor, torch.Tensor)]
    _require(not missing, f"expected all four tensors {', '.join(tensors)} or none, missing: {', '.join(missing)}")
    _require(input_ids is not None, "expected input_ids beside the four tensors (the visual block is found there)")
    for name, tensor in tensors.items():
        found = f"found {tensor.device}"
        _require(tensor.device == input_ids.device, f"{name}: expected device {input_ids.device} as input_ids, {found}")
    for name in ("attn_labels", "ins_contents_labels"):
        dtype, shape = tensors[name].dtype, tuple(tensors[name].shape)
        _require(dtype == torch.int64, f"{name}: expected torch.int64, found {dtype}")
        _require(shape == tuple(input_ids.shape), f"{name}: expected shape {tuple(input_ids.shape)}, found {shape}")
    _require(ins_masks.is_floating_point(), f"ins_masks: expected a floating dtype, found {ins_masks.dtype}")
    _require(mask_index.dtype == torch.bool, f"mask_index: expected torch.bool, found {mask_index.dtype}")
    batch, shape, index_shape = input_ids.shape[0], tuple(ins_masks.shape), tuple(mask_index.shape)
    _require(len(shape) == 5 and shape[0] == batch, f"ins_masks: expected shape ({batch}, N, T, Hm, Wm), found {shape}")
    _require(index_shape == shape[:3], f"mask_index: expected shape {shape[:3]} as ins_masks, found {index_shape}")


def _to_host(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as int64 on the CPU, in one copy: the only synchronisation that supervision adds."""
    packed = torch.cat([tensor.reshape(-1).long() for tensor in tensors.values()]).cpu()
    parts = packed.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.reshape(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts)}


def _to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A host tensor on the device; a blocking copy from ordinary memory would wait for everything queued there."""
    return tensor.to(device, non_blocking=True)


def _visual_blocks(kinds: torch.Tensor) -> list[tuple[int, int, int]]:
    """Runs (kind, first, length) of equal non-zero values in `kinds`, int64[S]: [0, 2, 2, 0] -> [(2, 1, 2)]."""
    values, lengths = torch.unique_consecutive(kinds, return_counts=True)
    firsts = lengths.cumsum(0) - lengths
    return [run for run in zip(values.tolist(), firsts.tolist(), lengths.tolist()) if run[0] != 0]


def _read_batch(
    model_config, supervision: Supervision, input_ids, attention_mask, labels, grids
) -> dict[str, torch.Tensor]:
    """Everything that the plan looks at, int64 on the host. Raises ValueError for values out of range."""
    ins_masks, mask_index = supervision.ins_masks, supervision.mask_index
    no_grid = input_ids.new_zeros((0, 3))
    host = _to_host(
        {
            "kinds": (input_ids == model_config.image_token_id) + 2 * (input_ids == model_config.video_token_id).long(),
            "real": torch.ones_like(input_ids) if attention_mask is None else attention_mask != 0,
            "attn_labels": supervision.attn_labels,
            "instances": supervision.ins_contents_labels,
            "labels": torch.full_like(input_ids, IGNORE) if labels is None else labels,
            "mask_index": mask_index,
            "masks_in_range": ((ins_masks >= 0) & (ins_masks <= 1)).all(),
            "images": no_grid if grids[0] is None else grids[0],
            "videos": no_grid if grids[1] is None else grids[1],
        }
    )
    _require(bool(host["masks_in_range"]), "ins_masks: expected values from 0 to 1, found values outside or NaN")
    for name, values, stop, meaning in (
        ("ins_contents_labels", host["instances"], mask_index.shape[1], "an instance index below"),
        ("attn_labels", host["attn_labels"], model_config.text_config.vocab_size, "a token id below"),
    ):
        outside = values[(values != IGNORE) & ((values < 0) | (values >= stop))].tolist()
        _require(not outside, f"{name}: expected {IGNORE} or {meaning} {stop}, found {outside[:5]}")
    return host


def _steps_of_tokens(host: dict[str, torch.Tensor]) -> torch.Tensor:
    """bool[B, S, T]: the steps in which each token is supervised; a token without any takes no part."""
    mask_index = host["mask_index"].bool()
    batch, count, steps = mask_index.shape
    named = (host["attn_labels"] != IGNORE) & (host["instances"] != IGNORE)
    if count == 0:
        return named.new_zeros((*named.shape, steps))
    instances = host["instances"].clamp_min(0)[..., None].expand(-1, -1, steps)
    return mask_index.gather(1, instances) & named[..., None]


def _locate_grids(host: dict[str, torch.Tensor], tokens: torch.Tensor, merge_size: int) -> tuple[list, list[int], list]:
    """Each supervised sample's merged grid [T, H, W] and first visual position, and all merged grids of the batch.

    Samples without a supervised token have the grid [0, 0, 0]. Raises ValueError for a supervised sample that has not
    exactly one visual block, or has a tag before it, or steps with masks beyond its grid.
    """
    merged = {
        kind: [[t, h // merge_size, w // merge_size] for t, h, w in host[name].tolist()]
        for kind, name in ((1, "images"), (2, "videos"))
    }
    unread = {kind: iter(grids) for kind, grids in merged.items()}
    grids, starts = [], []
    for sample, kinds in enumerate(host["kinds"]):
        blocks = _visual_blocks(kinds)
        found = [next(unread[kind], None) for kind, _, _ in blocks]
        _require(None not in found, f"sample {sample}: more visual blocks than rows of image_grid_thw or video_grid_thw")
        if not tokens[sample].any():
            grids.append([0, 0, 0])
            starts.append(0)
            continue
        _single_block(sample, blocks, found, tokens[sample], host["real"][sample].bool())
        beyond = host["mask_index"][sample, :, found[0][0] :].any()
        _require(not beyond, f"mask_index: sample {sample} has {found[0][0]} steps, found True beyond them")
        grids.append(found[0])
        starts.append(blocks[0][1])
    return grids, starts, merged[1] + merged[2]


def _single_block(sample: int, blocks: list, grids: list, tokens: torch.Tensor, real: torch.Tensor):
    """Checks that a supervised sample has one visual block of the size its grid says, and its tags behind it."""
    _require(len(blocks) == 1, f"sample {sample}: expected one visual block in a supervised sample, found {len(blocks)}")
    _, first, length = blocks[0]
    size = math.prod(grids[0])
    _require(length == size, f"sample {sample}: expected {size} visual tokens for the grid {grids[0]}, found {length}")
    positions = tokens.nonzero().flatten()
    _require(
        int(positions.min()) >= first + length,
        f"sample {sample}: expected every supervised token behind the visual block (at {first + length} or later), "
        f"found one at {int(positions.min())}",
    )
    _require(bool(real[positions].all()), f"sample {sample}: found a supervised token where attention_mask is 0")


def _mask_resolution(shape: torch.Size, grids: list[list[int]], steps: int) -> int:
    """r, the mask cells per grid cell and side. Raises ValueError when Hm x Wm is no multiple of the largest grid."""
    height, width = max(grid[1] for grid in grids), max(grid[2] for grid in grids)
    resolution = shape[3] // height
    _require(
        resolution >= 1 and tuple(shape[3:]) == (resolution * height, resolution * width) and shape[2] >= steps,
        f"ins_masks: expected at least {steps} steps of r * {height} x r * {width} cells with a whole number r, "
        f"found shape {tuple(shape)}",
    )
    return resolution


def _cell_columns(grids: list[list[int]], starts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(cells bool[B, T, H, W], columns int64[B, T * H * W]) on the padded grid.

    Example: the grid [1, 2, 2] that starts at 5, padded to W = 3, has the columns [[5, 6, 0], [7, 8, 0]].
    """
    grid = torch.tensor(grids)
    t, h, w = torch.meshgrid(*(torch.arange(int(size)) for size in grid.amax(0)), indexing="ij")
    sizes_t, sizes_h, sizes_w = (size.view(-1, 1, 1, 1) for size in grid.unbind(1))
    cells = (t < sizes_t) & (h < sizes_h) & (w < sizes_w)
    columns = torch.tensor(starts).view(-1, 1, 1, 1) + (t * sizes_h + h) * sizes_w + w
    return cells, torch.where(cells, columns, 0).flatten(1)


def _plan_rows(
    layers: tuple[int, ...],
    positions: torch.Tensor,
    real: torch.Tensor,
    grids: list[list[int]],
    starts: list[int],
    causal: bool,
    place,
) -> tuple[RowPlan, torch.Tensor]:
    """(the RowPlan of `positions`, cells bool[B, 1, T, H, W]), put on the device by `place`.

    positions: int64[B, Q]. real: int64[B, S], 0 in the padding. grids, starts: as _locate_grids finds them.
    """
    cells, columns = _cell_columns(grids, starts)
    blocked = (real == 0)[:, None, :].expand(-1, positions.shape[1], -1)
    if causal:
        blocked = blocked | (torch.arange(real.shape[1]) > positions[..., None])
    return RowPlan(layers, place(positions), place(columns), place(blocked)), place(cells[:, None])


def plan_supervision(
    model_config,
    config: AttentionSupervisionConfig,
    supervision: Supervision,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor | None,
    image_grid_thw: torch.Tensor | None,
    video_grid_thw: torch.Tensor | None,
) -> SupervisionPlan:
    """Decides on the host which rows, columns, pairs and labels of the batch count. See SupervisionPlan.

    Raises ValueError that names the tensor or sample, what was expected and what was found.
    """
    host = _read_batch(
        model_config, supervision, input_ids, attention_mask, labels, (image_grid_thw, video_grid_thw)
    )
    steps_of = _steps_of_tokens(host)
    tokens = steps_of.any(-1)
    merge_size = model_config.vision_config.spatial_merge_size
    grids, starts, all_grids = _locate_grids(host, tokens, merge_size)
    steps = max(grid[0] for grid in grids)

    # Row j of a sample is its j-th supervised token. The rows of shorter samples are padded; the last position sees
    # every real column, so that a padded row is finite.
    row_count = int(tokens.sum(1).max())
    order = tokens.long().argsort(dim=1, descending=True, stable=True)[:, :row_count]
    used = tokens.gather(1, order)
    positions = torch.where(used, order - int(config.query == "previous"), input_ids.shape[1] - 1)
    pairs = steps_of.gather(1, order[..., None].expand(-1, -1, steps_of.shape[2]))[..., :steps] & used[..., None]
    predicting = F.pad(host["labels"][:, 1:] != IGNORE, (0, 1)).flatten().nonzero().flatten()

    place = partial(_to_device, device=input_ids.device)
    layers = config.layers_of(model_config.text_config.num_hidden_layers)
    rows, cells = _plan_rows(layers, positions, host["real"], grids, starts, config.causal, place)
    return SupervisionPlan(
        rows=rows,
        cells=cells,
        grid=place(torch.tensor(grids)),
        instances=place(torch.where(used, host["instances"].gather(1, order), 0)),
        pairs=place(pairs),
        pair_count=int(pairs.sum()),
        resolution=_mask_resolution(supervision.ins_masks.shape, all_grids, steps) if row_count else 1,
        label_positions=place(predicting),
        label_ids=place(host["labels"].flatten().roll(-1)[predicting]),
        image_grids=host["images"].tolist(),
        video_grids=host["videos"].tolist(),
    )


# ----------------------------------------------------------------------------------------------------------------------
# Rows, fusion
# ----------------------------------------------------------------------------------------------------------------------


def log_attention_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    scaling: float,
    positions: torch.Tensor,
    columns: torch.Tensor,
    blocked: torch.Tensor,
) -> torch.Tensor:
    """float32[B, Q, C]: log of the mean over heads of softmax(q k^T * scaling), rows `positions`, columns `columns`.

    query: [B, heads, S, D] and key: [B, key-value heads, S, D], rotary embedding applied, as the attention module has
    them. positions: int64[B, Q]. columns: int64[B, C]. blocked: bool[B, Q, S], True outside the softmax.
    Only these rows are computed, O(Q * S), from the model's own q and k in float32 whatever the autocast.
    """
    with torch.autocast(device_type=query.device.type, enabled=False):
        batch, heads, _, size = query.shape
        rows, kv_heads = positions.shape[1], key.shape[1]
        query = query.gather(2, positions[:, None, :, None].expand(-1, heads, -1, size)).float() * scaling
        scores = query.reshape(batch, kv_heads, -1, size) @ key.float().transpose(2, 3)
        scores = scores.view(batch, heads, rows, key.shape[2]) + blocked[:, None] * LOG_ZERO
        columns = columns[:, None, None, :].expand(-1, heads, rows, -1)
        return scores.log_softmax(3).gather(3, columns).logsumexp(1) - math.log(heads)


def _outside_autocast(function):
    """`function(attention, ...)` in the precision of its arguments: autocast would make bf16 of matrix products."""

    @wraps(function)
    def wrapped(attention, *args):
        with torch.autocast(device_type=attention.device.type, enabled=False):
            return function(attention, *args)

    return wrapped


def fuse_layers(log_rows: list[torch.Tensor], cells: torch.Tensor, config: AttentionSupervisionConfig) -> torch.Tensor:
    """float32[B, Q, T, H, W]: the layers' rows as one map that sums to 1 over the sample's cells.

    log_rows: L of float32[B, Q, T * H * W], from log_attention_rows. cells: bool[B, 1, T, H, W].
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


# ----------------------------------------------------------------------------------------------------------------------
# Loss, pointing and inside
# ----------------------------------------------------------------------------------------------------------------------


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


@_outside_autocast
def mask_loss(
    attention: torch.Tensor, ins_masks: torch.Tensor, plan: SupervisionPlan, config: AttentionSupervisionConfig
) -> torch.Tensor:
    """Binary cross-entropy between each step's min-max normalised map and its mask, mean over the (token, step) pairs.

    attention: float32[B, Q, T, H, W] from fuse_layers. ins_masks: float[B, N, T, Hm, Wm]. Returns a float32 scalar.

        p = (a - min) / (max - min + eps)        min and max over the step's cells; eps "auto" is 1 / K

    log p is log(a - min) - log(max - min + eps) and log(1 - p) is log(max - a + eps) - log(max - min + eps): without
    cancellation where p nears 1.
    """
    if plan.pair_count == 0:
        return attention.sum() * 0.0
    cells = plan.cells
    eps = 1.0 / plan.grid.prod(1).clamp_min(1).view(-1, 1, 1, 1, 1) if config.eps == "auto" else config.eps
    low = attention.masked_fill(~cells, math.inf).amin((3, 4), keepdim=True)
    high = attention.masked_fill(~cells, -math.inf).amax((3, 4), keepdim=True)
    # Steps without cells have no extremes; they are left out below.
    low, high = (torch.where(cells.any((3, 4), keepdim=True), extreme, 0.0) for extreme in (low, high))
    span = (high - low + eps).clamp_min(TINY)
    above, below = attention - low, high - attention + eps
    above, below, size = (_resize(part.masked_fill(~cells, 0.0), plan) for part in (above, below, attention))
    floor = (RELATIVE_FLOOR * size.detach()).clamp_min(TINY)
    masks = _masks_of_rows(ins_masks, plan)
    log_p, log_rest = (_BoundedLogRatio.apply(part, span, floor) for part in (above, below))
    entropy = -(masks * log_p + (1 - masks) * log_rest)
    inside = cells.repeat_interleave(plan.resolution, 3).repeat_interleave(plan.resolution, 4)
    per_pair = entropy.masked_fill(~inside, 0.0).sum((3, 4)) / inside.sum((3, 4)).clamp_min(1)
    return (per_pair * plan.pairs).sum() / plan.pair_count


@torch.no_grad()
@_outside_autocast
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


# ----------------------------------------------------------------------------------------------------------------------
# The supervised forward
# ----------------------------------------------------------------------------------------------------------------------


def encode_vision(
    model, pixel_values, pixel_values_videos, image_grids: list[list[int]], video_grids: list[list[int]]
) -> tuple[dict, torch.Tensor]:
    """Runs the vision tower once: images and videos in one call, a minimal dummy grid when there is neither.

    Returns (mm_encoder_outputs for the model's forward, an exact zero that keeps a dummy call in the graph). Under
    ZeRO-3 every rank must call the tower equally often, whatever its samples are.
    """
    visual, merge_size = model.model.visual, model.model.visual.spatial_merge_size
    pixels = [part for part in (pixel_values, pixel_values_videos) if part is not None]
    grids = image_grids + video_grids
    if not pixels:
        config = model.config.vision_config
        patch_size = config.in_channels * config.temporal_patch_size * config.patch_size**2
        pixels, grids = [torch.zeros(merge_size**2, patch_size)], [[1, merge_size, merge_size]]
    device, dtype = model.get_input_embeddings().weight.device, visual.dtype
    pixels = [part.to(device, dtype) for part in pixels]
    pixels = pixels[0] if len(pixels) == 1 else torch.cat(pixels)  # a copy of a long video's pixels is not small
    embeddings = visual(pixels, grid_thw=_to_device(torch.tensor(grids), device)).pooler_output
    if not image_grids and not video_grids:
        return {}, embeddings.float().sum() * 0.0
    parts = embeddings.split([math.prod(grid) // merge_size**2 for grid in grids])
    images = len(image_grids)
    outputs = {"image": parts[:images], "video": parts[images:]}
    outputs = {kind: BaseModelOutputWithPooling(pooler_output=part) for kind, part in outputs.items() if part}
    return outputs, embeddings.new_zeros(())


def labelled_text_loss(model, hidden_states: torch.Tensor, plan: SupervisionPlan) -> torch.Tensor:
    """The model's own text loss, projecting only the positions that predict a labelled token; exactly 0 without one.

    hidden_states: [B, S, D]. Never allocates (B, S, vocabulary). The head is called as a module, as ZeRO-3 needs.
    """
    logits = model.lm_head(hidden_states.flatten(0, 1)[plan.label_positions])
    if len(plan.label_ids) == 0:
        return logits.float().sum()
    vocab_size = model.config.text_config.vocab_size
    return model.loss_function(logits=logits, labels=None, shift_labels=plan.label_ids, vocab_size=vocab_size)


def supervised_forward(
    model,
    supervision: Supervision,
    input_ids=None,
    attention_mask=None,
    labels=None,
    pixel_values=None,
    pixel_values_videos=None,
    image_grid_thw=None,
    video_grid_thw=None,
    mm_encoder_outputs=None,
    past_key_values=None,
    inputs_embeds=None,
    position_ids=None,
    use_cache=None,
    logits_to_keep=0,
    **kwargs,
) -> SupervisedOutput:
    """The forward of Qwen2_5_VLForConditionalGeneration when supervision tensors are given.

    supervision: the four tensors, as Supervision or a tuple in its order. The rest are the arguments of the stock
    forward. Raises ValueError for anything that cannot be supervised, naming the argument.
    """
    supervision = Supervision(*supervision)
    check_supervision(input_ids, *supervision)
    _require(inputs_embeds is None, "inputs_embeds: expected none, the visual block is found in input_ids")
    _require(past_key_values is None, "past_key_values: expected none, rows are computed over the whole sequence")
    _require(type(logits_to_keep) is int and logits_to_keep == 0, "logits_to_keep: expected 0, no logits are returned")
    _require(
        attention_mask is None or attention_mask.shape == input_ids.shape,
        f"attention_mask: expected shape {tuple(input_ids.shape)}, found {getattr(attention_mask, 'shape', 'a dict')}",
    )
    packed = position_ids is not None and position_ids.ndim == 3 and position_ids.shape[0] == 4
    _require(not packed, "position_ids: expected 3 components, found 4 (packed sequences cannot be supervised)")

    config = AttentionSupervisionConfig.from_dict(getattr(model.config, "attention_supervision", None))
    plan = plan_supervision(
        model.config, config, supervision, input_ids, attention_mask, labels, image_grid_thw, video_grid_thw
    )
    connected_zero = 0.0
    if mm_encoder_outputs is None:
        mm_encoder_outputs, connected_zero = encode_vision(
            model, pixel_values, pixel_values_videos, plan.image_grids, plan.video_grids
        )
    outputs = model.model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        image_grid_thw=image_grid_thw,
        video_grid_thw=video_grid_thw,
        mm_encoder_outputs=mm_encoder_outputs,
        attention_rows=plan.rows,
        use_cache=False,
        **kwargs,
    )
    attention = fuse_layers(plan.rows.rows, plan.cells, config)
    text_loss = labelled_text_loss(model, outputs.last_hidden_state, plan)
    masks_loss = mask_loss(attention, supervision.ins_masks, plan, config)
    return SupervisedOutput(
        loss=config.text_loss_weight * text_loss + config.mask_loss_weight * masks_loss + connected_zero,
        text_loss=text_loss,
        mask_loss=masks_loss,
        attention_maps=attention.detach(),
        grounding=grounding_sums(attention.detach(), supervision.ins_masks, plan),
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )


# ----------------------------------------------------------------------------------------------------------------------
# Analysis
# ----------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def log_attention_maps(
    model,
    positions: torch.Tensor,
    layers: list[int] | None = None,
    *,
    input_ids,
    attention_mask=None,
    pixel_values=None,
    pixel_values_videos=None,
    image_grid_thw=None,
    video_grid_thw=None,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log_maps float32[B, Q, L, T, H, W], cells bool[B, 1, T, H, W]): where chosen tokens look, layer by layer.

    positions: int64[B, Q], tokens behind the sample's one visual block, -1 in the padding. layers: L decoder layers,
    None for the supervised ones. The rest are arguments of the stock forward.

    exp(log_maps) is the mean over heads of the model's own attention, the share of the token's whole attention that a
    cell gets: what eager attention returns with `output_attentions`, under any attention implementation and without a
    term in S^2. Cells outside the sample's grid, and the rows of the padding, mean nothing there: see `cells`.
    Raises ValueError for a position outside the text behind the visual block and for a layer beyond the model.
    """
    config = AttentionSupervisionConfig.from_dict(getattr(model.config, "attention_supervision", None))
    if layers is not None:
        config.layers = list(layers)
    layers = config.layers_of(model.config.text_config.num_hidden_layers)
    no_grid = input_ids.new_zeros((0, 3))
    host = _to_host(
        {
            "kinds": (input_ids == model.config.image_token_id) + 2 * (input_ids == model.config.video_token_id).long(),
            "real": torch.ones_like(input_ids) if attention_mask is None else attention_mask != 0,
            "positions": positions.to(input_ids.device),
            "mask_index": input_ids.new_zeros((len(input_ids), 0, 0)),
            "images": no_grid if image_grid_thw is None else image_grid_thw,
            "videos": no_grid if video_grid_thw is None else video_grid_thw,
        }
    )
    chosen, length = host["positions"], input_ids.shape[1]
    outside = chosen[(chosen < -1) | (chosen >= length)].tolist()
    _require(not outside, f"positions: expected tokens below {length}, or -1, found {outside[:5]}")
    tokens = torch.zeros(len(chosen), length + 1, dtype=torch.bool).scatter_(1, chosen.where(chosen >= 0, length), True)
    grids, starts, _ = _locate_grids(host, tokens[:, :length], model.config.vision_config.spatial_merge_size)
    place = partial(_to_device, device=input_ids.device)
    plan, cells = _plan_rows(layers, chosen.where(chosen >= 0, length - 1), host["real"], grids, starts, True, place)
    plan.rows_at_once = ROWS_AT_ONCE
    encoded, _ = encode_vision(
        model, pixel_values, pixel_values_videos, host["images"].tolist(), host["videos"].tolist()
    )
    model.model(
        input_ids=input_ids,
        # without padding no mask is needed; SDPA would make one of S x S
        attention_mask=None if bool(host["real"].all()) else attention_mask,
        image_grid_thw=image_grid_thw,
        video_grid_thw=video_grid_thw,
        mm_encoder_outputs=encoded,
        attention_rows=plan,
        use_cache=False,
        **kwargs,
    )
    maps = torch.stack(plan.rows, dim=2)
    return maps.view(*maps.shape[:3], *cells.shape[2:]), cells
