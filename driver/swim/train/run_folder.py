"""The output folder of a run: what was asked for, whether it is finished, where it can resume."""

import json
from pathlib import Path

import yaml
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from swim.data.mixture import Mixture
from swim.data.settings import write_reading
from swim.files import write_atomically
from swim.train.config import ConfigError, TrainConfig, differing_keys

CONFIG_FILE = "train_config.yaml"
FINISHED_FILE = "finished.json"
MIXTURE_FILE = "mixture.json"
# Of a source in mixture.json: what decides its rows.
_DECIDE_ROWS = ("sha256", "records", "selected", "skipped", "strategy", "weight", "folder_fps")


class RunFolder:
    """`output_dir` of one run."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def finished(self) -> dict | None:
        """What `finish` wrote, None for a run that is not finished."""
        path = self.path / FINISHED_FILE
        return json.loads(path.read_text()) if path.exists() else None

    def differences(self, config: TrainConfig, mixture: Mixture | None = None) -> list[str]:
        """What of the configuration, and of the data where given, is not that of the folder's run.

        Raises ConfigError for any, unless `allow_config_change` is set.
        """
        found = self._changed_keys(config) + ([] if mixture is None else self._changed_data(mixture))
        if found and not config.allow_config_change:
            raise ConfigError(
                f"{self.path} holds a run with another configuration; different: {', '.join(found)}. Choose another "
                "--output_dir, remove the folder, or resume anyway with --allow_config_change true"
            )
        return found

    def _changed_keys(self, config: TrainConfig) -> list[str]:
        saved = self.path / CONFIG_FILE
        return differing_keys(yaml.safe_load(saved.read_text()), config.to_flat()) if saved.exists() else []

    def _changed_data(self, mixture: Mixture) -> list[str]:
        """Which data file, and what about it; where a file lies makes no difference."""
        saved = self.path / MIXTURE_FILE
        if not saved.exists():
            return []
        old, new = json.loads(saved.read_text())["sources"], mixture.to_dict()["sources"]
        if len(old) != len(new):
            return [f"{len(new)} data files instead of {len(old)}"]
        changes = ((before, after, key) for before, after in zip(old, new) for key in _DECIDE_ROWS)
        return [
            f"{after['json_path']} ({key} was {before[key]}, is {after[key]})"
            for before, after, key in changes
            if before[key] != after[key]
        ]

    def begin(self, config: TrainConfig, mixture: Mixture):
        """Writes what this run is: its configuration, and which files, with which content, gave how many records."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / FINISHED_FILE).unlink(missing_ok=True)
        write_reading(self.path, config.data_settings)
        write_atomically(self.path / CONFIG_FILE, yaml.safe_dump(config.to_flat(), sort_keys=False))
        write_atomically(self.path / MIXTURE_FILE, json.dumps(mixture.to_dict(), indent=1) + "\n")

    def finish(self, summary: dict):
        write_atomically(self.path / FINISHED_FILE, json.dumps(summary, indent=1) + "\n")


def what_decides_rows(mixture: Mixture) -> list[dict]:
    """For each file of a mixture its content and how much of it is taken."""
    return [{key: source[key] for key in _DECIDE_ROWS} for source in mixture.to_dict()["sources"]]


def read_state(folder: str | Path) -> TrainerState:
    """What Trainer left in the folder of a run or a checkpoint."""
    return TrainerState.load_from_json(str(Path(folder) / TRAINER_STATE_NAME))
