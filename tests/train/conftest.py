"""A few real clips, and training configurations that take a second."""

from pathlib import Path

import pytest

from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture
from swim.demo.clips import DemoData, make_demo_data
from swim.train.config import TrainConfig, load_config
from swim.train.model import load_model
from swim.train.trainer import SwimTrainer

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO_YAML = REPOSITORY / "run_scripts/configs/sft_demo.yaml"


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory) -> DemoData:
    return make_demo_data(tmp_path_factory.mktemp("demo"), train_clips=6, held_out_clips=2, workers=1)


@pytest.fixture
def configure(tiny_model_dir, demo_data, tmp_path):
    """Function: the demo's configuration on a few clips, with changed keys; output below tmp_path."""

    def make(output: str = "run", **changes) -> TrainConfig:
        keys = {
            "output_dir": tmp_path / output,
            "model_name_or_path": tiny_model_dir,
            "data_config": demo_data.train_config,
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "warmup_steps": 0,
            "logging_steps": 1,
            "disable_tqdm": True,
            **changes,
        }
        return load_config(DEMO_YAML, [f"--{key}={value}" for key, value in keys.items()])

    return make


@pytest.fixture
def make_trainer():
    """Function: the trainer of a configuration, not yet started."""

    def make(config: TrainConfig) -> SwimTrainer:
        model, processor = load_model(config, bf16_deepspeed=False)
        return SwimTrainer(
            model=model,
            args=config.trainer_arguments(),
            data_collator=SwimCollator(processor, model.config, config.data_settings),
            train_dataset=load_mixture(config.data_config).dataset,
            processing_class=processor,
            learning_rates=config.learning_rates,
        )

    return make
