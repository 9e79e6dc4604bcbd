"""What the demo trains on: its clips and its tiny model, made when missing."""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field

from swim.demo.clips import make_demo_data
from swim.demo.model import build_tiny_model


class DemoOptions(BaseModel):
    """The sample data that is made when no `data_config` is given; the tiny model goes beside it."""

    model_config = ConfigDict(extra="forbid")
    dir: str = Field("output/demo_inputs", description="folder of the sample data and the tiny model")
    train_clips: int = Field(2000, description="clips to train on")
    held_out_clips: int = Field(200, description="clips to evaluate on")
    seed: int = Field(0, description="of clips and model")


@dataclass(frozen=True)
class DemoInputs:
    """model: folder of the untrained tiny model. train_config: mixture YAML. held_out_json: records with `swap`."""

    model: Path
    train_config: Path
    held_out_json: Path


def make_demo_inputs(options: DemoOptions) -> DemoInputs:
    """Makes what is missing below `options.dir`. Every rank may call it: the first makes it, the others wait."""
    root = Path(options.dir)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        name = f"clips_{options.train_clips}_{options.held_out_clips}_seed{options.seed}"
        data = make_demo_data(root / name, options.train_clips, options.held_out_clips, options.seed)
        model = root / f"tiny_model_seed{options.seed}"
        if not (model / "chat_template.jinja").exists():
            build_tiny_model(model, seed=options.seed)
    return DemoInputs(model, data.train_config, data.held_out_json)
