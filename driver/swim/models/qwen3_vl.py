"""Qwen3-VL, the dense sizes.

A video is one run of visual tokens for each temporal step, its time in words before it.
"""

from functools import partial

from transformers import (
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen3_vl.attention_supervision import ADAPTER, log_attention_maps

from swim.models.family import LORA_TARGETS, Family, Positions, TinyDesign

_START, _VIDEO, _END = "<|vision_start|>", "<|video_pad|>", "<|vision_end|>"


def _without_wrapper(text: str) -> str:
    """The text with no start and end around a whole video: every step has its own.

    In transformers 4.57, which Qwen3-VL was released with, and in vLLM the steps take the place of start, video and end.
    The processor of later releases (5.12 to 5.24 at least) leaves the outer pair standing, which the weights have never seen.
    """
    return text.replace(_START + _VIDEO + _END, _VIDEO)


def _step_text(seconds: float) -> str:
    return f"<{seconds:.1f} seconds>{_START}{_END}"


FAMILY = Family(
    model_type="qwen3_vl",
    title="Qwen3-VL",
    config_class=Qwen3VLConfig,
    model_class=Qwen3VLForConditionalGeneration,
    processor_class=Qwen3VLProcessor,
    image_processor_class=Qwen2VLImageProcessor,
    video_processor_class=Qwen3VLVideoProcessor,
    position_rule=partial(Positions, Qwen3VLModel),
    chat_text=_without_wrapper,
    step_text=_step_text,
    takes_step_seconds=False,
    mergers=("merger", "deepstack_merger_list"),
    lora_targets=LORA_TARGETS,
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
