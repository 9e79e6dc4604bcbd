"""What the driver needs to know of a family of models: everything else about a model is asked through this."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from transformers import PreTrainedModel

# model_type in a checkpoint's config.json -> the module here that holds its FAMILY
_MODULES = {"qwen2_5_vl": "swim.models.qwen2_5_vl"}


@dataclass(frozen=True)
class Family:
    """A family of models that attention supervision is implemented for.

    model_type: as in config.json.
    title: for people.
    model_class: of transformers, with the language model's head.
    position_rule: function of the model's config; the result has `get_rope_index` as the model itself, without weights.
    parts: what can be trained or frozen apart.
    part_of: function of a parameter's name; the part that it belongs to, whatever a wrapper puts before the name.
    lora_targets: regular expression of the modules that take an adapter.
    log_attention_maps: the fork's function of that name for this family, see `swim.models.supervision`.
    """

    model_type: str
    title: str
    model_class: type[PreTrainedModel]
    position_rule: Callable[[Any], Any]
    parts: tuple[str, ...]
    part_of: Callable[[str], str]
    lora_targets: str
    log_attention_maps: Callable[..., tuple[torch.Tensor, torch.Tensor]]


def family_of(config) -> Family:
    """The family of a model's config. Raises ValueError for a model of no family that is known here."""
    if config.model_type not in _MODULES:
        known = " or ".join(family.title for family in families())
        raise ValueError(f"expected a {known} model, found {config.model_type}")
    return import_module(_MODULES[config.model_type]).FAMILY


def families() -> list[Family]:
    return [import_module(module).FAMILY for module in _MODULES.values()]
