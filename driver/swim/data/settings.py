"""How videos are read for a model: kept in a file of every folder that holds its weights, and found there again."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers.utils import cached_file

from swim.errors import DataError
from swim.files import decode_text, parse_json, read_file, write_atomically
from swim.prompts import SYSTEM_PROMPT
from swim.video import Reader
from swim.video.clip import VisualBudget

READING_FILE = "reading_settings.json"
_ADAPTER_FILE = "adapter_config.json"
_STEP = "fix or remove it"  # where a file that says how a model was trained cannot be read
_RUN_FILE = "train_config.yaml"  # of runs that were trained before READING_FILE existed; it has the same keys


@dataclass(frozen=True)
class DataSettings:
    """How records become samples.

    budget: frames and pixels of a clip.
    system_prompt: what precedes every conversation.
    mask_resolution: r, mask cells per grid cell and side.
    keep_annotated_frames: tell the frame sampler where the masks are (training; elsewhere it would leak the answer).
    cache_gb: decoded clips kept in memory, per worker process.
    max_length: tokens of a sample; longer ones get fewer pixels and frames.
    released_timing: a temporal step lasts 1 s whatever the clip's rate, as in the released code.
    time_limit_s: for reading one video.
    video_reader: the library that reads video files, see `swim.video.readers`.
    """

    budget: VisualBudget = field(default_factory=VisualBudget)
    system_prompt: str = SYSTEM_PROMPT
    mask_resolution: int = 1
    keep_annotated_frames: bool = True
    cache_gb: float = 0.0
    max_length: int | None = None
    released_timing: bool = False
    time_limit_s: float = 60.0
    video_reader: Reader = "pyav"


class _Reading(BaseModel):
    """The content of READING_FILE: what decides the model's inputs, and nothing that depends on the machine."""

    model_config = ConfigDict(extra="forbid", strict=True)
    max_frames: int = Field(VisualBudget.max_frames, ge=1)
    min_pixels: int = Field(VisualBudget.min_pixels, ge=1)
    max_pixels: int = Field(VisualBudget.max_pixels, ge=1)
    total_pixels: int = Field(VisualBudget.total_pixels, ge=1)
    fps: float | None = Field(None, gt=0, allow_inf_nan=False)
    system_prompt: str = SYSTEM_PROMPT
    max_length: int | None = Field(None, ge=1)
    mask_resolution: int = Field(1, ge=1)
    released_timing: bool = False
    video_reader: Reader = "pyav"

    def settings(self) -> DataSettings:
        values = self.model_dump()
        budget = {name: values.pop(name) for name in VisualBudget.__dataclass_fields__}
        return DataSettings(VisualBudget(**budget), **values)


def write_reading(folder: str | Path, settings: DataSettings):
    """Writes READING_FILE beside a model's weights."""
    values = {**vars(settings), **vars(settings.budget)}
    kept = {name: values[name] for name in _Reading.model_fields}
    write_atomically(Path(folder) / READING_FILE, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def find_reading(model: str | Path) -> tuple[DataSettings, str] | None:
    """(how videos are read for a model, the file that says so), or None when nothing says it.

    model: the folder of a run, a checkpoint, an adapter or an export, or a hub name. An adapter without the file is read
    as its base is. Raises DataError naming a file that is malformed.
    """
    found = _beside(model)
    adapter = _local(model, _ADAPTER_FILE) if found is None else None
    base = None if adapter is None else _json_object(adapter).get("base_model_name_or_path")
    return _beside(base) if isinstance(base, str) and base else found


def describe_reading(settings: DataSettings) -> str:
    """In one line, for people: "at most 32 frames of 100,352 to 602,112 px, ..."."""
    budget = settings.budget
    parts = [f"at most {budget.max_frames} frames of {budget.min_pixels:,} to {budget.max_pixels:,} px"]
    parts += [f"{budget.total_pixels:,} px in all"]
    parts += [] if budget.fps is None else [f"{budget.fps:g} frames a second"]
    parts += [] if settings.max_length is None else [f"{settings.max_length:,} tokens"]
    parts += ["steps of 1 s"] if settings.released_timing else []
    parts += [f"files read by {settings.video_reader}"] if settings.video_reader != "pyav" else []
    prompt = settings.system_prompt
    return ", ".join([*parts, f"system prompt {prompt if len(prompt) <= 40 else prompt[:37] + '...'!r}"])


def _beside(model: str | Path) -> tuple[DataSettings, str] | None:
    """What the model's own folder says."""
    file = _local(model, READING_FILE)
    if file is not None:
        return _parse(file), str(file)
    runs = [folder / _RUN_FILE for folder in _run_folders(Path(model))]
    return next(((_parse_run(path), str(path)) for path in runs if path.is_file()), None)


def _run_folders(folder: Path) -> tuple[Path, ...]:
    """The folder, and the run's for one of its checkpoints."""
    return (folder, folder.parent) if folder.name.startswith("checkpoint-") else (folder,)


def _local(model: str | Path, name: str) -> Path | None:
    """A file of a model's folder; a model of a hub has it in the hub's cache, fetched when it is not there yet."""
    if Path(model).is_dir():
        path = Path(model) / name
        return path if path.is_file() else None
    try:
        found = cached_file(
            str(model),
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # no such model: whoever loads its weights says so
        return None
    return None if found is None else Path(found)


def _parse(path: Path) -> DataSettings:
    return _checked(_json_object(path), path)


def _parse_run(path: Path) -> DataSettings:
    try:
        flat = yaml.safe_load(decode_text(read_file(path, _STEP), str(path)))
    except yaml.YAMLError as error:
        raise DataError(f"malformed YAML: {error}", str(path)) from None
    flat = flat if isinstance(flat, dict) else {}
    return _checked({name: flat[name] for name in _Reading.model_fields if name in flat}, path)


def _json_object(path: Path) -> dict[str, Any]:
    content = parse_json(read_file(path, _STEP), str(path))
    if not isinstance(content, dict):
        raise DataError(f"expected an object, found {type(content).__name__}", str(path))
    return content


def _checked(values: dict[str, Any], path: Path) -> DataSettings:
    try:
        return _Reading.model_validate(values).settings()
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        found = "" if problem["type"] == "extra_forbidden" else f", found {problem['input']!r:.80}"
        raise DataError(f"{key}: {problem['msg']}{found}; fix or remove the file", str(path)) from None
