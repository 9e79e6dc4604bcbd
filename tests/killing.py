"""Kills as they happen: a launch and all its processes, at once, in the middle of the work."""

import random
import subprocess
import time
from pathlib import Path

import psutil


def run_and_kill(command: list[str], parts: Path, delay_s: float):
    """Runs a launch and kills it and its processes `delay_s` after another line was stored in `parts`.

    The launcher's processes are in sessions of their own: they survive a kill of its group.
    """
    before = _stored_bytes(parts)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if _stored_bytes(parts) > before:
            time.sleep(delay_s)
            break
        time.sleep(0.01)
    if process.poll() is None:
        for victim in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            victim.kill()
    process.wait()


def run_killed(command: list[str], parts: Path, kills: int, longest_delay_s: float = 0.3):
    """Runs a command that is killed at random `kills` times, then to its end."""
    dice = random.Random(kills)
    for _ in range(kills):
        run_and_kill(command, parts, dice.uniform(0, longest_delay_s))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def _stored_bytes(parts: Path) -> int:
    return sum(path.stat().st_size for path in parts.glob("*.jsonl"))
