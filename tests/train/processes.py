"""Training in processes of its own, to be killed: they start in a second, from a server that has imported everything."""

import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from swim.cli import main
from swim.train.grpo_config import GRPOTrainConfig
from swim.train.watch import STEP_TIME

from .conftest import DEMO_YAML, GRPO_YAML, flags_of, log_entries

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["swim.cli.runs.train", "swim.cli.runs.grpo"])


class Launch:
    """`swim train`, or `swim grpo`, with a configuration's keys on some processes. log: what they print."""

    def __init__(self, config, processes: int = 1, log: Path | None = None):
        verb, path = ("grpo", GRPO_YAML) if isinstance(config, GRPOTrainConfig) else ("train", DEMO_YAML)
        arguments = [verb, "--config", str(path), *flags_of(config)]
        self._log = log or Path(f"{config.output_dir}.log")
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log.touch()
        shared = dict(os.environ)
        if processes > 1:
            port = free_port()
            shared |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.ranks = []
        for rank in range(processes):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}
            self.ranks.append(_SERVER.Process(target=_train, args=(arguments, {**shared, **own}, self._log)))
            self.ranks[-1].start()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait(self, timeout_s: float = 600) -> list[int]:
        """The statuses; negative signal numbers of killed processes. Kills what is left when the time is over."""
        end = time.monotonic() + timeout_s
        for rank in self.ranks:
            rank.join(max(0.0, end - time.monotonic()))
        late = any(rank.is_alive() for rank in self.ranks)
        self.kill()
        assert not late, self.log[-3000:]
        return [rank.exitcode for rank in self.ranks]

    def kill(self):
        for rank in self.ranks:
            rank.kill()
        for rank in self.ranks:
            rank.join()

    def wait_for_log_line(self):
        """Until the first step has been logged."""
        assert self.wait_for(lambda: "'text_loss'" in self.log), self.log[-3000:]

    def wait_for(self, happened: Callable[[], bool], timeout_s: float = 120) -> bool:
        """Whether it happened before all processes ended."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end and any(rank.is_alive() for rank in self.ranks):
            if happened():
                return True
            time.sleep(0.002)
        return happened()


def _train(arguments: list[str], environment: dict[str, str], log: Path):
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in a process that a user starts
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where this suite was told to ignore it
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.exit(main(arguments))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_through(config, processes: int = 1) -> Launch:
    """A launch that has to end well."""
    launch = Launch(config, processes)
    assert set(launch.wait()) == {0}, launch.log[-3000:]
    return launch


def run_killed(config, kills: int, seed: int, processes: int = 1, longest_delay_s: float = 0.4) -> Launch:
    """Kills all processes `kills` times, each time a while after another checkpoint has begun; then runs to the end.

    Every fifth kill comes at any moment instead, also while processes start, load or resume.
    """
    dice = random.Random(seed)
    folder = Path(config.output_dir)
    for number in range(1, kills + 1):
        before = begun(folder)
        launch = Launch(config, processes)
        if number % 5 == 0:
            time.sleep(dice.uniform(0, 10))
        else:
            began = launch.wait_for(lambda before=before: begun(folder) - before)
            assert began and not (folder / "finished.json").exists(), launch.log[-3000:]
            time.sleep(dice.uniform(0, longest_delay_s))
        launch.kill()
    return run_through(config, processes)


def begun(folder: Path) -> set[Path]:
    """Checkpoints, complete or not, without those that were set aside."""
    return set(folder.glob("checkpoint-*[0-9]"))


def curve(folder: str | Path) -> list[dict]:
    """The log of a run without what the clock decides, and without Trainer's guess of operations: under ZeRO-3 it counts
    the parameters that happen to be gathered."""
    clock = (*STEP_TIME, "step_time", "peak_memory_gb", "runtime", "per_second", "total_flos")
    entries = log_entries(folder, "step")
    return [{key: value for key, value in entry.items() if not key.endswith(clock)} for entry in entries]
