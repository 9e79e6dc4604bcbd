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
"""Attention supervision: the attention of a named noun should fall on that object's mask.

The method is SWIM ("See What I Mean", arXiv 2605.18018). Everything that computes, scores or supervises an attention
map is here; training and analysis call the same functions. Nothing here knows a family of models: a family's folder has
an adapter that says which tokens are visual and how the vision tower runs. Read it in the order of the data:

    options    what can be chosen, saved with a checkpoint
    batch      the four supervision tensors and the visual tokens; their checks; one copy to the host
    plan       which rows, columns, (token, step) pairs and labels count
    rows       the chosen rows of each supervised layer, and their fusion into one map
    losses     how far one step's map is from its mask: bce, dice, iou, focal, kl
    loss       the maps against the masks: the mask loss, pointing and inside
    forward    the supervised forward, and the maps of any tokens; what a family's adapter has to provide
    vision     visual tokens and the vision tower, for families with placeholders, grids and merged embeddings

Shapes: B batch, S sequence, Q supervised tokens in the sample with most of them, L supervised layers, N instances,
T temporal steps, H x W merged grid of one step, K = T * H * W visual tokens of a sample, r mask cells per grid cell
and side. Q, T, H, W are padded to the largest sample of the batch.

A visual block is the tokens of one image or one video. They may be consecutive, or one run for each temporal step with
text between.
"""

from .batch import IGNORE, Supervision, VisualTokens
from .forward import (
    ROWS_AT_ONCE,
    Adapter,
    SupervisedOutput,
    labelled_logits,
    labelled_text_loss,
    log_attention_maps,
    supervised_forward,
)
from .loss import GROUNDING_SUMS, ON_OBJECT, grounding_sums, mask_loss, mask_terms
from .losses import LOSSES, TINY
from .options import AttentionSupervisionConfig
from .plan import MapPlan, SupervisionPlan, plan_maps, plan_supervision
from .rows import RowPlan, fuse_layers, log_attention_rows


__all__ = [
    "GROUNDING_SUMS",
    "IGNORE",
    "LOSSES",
    "ON_OBJECT",
    "ROWS_AT_ONCE",
    "TINY",
    "Adapter",
    "AttentionSupervisionConfig",
    "MapPlan",
    "RowPlan",
    "SupervisedOutput",
    "Supervision",
    "SupervisionPlan",
    "VisualTokens",
    "fuse_layers",
    "grounding_sums",
    "labelled_logits",
    "labelled_text_loss",
    "log_attention_maps",
    "log_attention_rows",
    "mask_loss",
    "mask_terms",
    "plan_maps",
    "plan_supervision",
    "supervised_forward",
]
