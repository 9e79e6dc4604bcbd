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
"""The supervised forward, and the maps of any tokens: what a family's adapter provides comes together with the rest.

The model is an upstream one whose decoder hands out attention rows: `model.model` takes `attention_rows` and
`mm_encoder_outputs`, `model.lm_head` projects, `model.config` has a `text_config`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..modeling_outputs import CausalLMOutputWithPast
from .batch import Supervision, VisualTokens, check_supervision
from .loss import grounding_sums, mask_terms, weighted_sum
from .options import AttentionSupervisionConfig, require
from .plan import SupervisionPlan, plan_maps, plan_supervision
from .rows import fuse_layers


# Rows that an analysis computes at a time: a long answer of a long video must fit the memory.
ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Adapter:
    """What differs between families of models.

    find_visual_tokens: function of (config of the model, input_ids, image_grid_thw, video_grid_thw); the VisualTokens
        of the batch. It must not wait for the device.
    encode_vision: function of (model, pixel_values, pixel_values_videos, image_grids, video_grids), the grids as lists
        on the host; (mm_encoder_outputs for `model.model`, an exact zero that keeps an unused output in the graph). It
        runs the vision tower exactly once, on a minimal dummy grid when there is neither image nor video: under ZeRO-3
        every rank must call the tower equally often, whatever its samples are.
    """

    find_visual_tokens: Callable[..., VisualTokens]
    encode_vision: Callable[..., tuple[dict, torch.Tensor]]


@dataclass
class SupervisedOutput(CausalLMOutputWithPast):
    """Output of a forward with the four supervision tensors; `logits` is None.

    loss: text_loss_weight * text_loss + mask_loss_weight * mask_loss.
    text_loss: float32 scalar; an exact, connected zero where nothing is labelled.
    mask_loss: float32 scalar; an exact, connected zero where nothing is supervised.
    mask_terms: what the mask loss is the weighted sum of: a float32 scalar for each loss of the options, by name.
    attention_maps: float32[B, Q, T, H, W], the fused maps that were supervised, without gradient; zeros in the padding.
    grounding: float32[5], sums over the (token, step) pairs, see `grounding_sums`.
    label_logits: float[L, V], what the head says at the positions that predict one of the batch's L labelled tokens, row by
        row; only with `return_label_logits`.
    """

    text_loss: torch.FloatTensor | None = None
    mask_loss: torch.FloatTensor | None = None
    mask_terms: dict[str, torch.FloatTensor] | None = None
    attention_maps: torch.FloatTensor | None = None
    grounding: torch.FloatTensor | None = None
    label_logits: torch.FloatTensor | None = None


def labelled_logits(model, hidden_states: torch.Tensor, plan: SupervisionPlan) -> torch.Tensor:
    """[L, V]: what the head says at the positions that predict one of the batch's L labelled tokens.

    hidden_states: [B, S, D]. Never allocates (B, S, vocabulary). The head is called as a module, as ZeRO-3 needs.
    """
    return model.lm_head(hidden_states.flatten(0, 1)[plan.label_positions])


def labelled_text_loss(model, logits: torch.Tensor, plan: SupervisionPlan) -> torch.Tensor:
    """The model's own text loss of `labelled_logits`; exactly 0 without a labelled token."""
    if len(plan.label_ids) == 0:
        return logits.float().sum()
    vocab_size = model.config.text_config.vocab_size
    return model.loss_function(logits=logits, labels=None, shift_labels=plan.label_ids, vocab_size=vocab_size)


