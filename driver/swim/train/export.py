"""One checkpoint that everything loads, from what training left."""

from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError
from transformers import AutoProcessor, PreTrainedModel

from swim.data.settings import READING_FILE, find_reading, write_reading
from swim.lock import alone_in
from swim.models.family import family_of
from swim.models.load import is_adapter, load_config, load_weights, merge_adapter
from swim.train.card import write_card
from swim.train.unpickling import listed_classes_only

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def export(source: str | Path, output: str | Path, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Writes the checkpoint folder `output`. Raises ValueError naming `source` for what cannot be exported."""
    source, output = Path(source), Path(output)
    if not source.is_dir():
        raise ValueError(f"{source}: no such folder")
    if output.resolve() == source.resolve():
        raise ValueError(f"{output}: would overwrite what is exported; choose another --output")
    run = source.parent if source.name.startswith("checkpoint-") else source
    reading = find_reading(source)
    if reading is None:
        print(f"{source} has no {READING_FILE}: commands will read videos for the export with the paper's settings")
    try:
        model = _load(source, run, dtype)
        processor = AutoProcessor.from_pretrained(
            source if (source / "tokenizer_config.json").exists() else run, trust_remote_code=False
        )
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{source}: cannot be exported: {str(error).splitlines()[0]}") from None
    with alone_in(output):
        model.save_pretrained(output)
        processor.save_pretrained(output)
        if reading is not None:
            write_reading(output, reading[0])
        write_card(output, run)
    return output


def _load(source: Path, run: Path, dtype: torch.dtype) -> PreTrainedModel:
    if is_adapter(source):
        model = merge_adapter(source, run, dtype=torch.float32)  # a merge in bf16 would round the sum
        return model.to(dtype)  # type: ignore[arg-type]  # transformers' wrapper hides its signature
    if any(source.glob("*.safetensors")):
        return load_weights(source, dtype=dtype)
    if (source / "latest").exists():
        return _from_shards(source, run, dtype)
    raise ValueError(f"{source}: neither weights (*.safetensors) nor an adapter nor DeepSpeed's shards (latest)")


def _from_shards(source: Path, run: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a DeepSpeed checkpoint, from the float32 weights that its optimiser keeps."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint  # slow to import

    config = load_config(source if (source / "config.json").exists() else run)
    with listed_classes_only(source, deepspeed=True):
        weights = get_fp32_state_dict_from_zero_checkpoint(str(source))
    model = family_of(config).model_class._from_config(config, dtype=dtype)
    tied = model.all_tied_weights_keys
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - set(tied):
        raise ValueError(f"{source}: its shards do not fit the model: {[*unexpected, *missing][:3]}")
    model.tie_weights()
    return model


def upload(folder: Path, name: str) -> str:
    """Uploads a folder as the model `name` ("owner/model"), private when it is new; returns its address.

    Raises ValueError when the hub refuses or does not answer.
    """
    api = HfApi()
    try:
        address = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder)
    except (HTTPError, OSError) as error:
        raise ValueError(
            f"{name}: not uploaded; {folder} is complete, so that `hf upload {name} {folder}` does the rest. HF_TOKEN has "
            f"to allow writing, HF_ENDPOINT names another hub ({' '.join(str(error).split())})"
        ) from None
    return str(address)
