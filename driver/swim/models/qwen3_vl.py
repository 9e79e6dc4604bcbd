"""Qwen3-VL, the dense sizes.

A video is one run of visual tokens for each temporal step, its time in words before it.
"""

from transformers import (
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen3_vl.attention_supervision import ADAPTER, log_attention_maps

from swim.models.family import Family, TinyDesign

_START, _VIDEO, _END = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"


class _Positions:
    """The model's own position rule: its methods need nothing but the configuration."""

    get_rope_index = Qwen3VLModel.get_rope_index
    get_vision_position_ids = Qwen3VLModel.get_vision_position_ids

    def __init__(self, config):
        self.config = config


def _without_wrapper(text: str) -> str:
    """The text with no start and end around a whole video: every step has its own.

    In transformers 4.57, which Qwen3-VL was released with, and in vLLM the steps take the place of start, video and end.
    The processor of later releases (5.12 to 5.24 at least) leaves the outer pair standing, which the weights have never seen.
    """
    return text.replace(_START + _VIDEO + _END, _VIDEO)


def _step_text(seconds: float) -> str:
    return f"<{seconds:.1f} seconds>{_START}{_END}"


def _part_of(name: str) -> str:
    if ".visual.merger." in f".{name}" or ".visual.deepstack_merger_list." in f".{name}":
        return "merger"
    return "visual" if ".visual." in f".{name}" else "language_model"


FAMILY = Family(
    model_type="qwen3_vl",
    title="Qwen3-VL",
    config_class=Qwen3VLConfig,
    model_class=Qwen3VLForConditionalGeneration,
    processor_class=Qwen3VLProcessor,
    image_processor_class=Qwen2VLImageProcessor,
    video_processor_class=Qwen3VLVideoProcessor,
    position_rule=_Positions,
    chat_text=_without_wrapper,
    step_text=_step_text,
    takes_step_seconds=False,
    parts=("language_model", "merger", "visual"),
    part_of=_part_of,
    lora_targets=r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    log_attention_maps=log_attention_maps,
    encode_vision=ADAPTER.encode_vision,
    tiny=TinyDesign(
        text={
            "head_dim": 32,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
        },
        vision={"intermediate_size": 128, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        pixels={
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
        },
        block_in=("mlp.linear_fc1",),
        block_out="mlp.linear_fc2",
        merger_in="linear_fc1",
        merger_out="linear_fc2",
        silent=("pos_embed.weight",),
    ),
)
