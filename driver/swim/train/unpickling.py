"""Checkpoints may hold pickles, and a pickle may run anything: only the classes that a checkpoint needs are made."""

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint

from swim.errors import DataError, Reason

# What DeepSpeed's shards hold besides tensors and containers, by where it is to be found.
_DEEPSPEED = {
    "deepspeed.runtime.zero.config": ("ZeroStageEnum",),
    "deepspeed.runtime.fp16.loss_scaler": ("LossScaler", "DynamicLossScaler"),
    "deepspeed.utils.tensor_fragment": ("fragment_address",),
}
# What the index of torch's distributed checkpoints holds.
_INDEX = {
    "torch.distributed.checkpoint.metadata": (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
    "torch.serialization": ("_get_layout",),
    "torch": ("Size", *(name for name in vars(torch) if isinstance(getattr(torch, name), torch.dtype))),
    "pathlib": ("Path", "PosixPath", "PurePosixPath"),
    "collections": ("OrderedDict",),
}
_INDEX_FILE = ".metadata"
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch obeys it even where a library asks for weights_only=False


@contextmanager
def listed_classes_only(folder: Path, deepspeed: bool = False) -> Iterator[None]:
    """Within it torch unpickles nothing from `folder`, or from anywhere, but tensors, containers and listed classes.

    deepspeed: DeepSpeed's classes too. Raises DataError naming the file and what it asks for.
    """
    for index in folder.rglob(_INDEX_FILE):  # torch.distributed reads it as a plain pickle
        _check_index(index)
    allowed: list[Any] = [*_deepspeed_classes()] if deepspeed else []
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(allowed):
            yield
    except pickle.UnpicklingError as error:
        raise _refusal(folder, allowed, error) from None
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


def _deepspeed_classes() -> list[type]:
    from importlib import import_module  # DeepSpeed is slow to import: only for those who have its shards

    return [getattr(import_module(module), name) for module, names in _DEEPSPEED.items() for name in names]


class _IndexReader(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if name not in _INDEX.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)


def _check_index(path: Path):
    try:
        with path.open("rb") as file:
            _IndexReader(file).load()
    except pickle.UnpicklingError as error:
        raise _unlisted(path, str(error)) from None
    except (EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"no index of a checkpoint ({error})", str(path), Reason.UNREADABLE) from None


def _refusal(folder: Path, allowed: list[type], error: pickle.UnpicklingError) -> DataError:
    """Which file of the folder it was, for the message alone."""
    known = {f"{kind.__module__}.{kind.__qualname__}" for kind in allowed}
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".pt", ".pth", ".bin")):
        try:
            asked = set(get_unsafe_globals_in_checkpoint(path)) - known
        except (OSError, RuntimeError, ValueError, pickle.UnpicklingError):
            continue
        if asked and path.name != "training_args.bin":  # which nothing here reads
            return _unlisted(path, ", ".join(sorted(asked)))
    named = re.search(r"GLOBAL (\S+)", str(error))
    return _unlisted(folder, named[1] if named else str(error).splitlines()[0])


def _unlisted(path: Path, asked: str) -> DataError:
    return DataError(
        f"its pickle asks for {asked}, which no checkpoint needs: nothing of it was run. Load only what comes from people "
        "you trust; *.safetensors hold no code",
        str(path),
        Reason.UNREADABLE,
    )
