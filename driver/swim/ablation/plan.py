"""An ablation's file, and the trainings that it asks for."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from swim.data.mixture import load_mixture
from swim.errors import did_you_mean
from swim.files import decode_text, read_file
from swim.model_name import weights_digest
from swim.models.load import load_config as load_model_config
from swim.options import Options
from swim.train.config import NO_RESULT, ConfigError, TrainConfig, load_config
from swim.train.grpo_config import JudgeOptions
from swim.train.model import resolve_supervision
from swim.train.run_folder import what_decides_rows

WORDS = "words"  # of a variant: what is asked in other words; no key of a training
# Keys that `identity` leaves out: they do not change the result, or their content is in it instead.
_LEFT_OUT = NO_RESULT | {"output_dir", "model_name_or_path", "data_config", "skip_list", "attention_supervision"}

Changes = dict[str, Any]
Yardstick = Literal["held_out", "bench_q", "bench_d"]


class BenchFile(Options):
    """A file of VideoRefer-Bench-Q or -D."""

    file: str | None = Field(None, description="items, relative to the ablation's file; null for the demo's")
    videos: str | None = Field(None, description="folder of the videos; null for that of `file`")
    types: list[str] | None = Field(None, description="of Bench-Q: the types of question that count; null for all")
    judge: JudgeOptions | None = Field(
        None, description="of Bench-D: who grades; null for the judge of the demo's scenes"
    )


class AblationFile(Options):
    """What is compared: one base configuration, and axes along which one thing at a time is varied.

    axes: {axis: {variant: {key of a training: value}}}. {} is the base itself, null the model before training. The key
    `words`, {word: other word}, trains nothing: the same model is asked in other words.
    """

    base: str = Field(description="a training's configuration, relative to this file")
    set: Changes = Field({}, description="over the base, for all variants")
    seeds: list[int] = Field([0], min_length=1, description="of training; the demo's clips and weights too")
    axes: dict[str, dict[str, Changes | None]] = Field(description="{axis: {variant: {key: value}}}")
    against: dict[str, dict[str, str]] = Field(
        {}, description="{axis: {variant: other variant}}: differences to show besides those to the base"
    )
    yardsticks: list[Yardstick] = Field(["held_out"], min_length=1)
    bench_q: BenchFile | None = Field(None, description="null for the demo's")
    bench_d: BenchFile | None = Field(None, description="null for the demo's")
    max_new_tokens: int = Field(48, ge=1, description="of an answer to the benches")

    @model_validator(mode="after")
    def _has_variants(self):
        if not self.axes or not all(self.axes.values()):
            raise ValueError("axes: expected at least one, each with at least one variant")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one of them stands twice")
        for axis, pairs in self.against.items():
            if axis not in self.axes:
                raise ValueError(f"against: no axis {axis!r}{did_you_mean(axis, list(self.axes))}")
            for name in (name for pair in pairs.items() for name in pair):
                if name not in self.axes[axis]:
                    close = did_you_mean(name, list(self.axes[axis]))
                    raise ValueError(f"against.{axis}: no variant {name!r} in this axis{close}")
            if any(name == other for name, other in pairs.items()):
                raise ValueError(f"against.{axis}: a variant is compared with itself")
        return self


@dataclass(frozen=True)
class Variant:
    """One row of a table.

    changes: over the base; None is the model before training. words: see AblationFile. against: the name of another of
    its axis that it is compared with, besides the base.
    """

    axis: str
    name: str
    changes: Changes | None
    words: tuple[tuple[str, str], ...] = ()
    against: str | None = None

    @property
    def is_base(self) -> bool:
        return self.changes == {} and not self.words


@dataclass(frozen=True)
class Ablation:
    """A file, checked. path: its place."""

    path: Path
    file: AblationFile

    @property
    def variants(self) -> list[Variant]:
        """The rows of all tables. Raises ConfigError for words that are none."""
        named = ((axis, name, changes) for axis, some in self.file.axes.items() for name, changes in some.items())
        against = self.file.against
        return [
            _variant(self.path, axis, name, changes, against.get(axis, {}).get(name)) for axis, name, changes in named
        ]

    def config(self, seed: int, changes: Changes) -> TrainConfig:
        """The training of one variant. Raises ConfigError for a key or value that does not fit."""
        flat = {**self.file.set, **changes, "seed": seed, "report": False}
        overrides = [text for key, value in flat.items() for text in (f"--{key}", json.dumps(value))]
        config: TrainConfig = load_config(self.path.parent / self.file.base, overrides)
        if config.model_name_or_path is None or config.data_config is None:
            config = config.model_copy(update={"demo": config.demo.model_copy(update={"seed": seed})})
        return config

    @contextmanager
    def naming(self, variant: Variant) -> Iterator[None]:
        """Puts the variant's place in front of a ConfigError."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(f"{self.path}: axes.{variant.axis}.{variant.name}: {error}") from None

    def place(self, name: str) -> Path:
        """A path that the file names."""
        return self.path.parent / name


def read_ablation(path: str | Path) -> Ablation:
    """Raises ConfigError for a file that does not fit, and for a variant whose configuration does not."""
    path = Path(path)
    try:
        content = yaml.safe_load(decode_text(read_file(path, "run_scripts/ablations has examples"), str(path)))
        file = AblationFile.model_validate(content)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: malformed YAML: {error}") from None
    except ValidationError as error:
        problem = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")  # a typo first
        key = ".".join(map(str, problem["loc"]))
        unknown = problem["type"] == "extra_forbidden"
        close = did_you_mean(str(problem["loc"][-1]), list(AblationFile.model_fields)) if unknown else ""
        what = f"unknown key{close}" if unknown else problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {key}: {what}" if key else f"{path}: {what}") from None
    ablation = Ablation(path, file)
    for variant in ablation.variants:
        with ablation.naming(variant):
            ablation.config(file.seeds[0], variant.changes or {})
    return ablation


def identity(config: TrainConfig) -> str:
    """A digest of what decides a training's result: two configurations with the same are the same training.

    That is the configuration, the weights to start from and the content of the data. An option that is spelt out as it
    would be anyway makes no difference: those of the loss are resolved with what the model brings, and the trainer's are
    left out where they have their default. config: with model and data.

    Raises ConfigError for options that do not fit the model, DataError for data that cannot be read.
    """
    flat = config.to_flat()
    defaults = config.table.defaults()
    kept = {key: value for key, value in flat.items() if key not in _LEFT_OUT}
    kept = {key: value for key, value in kept.items() if key not in defaults or value != defaults[key]}
    kept["weights"] = weights_digest(config.model)
    kept["rows"] = what_decides_rows(load_mixture(config.mixture, skip_list=config.skip_list))
    kept["attention_supervision"] = resolve_supervision(load_model_config(config.model), config)
    return digest(kept)


def digest(facts: dict[str, Any]) -> str:
    """Twelve characters that tell these facts from others."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _variant(path: Path, axis: str, name: str, changes: Changes | None, against: str | None) -> Variant:
    if changes is None:
        return Variant(axis, name, None, against=against)
    words = changes.get(WORDS, {})
    if not isinstance(words, dict) or not all(isinstance(word, str) for pair in words.items() for word in pair):
        raise ConfigError(f"{path}: axes.{axis}.{name}.{WORDS}: expected {{word: other word}}, found {words!r}")
    rest = {key: value for key, value in changes.items() if key != WORDS}
    return Variant(axis, name, rest, tuple(words.items()), against)
