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
"""What a batch brings: supervision tensors and visual tokens, their checks, and the one copy to the host."""

from dataclasses import dataclass
from typing import NamedTuple

import torch

from .options import require


IGNORE = -100
# The kinds of visual token in `VisualTokens.kinds`.
IMAGE, VIDEO = 1, 2


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


@dataclass(frozen=True)
class VisualTokens:
    """Which tokens of a batch are visual, and the grids that they fill in order. On the device, made without waiting.

    kinds: int64[B, S], IMAGE or VIDEO where a token is visual, 0 elsewhere.
    image_grids: int64[images, 3], T, H, W of each image before merging; None is no image.
    video_grids: int64[videos, 3], the same of each video.
    merge_size: cells of a grid before merging per merged cell, along each side.
    run_per_step: True where the tokens of a video are one run for each temporal step with text between, False where
        they are one run.
    """

    kinds: torch.Tensor
    image_grids: torch.Tensor | None
    video_grids: torch.Tensor | None
    merge_size: int
    run_per_step: bool = False

    def tensors(self) -> dict[str, torch.Tensor]:
        """kinds, image_grids and video_grids by name, none of them None."""
        no_grid = self.kinds.new_zeros((0, 3))
        return {
            "kinds": self.kinds,
            "image_grids": no_grid if self.image_grids is None else self.image_grids,
            "video_grids": no_grid if self.video_grids is None else self.video_grids,
        }


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
    require(not missing, f"expected all four tensors {', '.join(tensors)} or none, missing: {', '.join(missing)}")
    require(input_ids is not None, "expected input_ids beside the four tensors (the visual block is found there)")
    for name, tensor in tensors.items():
        found = f"found {tensor.device}"
        require(tensor.device == input_ids.device, f"{name}: expected device {input_ids.device} as input_ids, {found}")
    for name in ("attn_labels", "ins_contents_labels"):
        dtype, shape = tensors[name].dtype, tuple(tensors[name].shape)
        require(dtype == torch.int64, f"{name}: expected torch.int64, found {dtype}")
        require(shape == tuple(input_ids.shape), f"{name}: expected shape {tuple(input_ids.shape)}, found {shape}")
    require(ins_masks.is_floating_point(), f"ins_masks: expected a floating dtype, found {ins_masks.dtype}")
    require(mask_index.dtype == torch.bool, f"mask_index: expected torch.bool, found {mask_index.dtype}")
    batch, shape, index_shape = input_ids.shape[0], tuple(ins_masks.shape), tuple(mask_index.shape)
    require(len(shape) == 5 and shape[0] == batch, f"ins_masks: expected shape ({batch}, N, T, Hm, Wm), found {shape}")
    require(index_shape == shape[:3], f"mask_index: expected shape {shape[:3]} as ins_masks, found {index_shape}")


def read_batch(
    supervision: Supervision,
    visual: VisualTokens,
    attention_mask: torch.Tensor | None,
    labels: torch.Tensor | None,
    vocab_size: int,
) -> dict[str, torch.Tensor]:
    """Everything that `plan_supervision` looks at, int64 on the host. Raises ValueError for values out of range."""
    ins_masks, mask_index = supervision.ins_masks, supervision.mask_index
    host = to_host(
        {
            **visual.tensors(),
            "real": real_tokens(visual, attention_mask),
            "attn_labels": supervision.attn_labels,
            "instances": supervision.ins_contents_labels,
            "labels": torch.full_like(visual.kinds, IGNORE) if labels is None else labels,
            "mask_index": mask_index,
            "masks_in_range": ((ins_masks >= 0) & (ins_masks <= 1)).all(),
        }
    )
    require(bool(host["masks_in_range"]), "ins_masks: expected values from 0 to 1, found values outside or NaN")
    for name, values, stop, meaning in (
        ("ins_contents_labels", host["instances"], mask_index.shape[1], "an instance index below"),
        ("attn_labels", host["attn_labels"], vocab_size, "a token id below"),
    ):
        outside = values[(values != IGNORE) & ((values < 0) | (values >= stop))].tolist()
        require(not outside, f"{name}: expected {IGNORE} or {meaning} {stop}, found {outside[:5]}")
    return host


def real_tokens(visual: VisualTokens, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """[B, S], 0 or False in the padding."""
    return torch.ones_like(visual.kinds) if attention_mask is None else attention_mask != 0


def to_host(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors as int64 on the CPU, in one copy: the only synchronisation that supervision adds."""
    packed = torch.cat([tensor.reshape(-1).long() for tensor in tensors.values()]).cpu()
    parts = packed.split([tensor.numel() for tensor in tensors.values()])
    return {name: part.reshape(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts)}


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A host tensor on the device; a blocking copy from ordinary memory would wait for everything queued there."""
    return tensor.to(device, non_blocking=True)
