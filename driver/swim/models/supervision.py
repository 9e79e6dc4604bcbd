"""The fork's attention supervision, for the rooms above: they name no model's folder."""

from transformers.models.qwen2_5_vl.attention_supervision import (
    GROUNDING_SUMS,
    ON_OBJECT,
    AttentionSupervisionConfig,
    fuse_layers,
    log_attention_maps,
)

__all__ = [
    "GROUNDING_SUMS",
    "ON_OBJECT",
    "AttentionSupervisionConfig",
    "fuse_layers",
    "log_attention_maps",
    "supervision_of",
]


def supervision_of(model_config) -> AttentionSupervisionConfig:
    """The options that a model was trained with, the defaults for a stock one. Raises ValueError for unknown ones."""
    return AttentionSupervisionConfig.from_dict(getattr(model_config, "attention_supervision", None))
