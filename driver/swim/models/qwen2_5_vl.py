"""Qwen2.5-VL."""

from functools import partial

from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_5_vl.attention_supervision import ADAPTER, log_attention_maps

from swim.models.family import LORA_TARGETS, Family, Positions, TinyDesign


def _as_rendered(text: str) -> str:
    return text


def _no_text(_: float) -> str:
    return ""


FAMILY = Family(
    model_type="qwen2_5_vl",
    title="Qwen2.5-VL",
    config_class=Qwen2_5_VLConfig,
    model_class=Qwen2_5_VLForConditionalGeneration,
    processor_class=Qwen2_5_VLProcessor,
    image_processor_class=Qwen2VLImageProcessor,
    video_processor_class=Qwen2VLVideoProcessor,
    position_rule=partial(Positions, Qwen2_5_VLModel),
    chat_text=_as_rendered,
    step_text=_no_text,
    takes_step_seconds=True,
    mergers=("merger",),
    lora_targets=LORA_TARGETS,
    log_attention_maps=log_attention_maps,
    encode_vision=ADAPTER.encode_vision,
    tiny=TinyDesign(
        text={"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}},
        vision={"intermediate_size": 64, "fullatt_block_indexes": [0], "tokens_per_second": 2},
        pixels={
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
        },
        block_in=("mlp.gate_proj", "mlp.up_proj"),
        block_out="mlp.down_proj",
        merger_in="mlp.0",
        merger_out="mlp.2",
    ),
)
