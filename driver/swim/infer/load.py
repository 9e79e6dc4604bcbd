"""Loading a model to ask it: a checkpoint, a LoRA adapter's folder or a hub name."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoProcessor

from swim.model_name import check_model_name
from swim.models.load import best_attention, load_weights
from swim.processes import processes


def load_for_inference(path: str | Path, device: torch.device | str | None = None):
    """(model, processor) of a checkpoint folder, a LoRA adapter's folder or a hub name, ready to generate.

    On a GPU in bfloat16 with flash attention where it is installed, on a CPU in float32 with SDPA.
    Raises ValueError naming `path` when it cannot be loaded.
    """
    check_model_name(path)
    device = torch.device(device) if device is not None else processes().device
    on_gpu = device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    options = {"dtype": dtype, "attn_implementation": best_attention(device.type)}
    try:
        model = load_weights(path, **options)
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"cannot load the model {path}: {str(error).splitlines()[0]}") from None
    return model.to(device).eval(), processor  # type: ignore[arg-type]  # transformers' wrapper hides its signature
