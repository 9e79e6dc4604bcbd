"""Loading the weights of a model: a checkpoint's folder, an adapter's folder or a name on the hub."""

import json
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from swim.models.family import family_of

ADAPTER_FILE = "adapter_config.json"
SUPERVISION_FILE = "attention_supervision.json"
HOPPER = 9  # compute capability of the GPUs that FlashAttention 3 is written for

# An implementation of attention by name, for the whole model or for these parts of it.
Attention = str | dict[str, str]
ATTENTION_PARTS = ("text_config", "vision_config")


def load_config(name: str | Path):
    """The config of a model of a known family. Raises OSError or ValueError for what is none."""
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    family_of(config)
    return config


def load_weights(name: str | Path, **options) -> PreTrainedModel:
    """The model with its weights; an adapter is merged into its base. options: of `from_pretrained`.

    Raises OSError, ValueError or SafetensorError for what cannot be loaded.
    """
    if is_adapter(name):
        return merge_adapter(name, **options)
    config = options.pop("config", None) or load_config(name)
    return family_of(config).model_class.from_pretrained(name, config=config, **options)


def best_attention(device_type: str) -> Attention:
    """The fastest attention that is installed for this machine: FlashAttention where there is a GPU, else SDPA.

    FlashAttention 3 on a Hopper GPU is for the language model alone: on the short windows of a vision tower it is slow.
    device_type: "cuda" or "cpu".
    """
    if device_type != "cuda":
        return "sdpa"
    two = "flash_attention_2" if is_flash_attn_2_available() else "sdpa"
    if is_flash_attn_3_available() and torch.cuda.get_device_capability()[0] == HOPPER:
        return {"text_config": "flash_attention_3", "vision_config": two}
    return two


def is_adapter(folder: str | Path) -> bool:
    return (Path(folder) / ADAPTER_FILE).exists()


def write_supervision(folder: str | Path, supervision: dict):
    """Writes the options beside a LoRA adapter, whose folder holds no model config."""
    (Path(folder) / SUPERVISION_FILE).write_text(json.dumps(supervision, indent=1) + "\n")


def merge_adapter(folder: str | Path, run: str | Path | None = None, **options) -> PreTrainedModel:
    """The base model of a LoRA adapter's folder with the adapter merged in, and the supervision it was trained with.

    run: where the supervision's file lies when it is not in `folder`. options: of `from_pretrained`.
    """
    from peft import PeftConfig, PeftModel  # needed for adapters alone

    model = load_weights(PeftConfig.from_pretrained(str(folder)).base_model_name_or_path, **options)
    model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    for place in (folder, run):
        if place is not None and (Path(place) / SUPERVISION_FILE).exists():
            model.config.attention_supervision = json.loads((Path(place) / SUPERVISION_FILE).read_text())
            break
    return model
