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
"""Which rows, columns, (token, step) pairs and labels of a batch count: decided on the host, from one copy."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from .batch import IGNORE, IMAGE, VIDEO, Supervision, VisualTokens, read_batch, real_tokens, to_device, to_host
from .options import AttentionSupervisionConfig, require
from .rows import RowPlan


@dataclass
class SupervisionPlan:
    """What one batch asks for, made by `plan_supervision`. The grids are on the host, all tensors on the device.

    rows: the RowPlan.
    cells: bool[B, 1, T, H, W], True where a cell belongs to the sample.
    grid: int64[B, 3], each supervised sample's T, H, W.
    instances: int64[B, Q], the instance that each row names.
    pairs: bool[B, Q, T], the (token, step) pairs that count.
    pair_count: the number of pairs that count.
    resolution: r, the mask cells per grid cell and side.
    padded: whether the batch has padding.
    label_positions: int64[P] into the flattened B * S positions, those that predict a labelled token.
    label_ids: int64[P], the labelled tokens.
    image_grids: [T, H, W] of each image before merging.
    video_grids: the same of each video.
    """

    rows: RowPlan
    cells: torch.Tensor
    grid: torch.Tensor
    instances: torch.Tensor
    pairs: torch.Tensor
    pair_count: int
    resolution: int
    padded: bool
    label_positions: torch.Tensor
    label_ids: torch.Tensor
    image_grids: list[list[int]]
    video_grids: list[list[int]]


@dataclass
class MapPlan:
    """What the maps of chosen tokens ask for, made by `plan_maps`.

    rows: the RowPlan.
    cells: bool[B, 1, T, H, W], True where a cell belongs to the sample.
    padded: whether the batch has padding.
    image_grids: [T, H, W] of each image before merging, on the host.
    video_grids: the same of each video.
    """

    rows: RowPlan
    cells: torch.Tensor
    padded: bool
    image_grids: list[list[int]]
    video_grids: list[list[int]]


def plan_supervision(
    text_config,
    config: AttentionSupervisionConfig,
    supervision: Supervision,
    visual: VisualTokens,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor | None,
) -> SupervisionPlan:
    """The plan of a batch.

    text_config: the language model's config.
    attention_mask: [B, S], 0 in the padding; None is no padding.
    labels: int64[B, S], IGNORE where no text is learnt; None is no label.

    Raises ValueError that names the tensor or sample, what was expected and what was found.
    """
    host = read_batch(supervision, visual, attention_mask, labels, text_config.vocab_size)
    steps_of = _steps_of_tokens(host)
    tokens = steps_of.any(-1)
    grids, all_grids = _locate_grids(host, tokens, visual)
    _check_steps(host["mask_index"], grids, tokens)
    steps = max(grid[0] for grid in grids)

    # Row j of a sample is its j-th supervised token. The rows of shorter samples are padded; the last position sees
    # every real column, so that a padded row is finite.
    row_count = int(tokens.sum(1).max())
    order = tokens.long().argsort(dim=1, descending=True, stable=True)[:, :row_count]
    used = tokens.gather(1, order)
    positions = torch.where(used, order - int(config.query == "previous"), tokens.shape[1] - 1)
    pairs = steps_of.gather(1, order[..., None].expand(-1, -1, steps_of.shape[2]))[..., :steps] & used[..., None]
    predicting = F.pad(host["labels"][:, 1:] != IGNORE, (0, 1)).flatten().nonzero().flatten()

    layers = config.layers_of(text_config.num_hidden_layers)
    place = partial(to_device, device=visual.kinds.device)
    rows, cells = _plan_rows(layers, positions, host, grids, config.causal, place)
    return SupervisionPlan(
        rows=rows,
        cells=cells,
        grid=place(torch.tensor(grids)),
        instances=place(torch.where(used, host["instances"].gather(1, order), 0)),
        pairs=place(pairs),
        pair_count=int(pairs.sum()),
        resolution=_mask_resolution(supervision.ins_masks.shape, all_grids, steps) if row_count else 1,
        padded=not bool(host["real"].all()),
        label_positions=place(predicting),
        label_ids=place(host["labels"].flatten().roll(-1)[predicting]),
        image_grids=host["image_grids"].tolist(),
        video_grids=host["video_grids"].tolist(),
    )


def plan_maps(
    layers: tuple[int, ...], positions: torch.Tensor, visual: VisualTokens, attention_mask: torch.Tensor | None
) -> MapPlan:
    """The plan of the maps of `positions`, int64[B, Q], -1 in the padding, at `layers`.

    Raises ValueError for a position outside the text after the visual block.
    """
    tensors = {"real": real_tokens(visual, attention_mask), "positions": positions.to(visual.kinds.device)}
    host = to_host(visual.tensors() | tensors)
    chosen, (batch, length) = host["positions"], host["kinds"].shape
    outside = chosen[(chosen < -1) | (chosen >= length)].tolist()
    require(not outside, f"positions: expected tokens below {length}, or -1, found {outside[:5]}")
    tokens = torch.zeros(batch, length + 1, dtype=torch.bool).scatter_(1, chosen.where(chosen >= 0, length), True)
    grids, _ = _locate_grids(host, tokens[:, :length], visual)
    place = partial(to_device, device=visual.kinds.device)
    rows, cells = _plan_rows(layers, chosen.where(chosen >= 0, length - 1), host, grids, True, place)
    padded = not bool(host["real"].all())
    return MapPlan(rows, cells, padded, host["image_grids"].tolist(), host["video_grids"].tolist())


def _steps_of_tokens(host: dict[str, torch.Tensor]) -> torch.Tensor:
    """bool[B, S, T]: the steps in which each token is supervised; a token without any takes no part."""
    mask_index = host["mask_index"].bool()
    batch, count, steps = mask_index.shape
    named = (host["attn_labels"] != IGNORE) & (host["instances"] != IGNORE)
    if count == 0:
        return named.new_zeros((*named.shape, steps))
    instances = host["instances"].clamp_min(0)[..., None].expand(-1, -1, steps)
    return mask_index.gather(1, instances) & named[..., None]


def _locate_grids(host: dict[str, torch.Tensor], tokens: torch.Tensor, visual: VisualTokens) -> tuple[list, list]:
    """Each supervised sample's merged grid [T, H, W], and all merged grids of the batch.

    tokens: bool[B, S], the supervised tokens. Samples without one have the grid [0, 0, 0].

    Raises ValueError for a supervised sample that does not have exactly one visual block, or has a tag before it.
    """
    merged = {
        kind: [[t, h // visual.merge_size, w // visual.merge_size] for t, h, w in host[name].tolist()]
        for kind, name in ((IMAGE, "image_grids"), (VIDEO, "video_grids"))
    }
    # For each run of visual tokens, in order: which image or video it belongs to.
    unread = {
        kind: iter([number for number, grid in enumerate(grids) for _ in _runs_of_grid(kind, grid, visual)])
        for kind, grids in merged.items()
    }
    located = []
    for sample, kinds in enumerate(host["kinds"]):
        runs = _visual_runs(kinds)
        owners = [(kind, next(unread[kind], None)) for kind, _, _ in runs]
        short = any(number is None for _, number in owners)
        require(not short, f"sample {sample}: more visual blocks than rows of image_grid_thw or video_grid_thw")
        if not tokens[sample].any():
            located.append([0, 0, 0])
            continue
        blocks = len(set(owners))
        require(blocks == 1, f"sample {sample}: expected one visual block in a supervised sample, found {blocks}")
        kind, number = owners[0]
        grid = merged[kind][number]
        _check_block(sample, runs, grid, _runs_of_grid(kind, grid, visual))
        _check_tokens(sample, runs[-1], tokens[sample], host["real"][sample].bool())
        located.append(grid)
    return located, merged[IMAGE] + merged[VIDEO]


def _runs_of_grid(kind: int, grid: list[int], visual: VisualTokens) -> list[int]:
    """The lengths of the runs of consecutive tokens that fill a merged grid."""
    steps, height, width = grid
    return [height * width] * steps if visual.run_per_step and kind == VIDEO else [steps * height * width]


def _visual_runs(kinds: torch.Tensor) -> list[tuple[int, int, int]]:
    """Runs (kind, first, length) of equal non-zero values in `kinds`, int64[S]: [0, 2, 2, 0] -> [(2, 1, 2)]."""
    values, lengths = torch.unique_consecutive(kinds, return_counts=True)
    firsts = lengths.cumsum(0) - lengths
    return [run for run in zip(values.tolist(), firsts.tolist(), lengths.tolist()) if run[0] != 0]


def _check_block(sample: int, runs: list[tuple[int, int, int]], grid: list[int], lengths: list[int]):
    """Checks that the runs of a supervised sample's one visual block have the lengths its grid asks for."""
    found = [length for _, _, length in runs]
    expected, counted = (" + ".join(str(length) for length in side) for side in (lengths, found))
    message = f"sample {sample}: expected {expected} visual tokens for the grid {grid}, found {counted}"
    require(found == lengths, message)


