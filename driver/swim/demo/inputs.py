"""What the demo trains on: its clips and its model, tiny or talking, made when missing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import Field, field_validator, model_validator

from swim.demo.clips import LAYOUT_VERSION, make_demo_data
from swim.demo.model import DEMO_FAMILY, build_tiny_model, default_texts
from swim.demo.shapes import ClipSettings
from swim.demo.talking import FAMILY as TALKING_FAMILY
from swim.demo.talking import build_talking_model
from swim.models import MODEL_TYPES
from swim.options import Options


class DemoOptions(Options):
    """The sample data that is made when no `data_config` is given; the tiny model goes beside it."""

    dir: str = Field("output/demo_inputs", description="folder of the sample data and the tiny model")
    train_clips: int = Field(2000, ge=0, description="clips to train on")
    held_out_clips: int = Field(200, ge=0, description="clips to evaluate on")
    seed: int = Field(0, ge=0, description="of clips and model")
    language_model: Literal["smollm2"] | None = Field(
        None, description="a model that can talk, and conversations for it: smollm2; null: the tiny model"
    )
    names_known: bool = Field(
        True, description="false: a model that can talk, but has yet to learn the words for the colours that it sees"
    )
    family: str = Field(DEMO_FAMILY, description=f"of the tiny model: {' or '.join(MODEL_TYPES)}")

    @field_validator("family")
    @classmethod
    def _known(cls, family: str) -> str:
        if family not in MODEL_TYPES:
            raise ValueError(f"expected {' or '.join(MODEL_TYPES)}, found {family!r}")
        return family

    @model_validator(mode="after")
    def _can_talk(self):
        if self.language_model is not None and self.family != TALKING_FAMILY:
            raise ValueError(f"{self.language_model} fits family: {TALKING_FAMILY} alone, found {self.family}")
        if self.language_model is None and not self.names_known:
            raise ValueError("names_known: false needs a language_model; the tiny model knows no word anyway")
        return self


TALKING_SPEED_PX = 8.0  # a movement that sentences can tell has to cross cells of 28 px


@dataclass(frozen=True)
class DemoInputs:
    """model: folder of the untrained model. train_config: mixture YAML. held_out_json: records with `swap`."""

    model: Path
    train_config: Path
    held_out_json: Path


def make_demo_inputs(options: DemoOptions) -> DemoInputs:
    """Makes what is missing below `options.dir`. Every rank may call it: the first makes it, the others wait."""
    root = Path(options.dir)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        talks = options.language_model is not None
        kind = "talking" if talks else "tiny"
        name = f"{kind}_clips_{options.train_clips}_{options.held_out_clips}_seed{options.seed}"
        settings = ClipSettings(max_speed_px=TALKING_SPEED_PX) if talks else ClipSettings()
        counts = (options.train_clips, options.held_out_clips)
        data = make_demo_data(root / name, *counts, options.seed, settings, kind="talking" if talks else "lettered")
        family = "" if options.family == DEMO_FAMILY else f"_{options.family}"
        nameless = "" if options.names_known else "_names_unknown"
        model = root / f"{kind}_model{nameless}{family}_v{LAYOUT_VERSION}_seed{options.seed}"
        if not (model / "chat_template.jinja").exists():
            if talks:
                build_talking_model(model, seed=options.seed, names_known=options.names_known)
            else:
                texts = default_texts("lettered")
                build_tiny_model(model, texts=texts, seed=options.seed, model_type=options.family)
    return DemoInputs(model, data.train_config, data.held_out_json)
