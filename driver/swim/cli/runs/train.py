"""Training from the arguments of the command line, and its exit status."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from swim.cli.runs.comparison import train_and_report
from swim.cli.runs.demo_defaults import with_demo_inputs
from swim.errors import DataError
from swim.lock import FolderInUse
from swim.train.arguments import rename
from swim.train.config import Config, ConfigError, TrainConfig, load_config, parse_overrides
from swim.train.faults import TrainingFault
from swim.train.run import train
from swim.train.signals import Stopped
from swim.train.skipping import TooManyBadRecords

# Keys of the command line with which a training is no longer the one that its file reports on: a trial of a few steps, a
# model or data of one's own.
OTHER_TRAINING = ("model_name_or_path", "data_config", "max_steps")


def run(arguments: list[str]) -> int:
    return in_one_line(lambda: _run(arguments))


def _run(arguments: list[str]):
    config: TrainConfig = with_demo_inputs(load_training(arguments))
    if config.report:
        train_and_report(config)
    else:
        train(config)


def load_training(
    arguments: list[str],
    kind: type[Config] = TrainConfig,  # type: ignore[assignment]  # mypy wants a default of every Config
) -> Config:
    """The configuration that a command line asks for; where it gets no report although the file wants one, it says so.

    Raises ConfigError.
    """
    path, overrides = split_config(arguments)
    config = load_config(path, overrides, kind)
    reason = _no_report(rename(parse_overrides(overrides))) if config.report else None
    if reason is not None:
        config.report = False
        if int(os.environ.get("RANK", 0)) == 0:  # the processes have not met yet
            print(f"no report (comparison, pictures, summary.json): {reason}", flush=True)
    return config


def _no_report(given: dict[str, Any]) -> str | None:
    """Why there is none, or None. given: the keys of the command line."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return "it needs a single process"
    other = [f"--{key}" for key in OTHER_TRAINING if key in given]
    if other and "report" not in given:
        return f"with {' and '.join(other)} this is another training than the file's; --report true asks for one"
    return None


def in_one_line(work: Callable[[], int | None]) -> int:
    """The exit status of a training command, that of `work` or 0; its errors are printed on one line."""
    try:
        return work() or 0
    except (ConfigError, DataError, FolderInUse, TooManyBadRecords, TrainingFault) as error:
        return _told(_last_line(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what = "the disk is full" if error.errno == errno.ENOSPC else "the disk quota is used up"
        place = error.filename or "the output folder or the cache"
        return _told(f"{place}: {what}. Make room and start the same command again")
    except Stopped as stopped:
        sys.stdout.write(f"{stopped}\n")
        return stopped.status
    except KeyboardInterrupt:
        sys.stdout.write("\ninterrupted; rerun the same command to resume from the last complete checkpoint\n")
        return 128 + signal.SIGINT


def _told(message: str) -> int:
    """On a line of its own, after progress bars, and in one piece, as other processes write too."""
    sys.stderr.write(f"\nerror: {message}\n")
    return 1


def split_config(arguments: list[str]) -> tuple[str, list[str]]:
    """The last --config and the other arguments."""
    path, rest, position = None, [], 0
    while position < len(arguments):
        if arguments[position] == "--config" and position + 1 < len(arguments):
            path = arguments[position + 1]
            position += 2
            continue
        rest.append(arguments[position])
        position += 1
    if path is None:
        raise ConfigError("expected --config FILE; run_scripts/configs has examples")
    return path, rest


def _last_line(error: Exception) -> str:
    """A data worker's error arrives with its traceback in front; its last line is the message."""
    text = str(error).strip()
    if "Original Traceback" in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return text
