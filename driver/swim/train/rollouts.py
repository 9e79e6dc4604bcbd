"""The prompts of a batch of completions: read, rendered and seen once each, however many completions are drawn."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from swim.data.chat import ChatText
from swim.data.collator import SwimCollator, visual_kind
from swim.data.records import Record
from swim.data.sample import Sample, TextSample
from swim.data.tokens import IGNORE, decode_with_ends, instance_tokens, tokens_of


@dataclass(frozen=True)
class Seen:
    """What the vision tower made of one prompt's video or image.

    kind: "video" or "image". grid: int64[1, 3]. outputs: the tower's own output class with this visual alone.
    step_seconds: of a video, where the family's positions go by them.
    """

    kind: str
    grid: torch.Tensor
    outputs: Any
    step_seconds: torch.Tensor | None


@dataclass(frozen=True)
class Prompt:
    """The last question of one record, with what the model sees of it.

    tokens: of the chat up to the generation prompt, without padding. named: int64, the instance that each of them names.
    """

    sample: Sample | TextSample
    chat: ChatText
    tokens: list[int]
    named: np.ndarray
    seen: Seen | None

    @property
    def record(self) -> Record:
        return self.sample.record

    @property
    def answer(self) -> str:
        """The record's own, without tags."""
        return self.record.turns[-1].text

    @property
    def question(self) -> str:
        return [turn.text for turn in self.record.turns if turn.role == "user"][-1]

    @cached_property
    def phrases(self) -> dict[str, int]:
        """Tagged phrases and the instance that each names; a phrase of several instances is left out."""
        found: dict[str, set[int]] = {}
        for turn in self.record.turns:
            for span, instance in zip(turn.spans, turn.instances):
                found.setdefault(span.phrase.strip(), set()).add(instance)
        return {phrase: next(iter(instances)) for phrase, instances in found.items() if phrase and len(instances) == 1}


def read_prompts(
    encode: Callable[..., tuple[dict, torch.Tensor]], collator: SwimCollator, samples: Sequence[Sample | TextSample]
) -> list[Prompt]:
    """The prompts of samples; the vision tower, which learns nothing, runs once for all of them, also without any visual.

    encode: `swim.models.supervision.encode_vision` of the model. Raises DataError naming a record that cannot be rendered.
    """
    chats = [collator.render(sample.record, add_generation_prompt=True) for sample in samples]
    inputs, offsets, replacements = collator.encode(samples, [chat.text for chat in chats])
    grids = {kind: inputs.get(f"{kind}_grid_thw", torch.empty(0, 3, dtype=torch.int64)) for kind in ("image", "video")}
    images, videos = (inputs.get(name) for name in ("pixel_values", "pixel_values_videos"))
    with torch.no_grad():
        outputs, _ = encode(images, videos, grids["image"].tolist(), grids["video"].tolist())
    seconds = inputs.get("second_per_grid_ts")
    prompts, counts = [], {"image": 0, "video": 0}
    for number, (sample, chat) in enumerate(zip(samples, chats)):
        real = inputs["attention_mask"][number].bool()
        named = instance_tokens(chat, replacements[number], offsets[number])[real.numpy()]
        kind, seen = visual_kind(sample.record), None
        if kind is not None:
            place = counts[kind]
            counts[kind] += 1
            timed = seconds[place : place + 1] if kind == "video" and seconds is not None else None
            seen = Seen(kind, grids[kind][place : place + 1], _only(outputs[kind], place), timed)
        prompts.append(Prompt(sample, chat, inputs["input_ids"][number][real].tolist(), named, seen))
    return prompts


def _only(outputs, place: int):
    """The tower's output with one of its visuals."""
    extra = {}
    if getattr(outputs, "deepstack_features", None):
        extra["deepstack_features"] = [(layer[place],) for layer in outputs.deepstack_features]
    return type(outputs)(pooler_output=(outputs.pooler_output[place],), **extra)


def visual_inputs(prompts: Sequence[Prompt], device: torch.device) -> dict:
    """What a forward of one sequence for each prompt sees, in order: mm_encoder_outputs and grids, and step seconds."""
    inputs: dict = {"mm_encoder_outputs": {}}
    for kind in ("image", "video"):
        seen = [prompt.seen for prompt in prompts if prompt.seen is not None and prompt.seen.kind == kind]
        if not seen:
            continue
        first = seen[0].outputs
        extra = {}
        if getattr(first, "deepstack_features", None):
            layers = zip(*(each.outputs.deepstack_features for each in seen))
            extra["deepstack_features"] = [tuple(part for (part,) in layer) for layer in layers]
        pooled = tuple(each.outputs.pooler_output[0] for each in seen)
        inputs["mm_encoder_outputs"][kind] = type(first)(pooler_output=pooled, **extra)
        inputs[f"{kind}_grid_thw"] = torch.cat([each.grid for each in seen]).to(device)
        if seen[0].step_seconds is not None:
            inputs["second_per_grid_ts"] = torch.cat(
                [each.step_seconds for each in seen if each.step_seconds is not None]
            ).to(device)
    return inputs


def completion_instances(tokenizer, prompt: Prompt, completion: Sequence[int]) -> np.ndarray:
    """int64, the instance that each token of a completion names: where it says a tagged phrase word for word."""
    named = np.full(len(completion), IGNORE, dtype=np.int64)
    text, ends = decode_with_ends(tokenizer, completion)
    for phrase, instance in prompt.phrases.items():
        for found in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text):
            first, last = tokens_of(found.span(), ends, 0)
            named[first:last] = instance
    return named