def _check_tokens(sample: int, last_run: tuple[int, int, int], tokens: torch.Tensor, real: torch.Tensor):
    """Checks that the supervised tokens of a sample, bool[S], are real and come after its visual block."""
    _, first, length = last_run
    positions = tokens.nonzero().flatten()
    require(
        int(positions.min()) >= first + length,
        f"sample {sample}: expected every supervised token after the visual block (at {first + length} or later), "
        f"found one at {int(positions.min())}",
    )
    require(bool(real[positions].all()), f"sample {sample}: found a supervised token where attention_mask is 0")


def _check_steps(mask_index: torch.Tensor, grids: list[list[int]], tokens: torch.Tensor):
    """Checks that no supervised sample has a mask in a step beyond its grid. mask_index: [B, N, T]."""
    for sample, (steps, _, _) in enumerate(grids):
        beyond = tokens[sample].any() and mask_index[sample, :, steps:].any()
        require(not beyond, f"mask_index: sample {sample} has {steps} steps, found True beyond them")


def _mask_resolution(shape: torch.Size, grids: list[list[int]], steps: int) -> int:
    """r, the mask cells per grid cell and side. Raises ValueError when Hm x Wm is no multiple of the largest grid."""
    height, width = max(grid[1] for grid in grids), max(grid[2] for grid in grids)
    resolution = shape[3] // height
    require(
        resolution >= 1 and tuple(shape[3:]) == (resolution * height, resolution * width) and shape[2] >= steps,
        f"ins_masks: expected at least {steps} steps of r * {height} x r * {width} cells with a whole number r, "
        f"found shape {tuple(shape)}",
    )
    return resolution


