"""Loading what is trained: weights, processor, supervision options, what is frozen."""

import json
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.attention_supervision import AttentionSupervisionConfig
from transformers.utils import is_flash_attn_2_available

from swim.train.config import ConfigError, LoraOptions, TrainConfig
from swim.train.parts import choose_parts

SUPERVISION_FILE = "attention_supervision.json"
# The vision tower's MLP has the same module names, so the language model is named too.
_LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def load_model(config: TrainConfig, bf16_deepspeed: bool):
    """(model, processor) of `config.model_name_or_path`, with the supervision options set and the tower frozen.

    Raises ConfigError when they cannot be loaded, and for supervision options that do not fit the model.
    """
    name = config.model_name_or_path
    try:
        model_config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model_name_or_path: cannot load {name}: {str(error).splitlines()[0]}") from None
    if model_config.model_type != "qwen2_5_vl":
        raise ConfigError(f"model_name_or_path: expected a Qwen2.5-VL model, found {model_config.model_type} in {name}")
    model_config.attention_supervision = resolve_supervision(model_config, config)
    dtype = {"auto": torch.bfloat16 if bf16_deepspeed else torch.float32}.get(config.dtype, config.dtype)
    try:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
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


def attention_implementation(config: TrainConfig) -> str:
    """By name; "auto" takes flash attention where it can run. Raises ConfigError where it is asked for and cannot."""
    if config.attn_implementation == "flash_attention_2" and not is_flash_attn_2_available():
        why = "it is not installed" if torch.cuda.is_available() else "no GPU is there"
        raise ConfigError(
            f"attn_implementation: flash_attention_2 cannot run here, {why}; bash setup.sh --flash-attn installs it for a "
            "GPU, and --attn_implementation auto does without"
        )
    if config.attn_implementation != "auto":
        return config.attn_implementation
    return "flash_attention_2" if torch.cuda.is_available() and is_flash_attn_2_available() else "sdpa"


def lora_config(options: LoraOptions | None) -> LoraConfig | None:
    if options is None:
        return None
    return LoraConfig(r=options.r, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=_LORA_TARGETS)


def write_supervision(folder: str | Path, supervision: dict):
    """Writes the options beside a LoRA adapter, whose folder holds no model config."""
    (Path(folder) / SUPERVISION_FILE).write_text(json.dumps(supervision, indent=1) + "\n")


def merge_adapter(folder: str | Path, run: str | Path | None = None, **options) -> Qwen2_5_VLForConditionalGeneration:
    """The base model of a LoRA adapter's folder with the adapter merged in, and the supervision it was trained with.

    run: where the supervision's file lies when it is not in `folder`. options: of `from_pretrained`.
    """
    base = PeftConfig.from_pretrained(folder).base_model_name_or_path
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, **options)
    model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    for place in (folder, run):
        if place is not None and (Path(place) / SUPERVISION_FILE).exists():
            model.config.attention_supervision = json.loads((Path(place) / SUPERVISION_FILE).read_text())
            break
    return model