def supervised_forward(
    adapter: Adapter,
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
    cache=None,
    inputs_embeds=None,
    position_ids=None,
    use_cache=None,
    logits_to_keep=0,
    return_label_logits=False,
    **kwargs,
) -> SupervisedOutput:
    """The forward of a model when supervision tensors are given.

    adapter: that of the model's family.
    supervision: the four tensors, as Supervision or a tuple in its order.
    return_label_logits: keep the logits of labelled tokens for a loss of the caller's own.
    The rest are the arguments of the stock forward.

    Raises ValueError for anything that cannot be supervised, naming the argument.
    """
    supervision = Supervision(*supervision)
    check_supervision(input_ids, *supervision)
    require(inputs_embeds is None, "inputs_embeds: expected none, the visual block is found in input_ids")
    require(cache is None, "cache: expected none, rows are computed over the whole sequence")
    require(type(logits_to_keep) is int and logits_to_keep == 0, "logits_to_keep: expected 0, no logits are returned")
    require(
        attention_mask is None or attention_mask.shape == input_ids.shape,
        f"attention_mask: expected shape {tuple(input_ids.shape)}, found {getattr(attention_mask, 'shape', 'a dict')}",
    )
    packed = position_ids is not None and position_ids.ndim == 3 and position_ids.shape[0] == 4
    require(not packed, "position_ids: expected 3 components, found 4 (packed sequences cannot be supervised)")

    config = _options_of(model)
    visual = adapter.find_visual_tokens(model.config, input_ids, image_grid_thw, video_grid_thw)
    plan = plan_supervision(model.config.text_config, config, supervision, visual, attention_mask, labels)
    connected_zero = 0.0
    if mm_encoder_outputs is None:
        mm_encoder_outputs, connected_zero = adapter.encode_vision(
            model, pixel_values, pixel_values_videos, plan.image_grids, plan.video_grids
        )
    outputs = model.model(
        input_ids=input_ids,
        attention_mask=attention_mask if plan.padded else None,  # asking the mask itself would wait for the GPU
        position_ids=position_ids,
        image_grid_thw=image_grid_thw,
        video_grid_thw=video_grid_thw,
        mm_encoder_outputs=mm_encoder_outputs,
        attention_rows=plan.rows,
        use_cache=False,
        **kwargs,
    )
    attention = fuse_layers(plan.rows.rows, plan.cells, config)
    label_logits = labelled_logits(model, outputs.last_hidden_state, plan)
    text_loss = labelled_text_loss(model, label_logits, plan)
    terms = mask_terms(attention, supervision.ins_masks, plan, config)
    mask_loss = weighted_sum(terms, config)
    return SupervisedOutput(
        loss=config.text_loss_weight * text_loss + config.mask_loss_weight * mask_loss + connected_zero,
        text_loss=text_loss,
        mask_loss=mask_loss,
        mask_terms=terms,
        attention_maps=attention.detach(),
        grounding=grounding_sums(attention.detach(), supervision.ins_masks, plan),
        label_logits=label_logits if return_label_logits else None,
        hidden_states=outputs.hidden_states,
        attentions=outputs.attentions,
    )


@torch.no_grad()
def log_attention_maps(
    adapter: Adapter,
    model,
    positions: torch.Tensor,
    layers: list[int] | None = None,
    *,
    by_head: bool = False,
    input_ids,
    attention_mask=None,
    pixel_values=None,
    pixel_values_videos=None,
    image_grid_thw=None,
    video_grid_thw=None,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log_maps float32[B, Q, L, T, H, W], cells bool[B, 1, T, H, W]): where chosen tokens look, layer by layer.

    adapter: that of the model's family.
    positions: int64[B, Q], tokens after the sample's one visual block, -1 in the padding.
    layers: L decoder layers, None for the supervised ones.
    by_head: keep the heads apart, log_maps float32[B, Q, L, heads, T, H, W].
    The rest are arguments of the stock forward.

    exp(log_maps) is the mean over heads of the model's own attention, the share of the token's whole attention that a
    cell gets: what eager attention returns with `output_attentions`, under any attention implementation and without a
    term in S^2. Cells outside the sample's grid, and the rows of the padding, mean nothing there: see `cells`.

    Raises ValueError for a position outside the text after the visual block and for a layer beyond the model.
    """
    config = _options_of(model)
    if layers is not None:
        config.layers = list(layers)
    visual = adapter.find_visual_tokens(model.config, input_ids, image_grid_thw, video_grid_thw)
    plan = plan_maps(config.layers_of(model.config.text_config.num_hidden_layers), positions, visual, attention_mask)
    plan.rows.rows_at_once, plan.rows.by_head = ROWS_AT_ONCE, by_head
    encoded, _ = adapter.encode_vision(model, pixel_values, pixel_values_videos, plan.image_grids, plan.video_grids)
    model.model(
        input_ids=input_ids,
        # without padding no mask is needed; SDPA would make one of S x S
        attention_mask=attention_mask if plan.padded else None,
        image_grid_thw=image_grid_thw,
        video_grid_thw=video_grid_thw,
        mm_encoder_outputs=encoded,
        attention_rows=plan.rows,
        use_cache=False,
        **kwargs,
    )
    maps = torch.stack(plan.rows.rows, dim=2)
    return maps.view(*maps.shape[:-1], *plan.cells.shape[2:]), plan.cells


def _options_of(model) -> AttentionSupervisionConfig:
    return AttentionSupervisionConfig.from_dict(getattr(model.config, "attention_supervision", None))
