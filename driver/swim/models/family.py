"""What the driver needs to know of a family of models: everything else about a model is asked through this."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor
from transformers.video_processing_utils import BaseVideoProcessor

from swim.models import MODEL_TYPES


@dataclass(frozen=True)
class TinyDesign:
    """What the demo needs to make a small model of a family, beside what all families share.

    text, vision: of the model's config. pixels: of both processors.
    block_in, block_out: endings of the names of linear layers of the vision tower, in the MLP of a block; merger_in,
    merger_out: outside the blocks. silent: names of the tower's parameters that start at zero.
    """

    text: dict[str, Any]
    vision: dict[str, Any]
    pixels: dict[str, Any]
    block_in: tuple[str, ...]
    block_out: str
    merger_in: str
    merger_out: str
    silent: tuple[str, ...] = ()


# The vision tower's MLP may have the same module names, so the language model is named too.
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
PARTS = ("language_model", "merger", "visual")


class Positions:
    """A model's own position rule, without its weights: the methods need nothing but the configuration."""

    def __init__(self, model_class: Any, config):
        self._model_class = model_class
        self.config = config

    def get_rope_index(self, *inputs, **more):
        return self._model_class.get_rope_index(self, *inputs, **more)

    def get_vision_position_ids(self, *inputs, **more):
        return self._model_class.get_vision_position_ids(self, *inputs, **more)


@dataclass(frozen=True)
class Family:
    """A family of models that attention supervision is implemented for.

    model_type: as in config.json.
    title: for people.
    config_class, model_class: of transformers; with the language model's head.
    processor_class, image_processor_class, video_processor_class: of transformers. The last one's patches are in
    `swim.video.patches.patchify_videos`' order.
    position_rule: function of the model's config; the result has `get_rope_index` as the model itself, without weights.
    chat_text: function of what the chat template made; the text that the model was trained with.
    step_text: function of a time in seconds; the text that the processor adds to a temporal step of a video at that time.
    takes_step_seconds: whether positions go by the seconds that a step lasts, `second_per_grid_ts`.
    mergers: modules of the vision tower that are its part "merger".
    lora_targets: regular expression of the modules that take an adapter.
    log_attention_maps, encode_vision: the fork's functions of these names for this family, see `swim.models.supervision`.
    tiny: for the demo.
    """

    model_type: str
    title: str
    config_class: type[PreTrainedConfig]
    model_class: type[PreTrainedModel]
    processor_class: type[ProcessorMixin]
    image_processor_class: type[BaseImageProcessor]
    video_processor_class: type[BaseVideoProcessor]
    position_rule: Callable[[Any], Any]
    chat_text: Callable[[str], str]
    step_text: Callable[[float], str]
    takes_step_seconds: bool
    mergers: tuple[str, ...]
    lora_targets: str
    log_attention_maps: Callable[..., tuple[torch.Tensor, torch.Tensor]]
    encode_vision: Callable[..., tuple[dict, torch.Tensor]]
    tiny: TinyDesign

    def part_of(self, name: str) -> str:
        """Which of PARTS the parameter of this name belongs to, whatever a wrapper puts before the name."""
        if any(f".visual.{merger}." in f".{name}" for merger in self.mergers):
            return "merger"
        return "visual" if ".visual." in f".{name}" else "language_model"

    def check_timing(self, released: bool):
        """Raises ValueError where steps that last one second, as in the released code, are asked for and cannot be had."""
        if released and not self.takes_step_seconds:
            raise ValueError(f"released_timing: {self.title} is told each step's time in words; leave it out")


def family_of(config) -> Family:
    """The family of a model's config. Raises ValueError for a model of no family that is known here."""
    return family_named(config.model_type)


def family_named(model_type: str) -> Family:
    """The family of a `model_type`. Raises ValueError for one that is not known here."""
    if model_type not in MODEL_TYPES:
        known = " or ".join(family.title for family in families())
        raise ValueError(f"expected a {known} model, found {model_type}")
    return import_module(f"swim.models.{model_type}").FAMILY


def families() -> list[Family]:
    return [family_named(model_type) for model_type in MODEL_TYPES]