def _plan_rows(
    layers: tuple[int, ...],
    positions: torch.Tensor,
    host: dict[str, torch.Tensor],
    grids: list[list[int]],
    causal: bool,
    place,
) -> tuple[RowPlan, torch.Tensor]:
    """(the RowPlan of `positions`, cells bool[B, 1, T, H, W]), put on the device by `place`.

    positions: int64[B, Q].
    host: kinds int64[B, S], and real int64[B, S], 0 in the padding.
    grids: as _locate_grids finds them.
    """
    cells, columns = _cell_columns(grids, host["kinds"])
    real = host["real"]
    blocked = (real == 0)[:, None, :].expand(-1, positions.shape[1], -1)
    if causal:
        blocked = blocked | (torch.arange(real.shape[1]) > positions[..., None])
    return RowPlan(layers, place(positions), place(columns), place(blocked)), place(cells[:, None])


def _cell_columns(grids: list[list[int]], kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cells bool[B, T, H, W], columns int64[B, T * H * W]) on the padded grid.

    The n-th cell of a sample is its n-th visual token, whatever text lies between them.
    kinds: int64[B, S], non-zero where a token is visual.

    Example: the grid [2, 1, 2] whose tokens are at 5, 6 and 9, 10, padded to W = 3, has the columns
    [[5, 6, 0], [9, 10, 0]].
    """
    grid = torch.tensor(grids)
    t, h, w = torch.meshgrid(*(torch.arange(int(size)) for size in grid.amax(0)), indexing="ij")
    sizes_t, sizes_h, sizes_w = (size.view(-1, 1, 1, 1) for size in grid.unbind(1))
    cells = (t < sizes_t) & (h < sizes_h) & (w < sizes_w)
    places = (kinds != 0).long().argsort(dim=1, descending=True, stable=True)  # the visual tokens first, in order
    number = torch.where(cells, (t * sizes_h + h) * sizes_w + w, 0).flatten(1)
    return cells, torch.where(cells.flatten(1), places.gather(1, number), 0)
