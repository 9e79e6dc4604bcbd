"""What commands fall back to when they are given no model, data or question: the shipped demo's."""

from pathlib import Path

from filelock import FileLock

from swim.demo.bench import Benches, write_benches
from swim.demo.inputs import DemoOptions, make_demo_inputs
from swim.demo.talking import NoLanguageModel
from swim.train.config import Config, ConfigError, TrainConfig, load_config

DEMO_CONFIG = Path(__file__).resolve().parents[4] / "run_scripts/configs/sft_demo.yaml"


def with_demo_inputs(config: Config) -> Config:
    """The configuration with the demo's model and data where it names none of its own. Raises ConfigError."""
    if config.model_name_or_path is not None and config.data_config is not None:
        return config
    try:
        made = make_demo_inputs(config.demo)
    except NoLanguageModel as error:
        raise ConfigError(f"demo.language_model: {error}") from None
    changes = {
        "model_name_or_path": config.model_name_or_path or str(made.model),
        "data_config": config.data_config or str(made.train_config),
    }
    return config.model_copy(update=changes)


def is_demo_data(config: TrainConfig) -> bool:
    """Whether a configuration that went through `with_demo_inputs` trains on the demo's data."""
    return config.data_config is not None and Path(config.data_config).is_relative_to(config.demo.dir)


def demo_benches(options: DemoOptions | None = None) -> Benches:
    """VideoRefer-Bench-Q and -D files about the held-out clips, made when missing, by default of the shipped demo.

    Every rank may call it: the first makes them, the others wait.
    """
    demo: TrainConfig = load_config(DEMO_CONFIG)
    options = options or demo.demo
    held_out = make_demo_inputs(options).held_out_json
    with FileLock(Path(options.dir) / ".lock"):
        return write_benches(held_out, talks=options.language_model is not None)
