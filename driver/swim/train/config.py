"""The training configuration: a YAML file, overridden key by key on the command line; unknown keys are errors."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args

import torch
import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from transformers import TrainingArguments
from transformers.integrations.integration_utils import get_available_reporting_integrations

from swim.data.settings import DataSettings
from swim.demo.inputs import DemoOptions
from swim.errors import did_you_mean
from swim.files import decode_text
from swim.options import Options
from swim.prompts import SYSTEM_PROMPT
from swim.train.arguments import OTHER_NAMES, RENAMED, SFT, Arguments, check_arguments, rename
from swim.video import Reader
from swim.video.clip import VisualBudget

Part = Literal["language_model", "merger", "visual"]


class ConfigError(ValueError):
    """The configuration cannot be used; `str(error)` names the key and the remedy."""


class LoraOptions(Options):
    """LoRA on the language model's attention and MLP projections."""

    r: int = Field(16, ge=1, description="rank of the adapters")
    alpha: int = Field(32, ge=1, description="their product is scaled by alpha / r")
    dropout: float = Field(0.05, ge=0, lt=1, description="share of an adapter's inputs that is dropped in training")


class TrainConfig(Options):
    """Our own keys. Every other key of the YAML is an argument of TRL's SFTConfig (learning_rate, max_steps, ...)."""

    table: ClassVar[Arguments] = SFT
    output_dir: str = Field(description="folder of the run; a stopped run resumes from its last checkpoint there")
    model_name_or_path: str | None = Field(
        None, description="folder or hub name of a Qwen2.5-VL or Qwen3-VL model; null builds the demo's tiny model"
    )
    data_config: str | None = Field(
        None, description="YAML of the mixture, see data_config/; null makes the demo's data"
    )
    attention_supervision: dict[str, Any] = Field(
        {},
        description="options of the fork's AttentionSupervisionConfig, over those that the model brings: preset, layers, "
        "fusion, query, causal, eps, loss, focal_gamma, text_loss_weight, mask_loss_weight",
    )
    train: list[Part] = Field(["language_model"], description="parts to train, of language_model, merger and visual")
    learning_rates: dict[Part, Annotated[float, Field(gt=0)]] = Field(
        {}, description="for parts with a rate of their own: {merger: 1e-5}"
    )
    dtype: str = Field(
        "auto",
        description="of the loaded weights (bf16 sets what training computes in); auto is bfloat16 under DeepSpeed with "
        "bf16, else float32",
    )
    attn_implementation: str | dict[str, str] = Field(
        "auto",
        description="auto is FlashAttention where it is installed and there is a GPU (3 for the language model on a Hopper, "
        "else 2), or sdpa; by part: {text_config: flash_attention_3, vision_config: flash_attention_2}; "
        "kernels-community/flash-attn2 fetches a built kernel from the hub and needs pip install kernels",
    )
    fuse_elementwise: bool = Field(
        False,
        description="compile the language model's norms, gates and rotary embeddings: faster on a GPU, the same results "
        "up to rounding; the first steps take a minute longer and need a C++ compiler",
    )
    lora: LoraOptions | None = Field(None, description="train LoRA adapters {r, alpha, dropout} instead of the weights")
    demo: DemoOptions = Field(DemoOptions(), description="the sample data: {dir, train_clips, held_out_clips, seed}")
    report: bool = Field(
        False,
        description="train a control without the mask loss too, and compare before, control and after on the records of "
        "eval_grounding, or the demo's: comparison.md, pictures, summary.json; needs one process. model_name_or_path, data_config or "
        "max_steps on the command line turns it off, unless it is given there too",
    )
    system_prompt: str = Field(SYSTEM_PROMPT, description="system message of every conversation")
    max_frames: int = Field(VisualBudget.max_frames, ge=1, description="maximum frames per video")
    min_pixels: int = Field(VisualBudget.min_pixels, ge=1, description="minimum pixels per frame")
    max_pixels: int = Field(VisualBudget.max_pixels, ge=1, description="maximum pixels per frame")
    total_pixels: int = Field(
        VisualBudget.total_pixels, ge=1, description="maximum pixels of all frames of a video together"
    )
    fps: float | None = Field(None, gt=0, description="maximum sampling rate in frames per second; null for no limit")
    max_length: int | None = Field(
        None,
        ge=1,
        description="maximum tokens per sample; a longer one gets fewer pixels and frames, nothing is truncated",
    )
    released_timing: bool = Field(
        False, description="a temporal step lasts 1 s whatever the video's rate, as in the released code"
    )
    video_reader: Reader = Field(
        "pyav",
        description="library that reads video files: pyav (exact), decord as in the paper's code, or torchcodec, which needs "
        "FFmpeg; of some files the last two give other frames than they are asked for (docs/data.md)",
    )
    decode_time_limit_s: float = Field(60.0, gt=0, description="time limit for reading one video, in seconds")
    on_bad_record: Literal["fail", "skip"] = Field(
        "fail", description="skip leaves a bad record's place empty and lists it in skipped.jsonl"
    )
    max_bad_fraction: float = Field(0.01, ge=0, le=1, description="share of bad records above which skip ends the run")
    skip_list: str | None = Field(
        None, description="file of records to leave out: a skipped.jsonl, or the list that swim check wrote"
    )
    mask_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of each file's records, drawn by seed, whose masks are used; the others are learnt as text",
    )
    lengths: str | None = Field(
        None,
        description="lengths.json that swim check wrote: the samples of each step are sorted by it, so that processes wait "
        "less for the one with the longest; the gradient stays the same; needs per_device_train_batch_size: 1",
    )
    eval_grounding: str | None = Field(
        None,
        description="annotated file (NL-Refer, Bench-D or Bench-Q) whose text_loss, mask_loss, pointing and inside are "
        "logged with eval_ every eval_steps, by default when a checkpoint is saved; its frames are chosen as in training, "
        "and with several processes its first records may count twice, so that all have equally many",
    )
    eval_root: str | None = Field(
        None, description="folder that the videos of eval_grounding are relative to; null for that file's folder"
    )
    eval_untrusted: bool = Field(
        False, description="others made eval_grounding: no URLs in it, and no paths that lead out of eval_root"
    )
    mask_resolution: int = Field(1, ge=1, description="mask cells per visual token and side")
    cache_gb: float = Field(0.0, ge=0, description="decoded videos kept in memory by each data worker, in GB")
    dataloader_timeout_s: float = Field(
        600.0,
        gt=0,
        description="seconds a data worker may take for a batch before the run ends; processes that wait for another one "
        "have 5 minutes more (ddp_timeout)",
    )
    save_total_limit: int | None = Field(
        None, ge=1, description="complete checkpoints to keep, the best among them; null keeps all"
    )
    allow_config_change: bool = Field(
        False, description="resume a run although its configuration, data or number of processes changed"
    )
    cpu_threads: int | None = Field(None, ge=1, description="threads of each process; null leaves it to torch")
    arguments: dict[str, Any] = {}

    @field_validator("train", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _parts_fit(self):
        if not self.train:
            raise ValueError("train: expected at least one part, all would be frozen")
        if self.lora is not None and self.train != ["language_model"]:
            raise ValueError("train: LoRA trains the language_model alone; leave train out, or lora")
        frozen = sorted(set(self.learning_rates) - set(self.train))
        if frozen:
            raise ValueError(f"learning_rates: {', '.join(frozen)} is frozen; add it to train")
        return self

    @model_validator(mode="after")
    def _budget_fits(self):
        if self._budget.contradiction is not None:
            raise ValueError(self._budget.contradiction)
        return self

    @model_validator(mode="after")
    def _samples_stay_apart(self):
        if self.lengths is not None and self.arguments.get("per_device_train_batch_size", 8) != 1:
            raise ValueError(
                "lengths: sorting would put other samples into one micro-batch and so change their weights; set "
                "per_device_train_batch_size to 1, and gradient_accumulation_steps to the samples of a step"
            )
        return self

    @property
    def _budget(self) -> VisualBudget:
        return VisualBudget(self.max_frames, self.min_pixels, self.max_pixels, self.total_pixels, self.fps)

    @property
    def data_settings(self) -> DataSettings:
        return DataSettings(
            self._budget,
            self.system_prompt,
            self.mask_resolution,
            cache_gb=self.cache_gb,
            max_length=self.max_length,
            released_timing=self.released_timing,
            time_limit_s=self.decode_time_limit_s,
            video_reader=self.video_reader,
        )

    @property
    def process_timeout_s(self) -> int:
        """How long processes wait for each other: longer than for a data worker, whose error says more."""
        return self.arguments.get("ddp_timeout", int(self.dataloader_timeout_s) + 300)

    def trainer_arguments(self) -> Any:
        """TRL's configuration of this run. Raises ConfigError for values that the trainer refuses."""
        defaults = {"report_to": "tensorboard", "ddp_timeout": self.process_timeout_s}
        arguments = {**defaults, **self._evaluation(), **self.arguments, **self.table.fixed}
        if not torch.cuda.is_available():
            arguments |= {"use_cpu": True, "dataloader_pin_memory": False}
            if "RANK" in os.environ:  # without a backend TrainingArguments takes two CPU processes for one
                arguments["ddp_backend"] = "gloo"
        try:
            resolved = self.table.kind(output_dir=self.output_dir, **arguments)
        except (TypeError, ValueError, ImportError, OSError) as error:
            raise ConfigError(f"the trainer refuses its arguments: {error}") from None
        absent = set(trackers(resolved)) - set(get_available_reporting_integrations())
        if absent:
            raise ConfigError(f"report_to: {', '.join(sorted(absent))} is not installed, or no such tracker is known")
        return resolved

    def _evaluation(self) -> dict[str, Any]:
        """When, how many at a time and what is best, unless the configuration says so."""
        if self.eval_grounding is None:
            return {}
        saved = {"eval_strategy": self.arguments.get("save_strategy"), "eval_steps": self.arguments.get("save_steps")}
        every = {name: value for name, value in saved.items() if value not in (None, "no", "best")}
        batch_size = self.arguments.get("per_device_train_batch_size", 8)
        best = {"metric_for_best_model": "pointing"}
        return {"eval_strategy": "steps", "eval_steps": 500, **best, **every, "per_device_eval_batch_size": batch_size}

    @property
    def model(self) -> str:
        """model_name_or_path. Raises ConfigError where it is null."""
        if self.model_name_or_path is None:
            raise ConfigError("model_name_or_path: name a model")
        return self.model_name_or_path

    @property
    def mixture(self) -> str:
        """data_config. Raises ConfigError where it is null."""
        if self.data_config is None:
            raise ConfigError("data_config: name a mixture, see data_config/")
        return self.data_config

    @property
    def part_rates(self) -> dict[str, float]:
        """learning_rates by the part's name."""
        return {str(part): rate for part, rate in self.learning_rates.items()}

    def to_flat(self) -> dict[str, Any]:
        """The resolved configuration in the layout of the YAML."""
        flat = self.model_dump(exclude={"arguments"})
        return {**flat, **self.arguments}


def trackers(arguments: TrainingArguments) -> list[str]:
    """Names of `report_to`, which may be none, one or several."""
    named = arguments.report_to or []
    return [named] if isinstance(named, str) else named


Config = TypeVar("Config", bound=TrainConfig)


def load_config(
    path: str | Path,
    overrides: Sequence[str] = (),
    kind: type[Config] = TrainConfig,  # type: ignore[assignment]  # mypy wants a default of every Config
) -> Config:
    """The YAML file with command-line overrides: ["--learning_rate", "1e-4", "--attention_supervision.layers", "[2]"].

    Values are YAML. Raises ConfigError for a missing or malformed file, an unknown key or a value of the wrong type.
    """
    own = set(kind.model_fields) - {"arguments"}
    flat = _known_keys(_read(Path(path)), own, f"{path}: ", kind.table)
    given = _known_keys(parse_overrides(overrides), own, "command line: ", kind.table)
    _merge(flat, given)
    arguments = {key: flat[key] for key in flat if key not in own}
    problem = check_arguments(arguments, flat.get("eval_grounding") is not None, kind.table)
    if problem is not None:
        raise ConfigError(_placed(problem, given, path))
    try:
        return kind(
            **{key: flat[key] for key in flat if key in own},
            arguments={key: flat[key] for key in sorted(flat) if key not in own},
        )
    except ValidationError as error:
        raise ConfigError(_placed(_first_problem(error, kind), given, path)) from None


def _known_keys(flat: dict[str, Any], own: set[str], place: str, table: Arguments) -> dict[str, Any]:
    """The keys of one source under their present names. place: prefix of messages.

    Raises ConfigError for a key that does not exist, and for two names of one key with different values.
    """
    known = own | table.known()
    unknown = sorted(set(map(str, flat)) - known - RENAMED.keys())
    if unknown:
        raise ConfigError(f"{place}unknown key {unknown[0]!r}{_hint(unknown[0], known)}")
    try:
        return rename(flat)
    except ValueError as error:
        raise ConfigError(f"{place}{error}") from None


def _placed(problem: str, given: dict[str, Any], path: str | Path) -> str:
    """The problem, which begins with its key, with the place of the key: the command line or the file."""
    on_command_line = re.split(r"[^\w]", problem, maxsplit=1)[0] in given
    return f"--{problem}" if on_command_line else f"{path}: {problem}"


def _first_problem(error: ValidationError, config: type[TrainConfig]) -> str:
    """The first of pydantic's findings in one line, with what the key may have been meant to be."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        group = config.model_fields[str(problem["loc"][0])].annotation
        options = next(
            kind for kind in (group, *get_args(group)) if isinstance(kind, type) and issubclass(kind, BaseModel)
        )
        return f"{where}: unknown key{_suggest(str(problem['loc'][-1]), set(options.model_fields))}"
    what = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {what}, found {problem['input']!r}" if where else what  # of keys that do not go together


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """["--a.b", "1", "--c=x"] -> {"a": {"b": 1}, "c": "x"}. A key without a value is true. Raises ConfigError."""
    values: dict[str, Any] = {}
    arguments = [part for argument in arguments for part in _split(argument)]
    position = 0
    while position < len(arguments):
        key = arguments[position]
        if not key.startswith("--"):
            raise ConfigError(f"expected --key value, found {key!r}")
        position += 1
        value: Any = True
        if position < len(arguments) and not arguments[position].startswith("--"):
            value = _yaml_value(arguments[position])
            position += 1
        *parents, last = key[2:].split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"{key}: {parent} has a value of its own beside it; give one of the two")
        node[last] = value
    return values


# Keys that do not change what a training results in.
NO_RESULT = frozenset(
    """
    resume_from_checkpoint report save_total_limit disable_tqdm report_to allow_config_change dataloader_timeout_s ddp_timeout
    dataloader_num_workers cache_gb
    """.split()
)


def differing_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Keys whose values differ, leaving out NO_RESULT. What one of them does not name has its
    default: an earlier release had fewer keys."""
    old, new = _filled(rename(old)), _filled(new)
    return sorted(key for key in (set(old) | set(new)) - NO_RESULT if old.get(key) != new.get(key))


def _filled(flat: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the default of each of our keys that it lacks, also within groups of keys."""
    fields = TrainConfig.model_fields.items()
    defaults = {key: field.get_default(call_default_factory=True) for key, field in fields if not field.is_required()}
    filled = {**defaults, **flat}
    for key, group in (("demo", DemoOptions), ("lora", LoraOptions)):
        given = filled[key]
        if given is not None:
            filled[key] = {**group().model_dump(), **(given if isinstance(given, dict) else given.model_dump())}
    return filled


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(decode_text(path.read_bytes(), str(path)))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration; see run_scripts/configs") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: malformed YAML: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, found {type(content).__name__}")
    return content


def _merge(base: dict[str, Any], over: dict[str, Any]):
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _split(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--") and "=" in argument else [argument]


def _yaml_value(text: str) -> Any:
    """YAML, but 1e-4 is a number too (YAML 1.1 wants 1.0e-4)."""
    try:
        return float(text) if "e" in text.lower() else yaml.safe_load(text)
    except ValueError:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"expected a YAML value, found {text!r}: {error}") from None


def _hint(key: str, known: set[str]) -> str:
    return f"; {OTHER_NAMES[key]}" if key in OTHER_NAMES else _suggest(key, known)


def _suggest(key: str, known: set[str]) -> str:
    return did_you_mean(key, known) or "; swim train --help lists all keys"
