"""Qwen2.5-VL."""

from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel
from transformers.models.qwen2_5_vl.attention_supervision import log_attention_maps

from swim.models.family import Family


class _Positions:
    """The model's own position rule: its methods need nothing but the configuration."""

    get_rope_index = Qwen2_5_VLModel.get_rope_index
    get_vision_position_ids = Qwen2_5_VLModel.get_vision_position_ids

    def __init__(self, config):
        self.config = config


def _part_of(name: str) -> str:
    if ".visual.merger." in f".{name}":
        return "merger"
    return "visual" if ".visual." in f".{name}" else "language_model"


FAMILY = Family(
    model_type="qwen2_5_vl",
    title="Qwen2.5-VL",
    model_class=Qwen2_5_VLForConditionalGeneration,
    position_rule=_Positions,
    parts=("language_model", "merger", "visual"),
    part_of=_part_of,
    # the vision tower's MLP has the same module names, so the language model is named too
    lora_targets=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    log_attention_maps=log_attention_maps,
)
