"""What may be named as a model: a folder with weights, an adapter's folder, or a name on the hub."""

import hashlib
import re
from pathlib import Path

DEMO_MODEL = "output/demo"  # where run_sft.sh leaves it
_MIB = 1 << 20
_CONFIGS = ("config.json", "adapter_config.json")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class NoModel(ValueError):
    """`str(error)` says what is there instead of a model, and what to do next."""


def check_model_name(name: str | Path):
    """Raises NoModel for a path that holds no model. Anything that could be a name on the hub passes."""
    path = Path(name)
    if path.is_dir():
        if not any((path / config).exists() for config in _CONFIGS):
            raise NoModel(f"cannot load the model {name}: {_instead(path)}")
    elif path.exists():
        raise NoModel(f"cannot load the model {name}: a file; expected a model's folder, or its name on the hub")
    elif path.is_relative_to(DEMO_MODEL) and not Path(DEMO_MODEL).exists():
        raise NoModel(
            f"no model at {DEMO_MODEL} yet: name one with --model, or train the demo's with run_scripts/run_sft.sh; "
            f"the path is relative to the folder you are in, {Path.cwd()}"
        )
    elif (
        not _HUB_NAME.fullmatch(str(name))
        or str(name).startswith(".")
        or (len(path.parts) > 1 and path.parent.is_dir())
    ):
        raise NoModel(f"cannot load the model {name}: no such folder; expected one, or a name on the hub")


def weights_digest(model: str | Path) -> str | None:
    """Tells the weights of a model's folder from those of a later training into it; None for a name on the hub.

    SHA-256 over name, size, first and last MiB of every weight file: training changes them all.
    """
    files = sorted(path for ending in ("*.safetensors", "*model*.bin") for path in Path(model).glob(ending))
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_MIB))
            file.seek(max(0, size - _MIB))
            digest.update(file.read(_MIB))
    return digest.hexdigest()


def short_names(models: list[str]) -> list[str]:
    """A name for each, for folders and tables: the last part of the path, or the last two where that is shared.

    Raises ValueError for a model that is given twice.
    """
    for parts in (1, 2):
        names = ["_".join(Path(model).parts[-parts:]) for model in models]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"--model: expected different models, found {' '.join(models)}")


def _instead(folder: Path) -> str:
    """What a folder without a model's config holds."""
    checkpoints = [path for path in folder.glob("checkpoint-*") if any((path / config).exists() for config in _CONFIGS)]
    if checkpoints:
        last = max(checkpoints, key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
        return (
            f"the folder of a run that has not finished; its last checkpoint is {last}: name that, or rerun the "
            "training command to finish the run"
        )
    return "no config.json in this folder, so it is no model's; expected a checkpoint or an adapter"
