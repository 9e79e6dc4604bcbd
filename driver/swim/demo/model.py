"""A tiny, randomly initialised model of any family with its processor: small enough to be trained on two CPU cores.

The folder is a complete checkpoint: ``AutoProcessor`` and ``AutoModelForImageTextToText`` load it offline.
Without ``--tokenizer`` the model gets a byte-level BPE of its own, learnt from the demo's texts, with Qwen's
pre-tokenisation and special tokens. With it, the same model is built around the real tokenizer and chat template.
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from swim.demo.clips import Kind, demo_texts
from swim.models import MODEL_TYPES
from swim.models.family import Family, TinyDesign, family_named
from swim.prompts import SYSTEM_PROMPT

DEMO_SYSTEM_PROMPT = "You describe the named object."
DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."  # what the template says when a conversation brings none

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MAX_OWN_TOKENS = 2000

# The text that Qwen's own templates make (Qwen3-VL's has no default system turn; training always brings one): turns between <|im_start|> and <|im_end|>, a default system turn in
# front, one placeholder between <|vision_start|> and <|vision_end|> for each picture or video.
CHAT_TEMPLATE = """\
{%- set seen = namespace(images=0, videos=0) -%}
{%- macro vision(pad) -%}<|vision_start|><|{{ pad }}_pad|><|vision_end|>{%- endmacro -%}
{%- if messages and messages[0].role != 'system' -%}
{{- '<|im_start|>system\\nDEFAULT_SYSTEM_PROMPT<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}
{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
{%- set seen.images = seen.images + 1 -%}
{{- 'Picture ' ~ seen.images ~ ': ' if add_vision_id -}}
{{- vision('image') -}}
{%- elif part.type == 'video' or 'video' in part -%}
{%- set seen.videos = seen.videos + 1 -%}
{{- 'Video ' ~ seen.videos ~ ': ' if add_vision_id -}}
{{- vision('video') -}}
{%- elif 'text' in part -%}
{{- part.text -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' if add_generation_prompt -}}
""".replace("DEFAULT_SYSTEM_PROMPT", DEFAULT_SYSTEM_PROMPT)


DEMO_FAMILY = MODEL_TYPES[0]

# Of the language model and the vision tower, beside what a family adds.
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "initializer_range": 0.06,
    "rms_norm_eps": 1e-6,
}
VISION = {"depth": 1, "hidden_size": 64, "num_heads": 2}
COLOUR_GAIN = 3.0
WAVE_GAIN = 12.0
ENERGY_GAIN = 2.0  # how far a wave's answer reaches into the curved part of silu
FEATURE_GAIN = 0.2  # brings visual features near the size of word embeddings
# For those who ask a demo's model about a clip of their own.
KNOWS_THE_DEMO_ALONE = (
    "note: this is a model of the demo, which has seen nothing but the demo's clips: of yours it can say nothing. For your own "
    "videos name another with --model, such as Qwen/Qwen2.5-VL-3B-Instruct (7.5 GB of weights in bfloat16, fits a card of 16 "
    "GB) or an adapter trained from it with --lora.r 16 --dtype bfloat16 (on a card of 24 GB; README.md, Hardware and memory)"
)
ATTENTION_SUPERVISION = {"preset": "paper", "layers": [1, 2]}


def default_texts(kind: Kind = "open") -> list[str]:
    """The texts whose words become single tokens: the demo's questions and answers and what templates add."""
    around = [SYSTEM_PROMPT, DEMO_SYSTEM_PROMPT, DEFAULT_SYSTEM_PROMPT, "system\n", "user\n", "assistant\n"]
    return [*demo_texts(kind), *around]


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of at most ``MAX_OWN_TOKENS`` + special tokens. Any text survives a round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_OWN_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=TEXT["max_position_embeddings"],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def load_real_tokenizer(folder: Path):
    """Return Qwen's own tokenizer and chat template from a checkpoint folder (its weights are not needed).

    Raises ``FileNotFoundError`` when a file is missing, ``ValueError`` when the tokenizer lacks a special token.
    """
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name} is missing: --tokenizer needs a folder with Qwen's tokenizer.json, "
                "tokenizer_config.json and chat_template.json"
            )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    missing = [token for token in SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
    if missing:
        raise ValueError(f"the tokenizer in {folder} is not Qwen's: it lacks {', '.join(missing)}")
    return tokenizer, _read_chat_template(folder)


def _read_chat_template(folder: Path) -> str:
    """The template of a checkpoint: ``chat_template.jinja`` in new ones, ``chat_template.json`` in the released one."""
    jinja, legacy = folder / "chat_template.jinja", folder / "chat_template.json"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    if legacy.is_file():
        return json.loads(legacy.read_text(encoding="utf-8"))["chat_template"]
    raise FileNotFoundError(f"{folder} holds neither chat_template.jinja nor chat_template.json: copy the model's own")


def build_processor(tokenizer, chat_template: str, family: Family) -> ProcessorMixin:
    """Return the family's processor around a tokenizer, with no limits of size: the data path decides how large a frame is."""
    pixels = family.tiny.pixels
    cell = (pixels["patch_size"] * pixels["merge_size"]) ** 2
    pixels = {**pixels, "size": {"shortest_edge": 4 * cell, "longest_edge": 16384 * cell}}
    as_given: dict[str, Any] = {"do_sample_frames": False, "cap_pixels_per_frame": False}
    return family.processor_class(
        image_processor=family.image_processor_class(**pixels),
        video_processor=family.video_processor_class(**pixels, **as_given),
        tokenizer=tokenizer,
        chat_template=chat_template,
    )


def build_config(
    tokenizer, family: Family, text: dict = TEXT, supervision: dict = ATTENTION_SUPERVISION
) -> PreTrainedConfig:
    """Return the configuration of a language model of these sizes (default: the tiny one's) with the demo's vision tower;
    its token ids are the tokenizer's."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    # rows beyond the tokenizer's, as in Qwen's checkpoints: a multiple of 128 suits every kernel
    vocab_size = math.ceil(len(tokenizer) / 128) * 128
    text = {**family.tiny.text, **text, "vocab_size": vocab_size, "bos_token_id": None}
    text |= {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    patch = {name: family.tiny.pixels[name] for name in ("patch_size", "temporal_patch_size")}
    return family.config_class(
        text_config=text,
        vision_config={**VISION, **family.tiny.vision, **patch, "out_hidden_size": text["hidden_size"]},
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
        swim_demo=True,
        attention_supervision=dict(supervision),  # type: ignore[call-arg]  # the class hides that it takes more
    )


@torch.no_grad()
def make_vision_informative(visual: torch.nn.Module, design: TinyDesign, generator: torch.Generator) -> None:
    """Give the untrained vision tower random weights whose features tell colours and patterns apart.

    The tower stays frozen in the demo, so its random features are all that the language model ever sees. Usual
    initial weights make them nearly linear in the pixels, and no linear map of pixels tells stripes from checks at
    every offset. Here the patch filters are flat (random colour) or plane waves (random direction, wave length and
    phase), and the block's MLP returns each wave's energy: u * silu(u) where it is gated, with equal gate and input,
    else gelu(u) + gelu(-u). The mergers treat their four patches alike, which averages the energies over offsets.
    Attention would blur places: it adds 0.
    """
    filters = visual.get_parameter("patch_embed.proj.weight")
    hidden, channels, frames, side, _ = filters.shape
    filters.copy_(_patch_filters(hidden, channels, frames, side, generator))
    for name in design.silent:
        visual.get_parameter(name).zero_()
    linears = {name: module for name, module in visual.named_modules() if isinstance(module, torch.nn.Linear)}
    mergers = {name: linear for name, linear in linears.items() if not name.startswith("blocks.")}
    gain = {"attn.proj": 0.0, design.block_out: 3.0}
    gain_of = {name: value for name in linears for ending, value in gain.items() if name.endswith(ending)}
    gain_of |= {name: FEATURE_GAIN for name in mergers if name.endswith(design.merger_out)}
    for name, linear in linears.items():
        is_block_out = name.endswith(design.block_out) and name not in mergers
        fan_in = hidden if is_block_out else linear.in_features
        random = torch.randn(linear.out_features, fan_in, generator=generator)
        weight = random * gain_of.get(name, 1.0) / linear.in_features**0.5
        linear.weight.copy_(weight.repeat(1, linear.in_features // fan_in))
        if name.endswith(design.block_in) and name not in mergers:
            both_signs = torch.cat([torch.eye(hidden), -torch.eye(hidden)])
            linear.weight.copy_(both_signs[: linear.out_features] * ENERGY_GAIN)
    for merge in (linear for name, linear in mergers.items() if name.endswith(design.merger_in)):
        one_patch = torch.randn(merge.out_features, hidden, generator=generator) / merge.in_features**0.5
        merge.weight.copy_(one_patch.repeat(1, merge.in_features // hidden))


def _patch_filters(hidden: int, channels: int, frames: int, side: int, generator: torch.Generator) -> torch.Tensor:
    """Return float[hidden, channels, frames, side, side]: every second filter flat in a random colour, the rest
    grey plane waves of zero mean, with a wave length of 7 pixels or more and the same in every frame."""
    is_flat = (torch.arange(hidden) % 2 == 0).view(-1, 1, 1)
    angle = torch.rand(hidden, 1, 1, generator=generator) * math.pi
    cycles_per_px = torch.rand(hidden, 1, 1, generator=generator) * 0.15
    phase = torch.rand(hidden, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    cycles = cycles_per_px * (angle.sin() * y + angle.cos() * x) + phase
    wave = torch.cos(2 * math.pi * cycles)
    wave = torch.where(is_flat, 1.0, WAVE_GAIN * (wave - wave.mean((1, 2), keepdim=True)))
    colour = torch.randn(hidden, channels, generator=generator) * COLOUR_GAIN
    colour = torch.where(is_flat[:, 0], colour, 1.0) / channels**0.5
    filters = colour[:, :, None, None, None] * wave[:, None, None] / (frames * side**2)
    return filters.expand(-1, -1, frames, -1, -1)


def build_tiny_model(
    output_dir: str | os.PathLike,
    tokenizer_dir: str | os.PathLike | None = None,
    texts: Iterable[str] | None = None,
    seed: int = 0,
    text: dict = TEXT,
    model_type: str = DEMO_FAMILY,
) -> Path:
    """Write a tiny random checkpoint of a family with its processor to ``output_dir`` and return that path.

    ``tokenizer_dir``: build it around Qwen's real tokenizer there. Otherwise a tokenizer is learnt from
    ``texts`` (default: the demo's). ``text``: sizes of the language model. The caller's random state is left alone.
    Raises what ``load_real_tokenizer`` raises, and ``ValueError`` for an unknown family and when both sources of a
    tokenizer are given.
    """
    family = family_named(model_type)
    if tokenizer_dir is not None and texts is not None:
        raise ValueError("give tokenizer_dir or texts, not both: a ready tokenizer learns nothing from texts")
    output = Path(output_dir)
    if tokenizer_dir is None:
        tokenizer, chat_template = train_tokenizer(default_texts() if texts is None else texts), CHAT_TEMPLATE
    else:
        tokenizer, chat_template = load_real_tokenizer(Path(tokenizer_dir))
    config = build_config(tokenizer, family, text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = family.model_class(config)
    make_vision_informative(model.model.visual, family.tiny, torch.Generator().manual_seed(seed))
    end, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>"))
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=[end, pad], pad_token_id=pad)
    model.save_pretrained(output)
    build_processor(tokenizer, chat_template, family).save_pretrained(output)
    return output
