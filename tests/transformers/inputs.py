"""A small random model of each family and batches for it, made of token ids and noise."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_5_vl import attention_supervision as qwen2_5_vl
from transformers.models.qwen3_vl import attention_supervision as qwen3_vl

PAD, EOS, VISION_START, VISION_END, IMAGE, VIDEO, FIRST_WORD, VOCABULARY = 0, 1, 2, 3, 4, 5, 10, 160
IGNORE = -100
SUPERVISION = ("attn_labels", "ins_contents_labels", "ins_masks", "mask_index")


@dataclass(frozen=True)
class TinyFamily:
    """What the tests have to know of a family.

    adapter: its module of the fork. text, vision: of the tiny config, beside what all families share. patch_px: side of a
    patch. time_words: words that tell the time before each step of a video, which is a run of its own then; None where a
    video is one run. mergers: parts of the vision tower after its blocks.
    """

    name: str
    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    adapter: object
    text: dict
    vision: dict
    patch_px: int
    time_words: int | None
    mergers: tuple[str, ...]

    @property
    def patch_values(self) -> int:
        return 3 * 2 * self.patch_px**2


_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
FAMILIES = {
    family.name: family
    for family in (
        TinyFamily(
            name="qwen2_5_vl",
            config_class=Qwen2_5_VLConfig,
            model_class=Qwen2_5_VLForConditionalGeneration,
            adapter=qwen2_5_vl,
            text={"rope_parameters": _ROPE},
            vision={"fullatt_block_indexes": [1], "window_size": 56, "tokens_per_second": 4},
            patch_px=14,
            time_words=None,
            mergers=("merger",),
        ),
        TinyFamily(
            name="qwen3_vl",
            config_class=Qwen3VLConfig,
            model_class=Qwen3VLForConditionalGeneration,
            adapter=qwen3_vl,
            text={"rope_parameters": {**_ROPE, "mrope_interleaved": True}, "head_dim": 16},
            vision={"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
            patch_px=16,
            time_words=2,
            mergers=("merger", "deepstack_merger_list"),
        ),
    )
}
_chosen = FAMILIES["qwen2_5_vl"]


def family() -> TinyFamily:
    """The one that models and batches are made for."""
    return _chosen


@contextmanager
def of_family(name: str) -> Iterator[TinyFamily]:
    global _chosen
    before, _chosen = _chosen, FAMILIES[name]
    try:
        yield _chosen
    finally:
        _chosen = before


def make_tiny_config(attention_supervision: dict | None = None, **text_options) -> PreTrainedConfig:
    """4 layers, 4 heads over 2 key-value heads, a vision tower of 2 blocks; `text_options` go to the text config."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    }
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "out_hidden_size": 64,
        "initializer_range": 0.2,
    }
    supervision = {} if attention_supervision is None else {"attention_supervision": attention_supervision}
    return _chosen.config_class(
        text_config={**text, **_chosen.text, **text_options},
        vision_config={**vision, **_chosen.vision},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=False,
        **supervision,
    )


