"""Loading what is trained: weights, processor, supervision options, what is frozen."""

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import AutoProcessor
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from swim.models.family import family_of
from swim.models.load import ATTENTION_PARTS, Attention, best_attention, load_config, load_weights
from swim.models.supervision import AttentionSupervisionConfig
from swim.train.config import ConfigError, LoraOptions, TrainConfig
from swim.train.parameters import choose_parts

_INSTALLED = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}
_REMEDY = (
    "bash setup.sh --flash-attn builds FlashAttention 2 for a GPU; kernels-community/flash-attn2 is fetched ready-made from "
    "the hub (pip install kernels); --attn_implementation auto does without"
)


def load_model(config: TrainConfig, bf16_deepspeed: bool):
    """(model, processor) of `config.model_name_or_path`, with the supervision options set and the tower frozen.

    Raises ConfigError when they cannot be loaded, and for supervision options that do not fit the model.
    """
    name = config.model
    try:
        model_config = load_config(name)
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model_name_or_path: cannot load {name}: {str(error).splitlines()[0]}") from None
    try:
        family_of(model_config).check_timing(config.released_timing)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    model_config.attention_supervision = resolve_supervision(model_config, config)
    dtype = {"auto": torch.bfloat16 if bf16_deepspeed else torch.float32}.get(config.dtype, config.dtype)
    try:
        model = load_weights(
            name, config=model_config, dtype=dtype, attn_implementation=attention_implementation(config)
        )
    except (OSError, ImportError, ValueError, SafetensorError) as error:
        raise ConfigError(f"model_name_or_path: cannot load the weights of {name}: {error}") from None
    choose_parts(model, config.train)
    return model, processor


def resolve_supervision(model_config, config: TrainConfig) -> dict:
    """The options that the model brings, overridden by the configuration, complete. Raises ConfigError."""
    options = {**(getattr(model_config, "attention_supervision", None) or {}), **config.attention_supervision}
    try:
        supervision = AttentionSupervisionConfig.from_dict(options)
        supervision.layers = list(supervision.layers_of(model_config.text_config.num_hidden_layers))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return supervision.to_dict()


def attention_implementation(config: TrainConfig) -> Attention:
    """As `from_pretrained` takes it. Raises ConfigError for what cannot run here, and for a part that no model has."""
    asked = config.attn_implementation
    if asked == "auto":
        return best_attention("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(asked, dict) and not set(asked) <= set(ATTENTION_PARTS):
        unknown = sorted(set(asked) - set(ATTENTION_PARTS))[0]
        raise ConfigError(f"attn_implementation: no part {unknown!r}; expected {' or '.join(ATTENTION_PARTS)}")
    for name in asked.values() if isinstance(asked, dict) else [asked]:
        if name in _INSTALLED and not _INSTALLED[name]():
            why = "it is not installed" if torch.cuda.is_available() else "no GPU is there"
            raise ConfigError(f"attn_implementation: {name} cannot run here, {why}; {_REMEDY}")
    return asked


def lora_config(options: LoraOptions | None, model) -> LoraConfig | None:
    if options is None:
        return None
    targets = family_of(model.config).lora_targets
    return LoraConfig(r=options.r, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=targets)
