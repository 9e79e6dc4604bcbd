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
"""Visual tokens and the vision tower, for families with placeholders, grids and merged embeddings."""

import math

import torch

from .batch import IMAGE, VIDEO, VisualTokens, to_device


def find_visual_tokens(
    config, input_ids: torch.Tensor, image_grid_thw, video_grid_thw, run_per_step: bool = False
) -> VisualTokens:
    """The VisualTokens of input_ids, int64[B, S]: images and videos each have a placeholder token.

    run_per_step: see VisualTokens.
    """
    images, videos = input_ids == config.image_token_id, input_ids == config.video_token_id
    kinds = IMAGE * images + VIDEO * videos
    merge_size = config.vision_config.spatial_merge_size
    return VisualTokens(kinds, image_grid_thw, video_grid_thw, merge_size, run_per_step)


def encode_vision(
    model, pixel_values, pixel_values_videos, image_grids: list[list[int]], video_grids: list[list[int]]
) -> tuple[dict, torch.Tensor]:
    """Runs the vision tower once: images and videos in one call, a minimal dummy grid when there is neither.

    Returns (mm_encoder_outputs for the model's forward, an exact zero that keeps a dummy call in the graph), as
    Adapter asks. What a tower hands to the decoder beside its embeddings, `deepstack_features`, goes with them.
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
    output = visual(pixels, grid_thw=to_device(torch.tensor(grids), device))
    stacked = getattr(output, "deepstack_features", None) or []
    features = [output.pooler_output, *stacked]
    if not image_grids and not video_grids:
        return {}, sum(feature.float().sum() for feature in features) * 0.0
    lengths = [math.prod(grid) // merge_size**2 for grid in grids]
    parts = [feature.split(lengths) for feature in features]
    images = len(image_grids)
    outputs = {}
    for kind, chosen in (("image", slice(images)), ("video", slice(images, None))):
        pooled, *deeper = (part[chosen] for part in parts)
        if pooled:
            extra = {"deepstack_features": deeper} if deeper else {}
            outputs[kind] = type(output)(pooler_output=pooled, **extra)
    return outputs, output.pooler_output.new_zeros(())
