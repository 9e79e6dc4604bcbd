"""A few real clips, training configurations that take a second, and what they leave."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture
from swim.train.config import TrainConfig, load_config
from swim.train.grpo_config import GRPOTrainConfig
from swim.train.model import load_model
from swim.train.trainer import SwimTrainer

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO_YAML = REPOSITORY / "run_scripts/configs/sft_demo.yaml"
GRPO_YAML = REPOSITORY / "run_scripts/configs/grpo_demo.yaml"
# How processes share a run, by the name that it prints -> keys.
SHARING = {
    "DDP": {},
    "ZeRO-2": {"deepspeed": REPOSITORY / "run_scripts/deepspeed/zero2.json"},
    "ZeRO-3": {"deepspeed": REPOSITORY / "run_scripts/deepspeed/zero3.json"},
    "ZeRO-3 offload": {"deepspeed": REPOSITORY / "run_scripts/deepspeed/zero3_offload.json"},
    "FSDP2": {"fsdp": True, "fsdp_config": REPOSITORY / "run_scripts/fsdp/fsdp2.json"},
}


def flags_of(config: TrainConfig) -> list[str]:
    """The configuration's keys as a command line gives them."""
    keys = {key: value for key, value in config.to_flat().items() if value is not None}
    return [f"--{key}={json.dumps(value, default=str)}" for key, value in keys.items()]


def log_entries(folder: str | Path, key: str) -> list[dict]:
    """Those of a run's log that have this key."""
    history = json.loads((Path(folder) / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if key in entry]


def weights(folder: str | Path) -> dict:
    """Of a model, or of an adapter."""
    (path,) = Path(folder).glob("*model.safetensors")
    return load_file(path)


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
            "report": False,
            **changes,
        }
        return load_config(DEMO_YAML, [f"--{key}={value}" for key, value in keys.items()])

    return make


@pytest.fixture
def configure_grpo(tiny_model_dir, demo_data, tmp_path):
    """Function: the same of GRPO's demo."""

    def make(output: str = "grpo", **changes) -> GRPOTrainConfig:
        keys = {
            "output_dir": tmp_path / output,
            "model_name_or_path": tiny_model_dir,
            "data_config": demo_data.train_config,
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "num_generations": 2,
            "max_completion_length": 4,
            "warmup_steps": 0,
            "logging_steps": 1,
            "disable_tqdm": True,
            "report": False,
            **changes,
        }
        return load_config(GRPO_YAML, [f"--{key}={value}" for key, value in keys.items()], GRPOTrainConfig)

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
