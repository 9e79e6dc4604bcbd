"""What the demo trains on: its clips and its tiny model, made when missing."""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from swim.demo.bench import Benches, write_benches
from swim.demo.clips import make_demo_data
from swim.demo.model import build_tiny_model
from swim.train.config import DemoOptions, TrainConfig, load_config

DEMO_CONFIG = Path(__file__).resolve().parents[3] / "run_scripts/configs/sft_demo.yaml"


@dataclass(frozen=True)
class DemoInputs:
    """model: folder of the untrained tiny model. train_config: mixture YAML. held_out_json: records with `swap`."""

    model: Path
    train_config: Path
    held_out_json: Path


def with_demo_inputs(config: TrainConfig) -> TrainConfig:
    """The configuration with the demo's model and data where it names none of its own."""
    if config.model_name_or_path is not None and config.data_config is not None:
        return config
    made = make_demo_inputs(config.demo)
    changes = {
        "model_name_or_path": config.model_name_or_path or str(made.model),
        "data_config": config.data_config or str(made.train_config),
    }
    return config.model_copy(update=changes)


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


def demo_benches(options: DemoOptions | None = None) -> Benches:
    """VideoRefer-Bench-Q and -D files about the held-out clips, made when missing, by default of the shipped demo.

    Every rank may call it: the first makes them, the others wait.
    """
    options = options or load_config(DEMO_CONFIG).demo
    held_out = make_demo_inputs(options).held_out_json
    with FileLock(Path(options.dir) / ".lock"):
        return write_benches(held_out)
