"""Fused element-wise work of the language model, by torch.compile: norms, the gates of MLPs and rotary embeddings."""

import sys
from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
from transformers import PreTrainedModel


def fuse_elementwise(model: PreTrainedModel):
    """Replaces, in place, what the language model computes element by element with compiled code for any length.

    Layers share the code. Linear layers stay outside of it, and so do hooks around modules: ZeRO-3 gathers weights in
    them, and an adapter takes a linear layer's place. Rotary embeddings are a function of the model's file, so that other
    models of that file get the compiled one too; it computes the same.
    """
    language_model = model.get_submodule("model.language_model")
    for module in language_model.modules():
        kind = type(module).__name__
        if kind.endswith("RMSNorm"):
            module.forward = MethodType(_compiled(type(module).forward), module)
        elif kind.endswith("MLP"):
            module.forward = MethodType(_gated_mlp, module)
    file: Any = sys.modules[type(language_model).__module__]
    file.apply_rotary_pos_emb = _compiled(file.apply_rotary_pos_emb)


def _gated_mlp(mlp, x: torch.Tensor) -> torch.Tensor:
    return mlp.down_proj(_compiled(_gate)(mlp.act_fn, mlp.gate_proj(x), mlp.up_proj(x)))


def _gate(activation: Callable, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return activation(gate) * up


@cache
def _compiled(function: Callable) -> Callable:
    """torch.compile'd, once for each function; what is compiled already stays as it is."""
    return function if hasattr(function, "_torchdynamo_orig_callable") else torch.compile(function, dynamic=True)
