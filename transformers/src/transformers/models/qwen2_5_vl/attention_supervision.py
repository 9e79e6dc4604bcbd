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
"""Attention supervision for Qwen2.5-VL: which tokens are visual, and how the vision tower runs.

Everything else is in `transformers/attention_supervision/`, which knows no family. To supervise another family, write a
file like this one and patch its decoder as modeling_qwen2_5_vl.py is patched.
"""

import math
from functools import partial

import torch

from ...attention_supervision import Adapter, VisualTokens, forward
from ...attention_supervision.batch import IMAGE, VIDEO, to_device
from ...modeling_outputs import BaseModelOutputWithPooling


def find_visual_tokens(config, input_ids: torch.Tensor, image_grid_thw, video_grid_thw) -> VisualTokens:
    """The VisualTokens of input_ids, int64[B, S]: an image or a video is one run of its placeholder token."""
    images, videos = input_ids == config.image_token_id, input_ids == config.video_token_id
    kinds = IMAGE * images + VIDEO * videos
    return VisualTokens(kinds, image_grid_thw, video_grid_thw, config.vision_config.spatial_merge_size)


def encode_vision(
    model, pixel_values, pixel_values_videos, image_grids: list[list[int]], video_grids: list[list[int]]
) -> tuple[dict, torch.Tensor]:
    """Runs the vision tower once: images and videos in one call, a minimal dummy grid when there is neither.

    Returns (mm_encoder_outputs for the model's forward, an exact zero that keeps a dummy call in the graph), as
    Adapter asks.
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
    embeddings = visual(pixels, grid_thw=to_device(torch.tensor(grids), device)).pooler_output
    if not image_grids and not video_grids:
        return {}, embeddings.float().sum() * 0.0
    parts = embeddings.split([math.prod(grid) // merge_size**2 for grid in grids])
    images = len(image_grids)
    outputs = {"image": parts[:images], "video": parts[images:]}
    outputs = {kind: BaseModelOutputWithPooling(pooler_output=part) for kind, part in outputs.items() if part}
    return outputs, embeddings.new_zeros(())


ADAPTER = Adapter(find_visual_tokens, encode_vision)
supervised_forward = partial(forward.supervised_forward, ADAPTER)
log_attention_maps = partial(forward.log_attention_maps, ADAPTER)