def make_tiny_model(
    config: PreTrainedConfig | None = None, seed: int = 0, attn_implementation: str = "sdpa"
) -> PreTrainedModel:
    """A model of `make_tiny_config` with random weights, in evaluation mode. The same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _chosen.model_class._from_config(config or make_tiny_config(), attn_implementation=attn_implementation)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # they start at zero, which would hide a forgotten one
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@dataclass
class Spec:
    """One sample of a batch: `before` words, a visual block, `after` words.

    visual: "video", "image" or None. grid: merged (T, H, W). tags: {word behind the block: instance}.
    masks: {(instance, step), ...} that have a mask; None is every step of every tagged instance.
    """

    visual: str | None = "video"
    grid: tuple[int, int, int] = (2, 3, 4)
    before: int = 3
    after: int = 8
    tags: dict[int, int] = field(default_factory=dict)
    masks: set[tuple[int, int]] | None = None
    seconds_per_step: float = 1.0

    @property
    def length(self) -> int:
        return self.behind + self.after

    @property
    def cells(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def runs(self) -> list[slice]:
        """Places of the visual tokens: one run, or one for each step of a video."""
        if self.visual is None:
            return []
        if self.visual == "image" or _chosen.time_words is None:
            return [slice(self.before + 1, self.before + 1 + self.cells)]
        per_step = self.cells // self.grid[0]
        first = [self.before + step * (_chosen.time_words + per_step + 2) for step in range(self.grid[0])]
        return [slice(at + _chosen.time_words + 1, at + _chosen.time_words + 1 + per_step) for at in first]

    @property
    def columns(self) -> list[int]:
        """Places of the visual tokens, in the order of the grid."""
        return [place for run in self.runs for place in range(run.start, run.stop)]

    @property
    def behind(self) -> int:
        """Place of the first word behind the block and its end token."""
        return self.runs[-1].stop + 1 if self.runs else self.before

    def annotated(self) -> set[tuple[int, int]]:
        every = {(instance, step) for instance in self.tags.values() for step in range(self.grid[0])}
        return every if self.masks is None else self.masks


def make_batch(specs: list[Spec], padding_side: str = "right", resolution: int = 1, seed: int = 0) -> dict:
    """The forward's arguments: inputs, labels on the last words, and the four supervision tensors."""
    generator = torch.Generator().manual_seed(seed)
    count, length = len(specs), max(spec.length for spec in specs)
    batch = {
        "input_ids": torch.full((count, length), PAD),
        "attention_mask": torch.zeros(count, length, dtype=torch.long),
        "mm_token_type_ids": torch.zeros(count, length, dtype=torch.long),
        "labels": torch.full((count, length), IGNORE),
        "attn_labels": torch.full((count, length), IGNORE),
        "ins_contents_labels": torch.full((count, length), IGNORE),
    }
    for number, spec in enumerate(specs):
        start = offset_of(spec, length, padding_side)
        here = slice(start, start + spec.length)
        ids = torch.randint(FIRST_WORD, VOCABULARY, (spec.length,), generator=generator)
        for run in spec.runs:
            ids[run.start - 1], ids[run.stop] = VISION_START, VISION_END
            ids[run] = VIDEO if spec.visual == "video" else IMAGE
            batch["mm_token_type_ids"][number, start:][run] = 2 if spec.visual == "video" else 1
        batch["input_ids"][number, here] = ids
        batch["attention_mask"][number, here] = 1
        answer = slice(start + spec.behind + spec.after // 2, start + spec.length)
        batch["labels"][number, answer] = batch["input_ids"][number, answer]
        words = slice(start + spec.behind - 1, start + spec.length)
        batch["attn_labels"][number, words] = batch["input_ids"][number, words]
        for word, instance in spec.tags.items():
            batch["ins_contents_labels"][number, start + spec.behind + word] = instance
    for visual, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        shown = [spec for spec in specs if spec.visual == visual]
        if shown:
            batch[f"{visual}_grid_thw"] = torch.tensor([[s.grid[0], 2 * s.grid[1], 2 * s.grid[2]] for s in shown])
            batch[pixels] = torch.randn(4 * sum(s.cells for s in shown), _chosen.patch_values, generator=generator)
    videos = [spec for spec in specs if spec.visual == "video"]
    if videos and _chosen.time_words is None:
        batch["second_per_grid_ts"] = torch.tensor([spec.seconds_per_step for spec in videos])
    return batch | make_masks(specs, resolution, generator)


def make_masks(specs: list[Spec], resolution: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """ins_masks of random shares, a fifth of them 0 and a fifth 1, and mask_index."""
    shown = [spec for spec in specs if spec.visual is not None] or [Spec()]
    steps, height, width = (max(spec.grid[axis] for spec in shown) for axis in range(3))
    instances = 1 + max((i for spec in specs for i in spec.tags.values()), default=-1)
    masks = torch.zeros(len(specs), instances, steps, resolution * height, resolution * width)
    mask_index = torch.zeros(len(specs), instances, steps, dtype=torch.bool)
    for number, spec in enumerate(specs):
        for instance, step in spec.annotated():
            size = (resolution * spec.grid[1], resolution * spec.grid[2])
            share = (torch.rand(size, generator=generator) * 5 / 3 - 1 / 3).clamp(0, 1)
            masks[number, instance, step, : size[0], : size[1]] = share
            mask_index[number, instance, step] = True
    return {"ins_masks": masks, "mask_index": mask_index}


def offset_of(spec: Spec, length: int, padding_side: str) -> int:
    """Place of the sample's first token in a batch of `length` tokens."""
    return length - spec.length if padding_side == "left" else 0


def without_supervision(batch: dict) -> dict:
    return {name: value for name, value in batch.items() if name not in SUPERVISION}


def tower_runs(visual) -> Counter:
    """Counts, from here on, each run of the tower's first block."""
    runs, block = Counter(), visual.blocks[0]
    block.attn.register_forward_pre_hook(lambda *_: runs.update(["forward"]))
    block.attn.qkv.register_full_backward_hook(lambda *_: runs.update(["backward"]))
    return runs
