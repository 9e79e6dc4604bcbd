"""The fork's attention supervision, for the rooms above: they name no model's folder."""

import torch
from transformers.attention_supervision import GROUNDING_SUMS, ON_OBJECT, AttentionSupervisionConfig, fuse_layers

from swim.models.family import family_of

__all__ = [
    "GROUNDING_SUMS",
    "ON_OBJECT",
    "AttentionSupervisionConfig",
    "encode_vision",
    "fuse_layers",
    "log_attention_maps",
    "named_terms",
    "supervision_of",
]


def log_attention_maps(
    model, positions: torch.Tensor, layers: list[int] | None = None, by_head: bool = False, **inputs
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log_maps float32[B, Q, L, T, H, W], cells bool[B, 1, T, H, W]): where chosen tokens look, layer by layer.

    positions: int64[B, Q], tokens after the sample's one visual block, -1 in the padding.
    layers: L decoder layers, None for the supervised ones.
    by_head: keep the heads apart, log_maps float32[B, Q, L, heads, T, H, W].
    inputs: of the model's forward.

    Raises ValueError for a position outside the text after the visual block, a layer beyond the model, and a model of
    no known family.
    """
    return family_of(model.config).log_attention_maps(model, positions, layers, by_head=by_head, **inputs)


def encode_vision(
    model,
    pixel_values: torch.Tensor | None,
    pixel_values_videos: torch.Tensor | None,
    image_grids: list[list[int]],
    video_grids: list[list[int]],
) -> tuple[dict, torch.Tensor]:
    """(mm_encoder_outputs for the model's forward, by "image" and "video", an exact zero): the vision tower runs once.

    Without a visual it runs on a minimal dummy grid: under ZeRO-3 all processes have to call it equally often.
    """
    return family_of(model.config).encode_vision(model, pixel_values, pixel_values_videos, image_grids, video_grids)


def supervision_of(model_config) -> AttentionSupervisionConfig:
    """The options that a model was trained with, the defaults for a stock one. Raises ValueError for unknown ones."""
    return AttentionSupervisionConfig.from_dict(getattr(model_config, "attention_supervision", None))


def named_terms(outputs) -> dict[str, torch.Tensor]:
    """What the mask loss is the weighted sum of, as it is logged; nothing where that is one loss."""
    terms = {} if len(outputs.mask_terms) == 1 else outputs.mask_terms
    return {f"mask_loss/{name}": term for name, term in terms.items()}
