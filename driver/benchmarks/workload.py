"""Models and batches that the benchmarks share: random weights in the 7B's shapes on a GPU, narrow ones on a CPU.

Nothing here needs the fork: stock transformers runs the same model on the same batch.
"""

import argparse
import math

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

IGNORE = -100
STEPS, PROMPT_TOKENS, INSTANCES = 16, 20, 2
PAD, EOS, VISION_START, VISION_END, IMAGE, VIDEO, FIRST_WORD = 0, 1, 2, 3, 4, 5, 10
NARROW = {
    "text": {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 2, "num_key_value_heads": 1},
    "vision": {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "fullatt_block_indexes": []},
    "vocabulary": 1000,
}
SEVEN_B = {
    "text": {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4},
    "vision": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16},
    "vocabulary": 152064,
}


def make_model(options, attention: str = "sdpa") -> Qwen2_5_VLForConditionalGeneration:
    """Random weights in training mode, the vision tower frozen. options: device, layers."""
    shapes = SEVEN_B if options.device == "cuda" else NARROW
    head_size = shapes["text"]["hidden_size"] // shapes["text"]["num_attention_heads"]
    sections = [head_size // 8, head_size * 3 // 16, head_size * 3 // 16]  # as the 7B: 16, 24, 24 of 128
    config = Qwen2_5_VLConfig(
        text_config={
            **shapes["text"],
            "vocab_size": shapes["vocabulary"],
            "num_hidden_layers": options.layers,
            "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
            "bos_token_id": None,
            "eos_token_id": EOS,
            "pad_token_id": PAD,
        },
        vision_config={**shapes["vision"], "out_hidden_size": shapes["text"]["hidden_size"]},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation=attention, dtype=dtype)
    model.model.visual.requires_grad_(False)
    if options.device == "cuda":
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def make_batch(model, tokens: int, options) -> dict[str, torch.Tensor]:
    """One sample of about `tokens` tokens: prompt, video, `text_tokens` words, of which the last three quarters are
    labelled and `supervised_tokens`, evenly spread, name one of two instances that have a mask in every step.

    options: device, text_tokens, supervised_tokens.
    """
    per_step = max((tokens - options.text_tokens - PROMPT_TOKENS - 2) / STEPS, 1)
    height = round(math.sqrt(per_step))
    width = round(per_step / height)
    cells = STEPS * height * width
    words = torch.randint(FIRST_WORD, model.config.text_config.vocab_size, (PROMPT_TOKENS + options.text_tokens,))
    block = torch.tensor([VISION_START, *[VIDEO] * cells, VISION_END])
    ids = torch.cat([words[:PROMPT_TOKENS], block, words[PROMPT_TOKENS:]])[None]
    behind = PROMPT_TOKENS + cells + 2
    labels, attn_labels, instances = (torch.full_like(ids, IGNORE) for _ in range(3))
    labels[:, behind + options.text_tokens // 4 :] = ids[:, behind + options.text_tokens // 4 :]
    attn_labels[:, behind:] = ids[:, behind:]
    named = behind + torch.arange(options.supervised_tokens) * options.text_tokens // options.supervised_tokens
    instances[0, named] = torch.arange(options.supervised_tokens) % INSTANCES
    grid = torch.tensor([[STEPS, 2 * height, 2 * width]])
    kinds = torch.where(ids == VIDEO, 2, 0)
    seconds = torch.ones(1)
    positions, _ = model.model.get_rope_index(ids, kinds, video_grid_thw=grid, second_per_grid_ts=seconds)
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "position_ids": positions,
        "labels": labels,
        "pixel_values_videos": torch.randn(4 * cells, 3 * 2 * 14 * 14),
        "video_grid_thw": grid,
        "attn_labels": attn_labels,
        "ins_contents_labels": instances,
        "ins_masks": torch.rand(1, INSTANCES, STEPS, height, width).round(),
        "mask_index": torch.ones(1, INSTANCES, STEPS, dtype=torch.bool),
    }
    return {name: tensor.to(options.device) for name, tensor in batch.items()}


def add_workload_options(parser: argparse.ArgumentParser, tokens: list[int]):
    """The options that `make_model` and `make_batch` read, and --tokens."""
    parser.add_argument("--tokens", type=int, nargs="+", default=tokens, help="sequence lengths, about")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--text_tokens", type=int, default=200, help="words after the video")
    parser.add_argument("--supervised_tokens", type=int, default=24)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
