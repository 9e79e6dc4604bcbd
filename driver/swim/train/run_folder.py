"""The output folder of a run: what was asked for, whether it is finished, where it can go on."""

import json
from pathlib import Path

import yaml

from swim.data.mixture import Mixture
from swim.train.config import ConfigError, TrainConfig, differing_keys

CONFIG_FILE = "train_config.yaml"
FINISHED_FILE = "finished.json"
MIXTURE_FILE = "mixture.json"


class RunFolder:
    """`output_dir` of one run."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def finished(self) -> dict | None:
        """What `finish` wrote, None for a run that is not finished."""
        path = self.path / FINISHED_FILE
        return json.loads(path.read_text()) if path.exists() else None

    def check_config(self, config: TrainConfig):
        """Raises ConfigError when the folder belongs to a run with another configuration."""
        saved = self.path / CONFIG_FILE
        if not saved.exists():
            return
        keys = differing_keys(yaml.safe_load(saved.read_text()), config.to_flat())
        if keys:
            raise ConfigError(
                f"{self.path} holds a run with another configuration; different: {', '.join(keys)}. "
                "Choose another --output_dir, or remove the folder"
            )

    def write_config(self, config: TrainConfig):
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / CONFIG_FILE).write_text(yaml.safe_dump(config.to_flat(), sort_keys=False))

    def write_mixture(self, mixture: Mixture):
        """Which files, with which content, gave how many records."""
        (self.path / MIXTURE_FILE).write_text(json.dumps(mixture.to_dict(), indent=1) + "\n")

    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint: trainer_state.json is the last file that the trainer writes into one."""
        complete = [path.parent for path in self.path.glob("checkpoint-*/trainer_state.json")]
        return max(complete, key=lambda path: int(path.name.split("-")[1]), default=None)

    def finish(self, summary: dict):
        (self.path / FINISHED_FILE).write_text(json.dumps(summary, indent=1) + "\n")
