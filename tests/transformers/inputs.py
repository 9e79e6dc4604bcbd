"""A small random Qwen2.5-VL and batches for it, made of token ids and noise."""

from collections import Counter
from dataclasses import dataclass, field

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

PAD, EOS, VISION_START, VISION_END, IMAGE, VIDEO, FIRST_WORD, VOCABULARY = 0, 1, 2, 3, 4, 5, 10, 160
IGNORE = -100
SUPERVISION = ("attn_labels", "ins_contents_labels", "ins_masks", "mask_index")


def make_tiny_config(attention_supervision: dict | None = None, **text_options) -> Qwen2_5_VLConfig:
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
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
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
        "fullatt_block_indexes": [1],
        "window_size": 56,
        "tokens_per_second": 4,
        "initializer_range": 0.2,
    }
    supervision = {} if attention_supervision is None else {"attention_supervision": attention_supervision}
    return Qwen2_5_VLConfig(
        text_config={**text, **text_options},
        vision_config=vision,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
        tie_word_embeddings=False,
        **supervision,
    )


def make_tiny_model(
    config: Qwen2_5_VLConfig | None = None, seed: int = 0, attn_implementation: str = "sdpa"
) -> Qwen2_5_VLForConditionalGeneration:
    """A model of `make_tiny_config` with random weights, in evaluation mode. The same seed gives the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration._from_config(
            config or make_tiny_config(), attn_implementation=attn_implementation
        )
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
        return self.before + self.after + (0 if self.visual is None else self.cells + 2)

    @property
    def cells(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def first_cell(self) -> int:
        return self.before + 1

    @property
    def behind(self) -> int:
        """Place of the first word behind the block and its end token."""
        return self.before if self.visual is None else self.before + self.cells + 2

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
        if spec.visual is not None:
            ids[spec.before], ids[spec.behind - 1] = VISION_START, VISION_END
            block = slice(spec.first_cell, spec.first_cell + spec.cells)
            ids[block] = VIDEO if spec.visual == "video" else IMAGE
            batch["mm_token_type_ids"][number, start:][block] = 2 if spec.visual == "video" else 1
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
            batch[pixels] = torch.randn(4 * sum(spec.cells for spec in shown), 3 * 2 * 14 * 14, generator=generator)
    videos = [spec for spec in specs if spec.visual == "video"]
    if videos:
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
