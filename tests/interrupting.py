"""Ctrl-C as a terminal sends it: to a command and to every process that it started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

PATIENCE_S = 60


@contextmanager
def in_own_session(command: list[str]) -> Iterator[subprocess.Popen]:
    """A running command in a session and process group of its own; whatever is left of the group is killed at the end."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, start_new_session=True, preexec_fn=_heed_ctrl_c, text=True, **pipes) as process:
        try:
            yield process
        finally:
            for left in alive(process.pid):
                left.kill()


def _heed_ctrl_c():
    """A shell lets what it starts in the background ignore SIGINT, which children inherit: this suite for example."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen):
    """Until it happened. Fails when the process ends before, or after PATIENCE_S."""
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, process.stderr.read()[-3000:]
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def assert_ctrl_c_ends_it_at_once(process: subprocess.Popen, within_s: float = 20):
    """Interrupts the whole group: the command says so in one line, ends as by SIGINT, and no process stays behind."""
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (-signal.SIGINT, 130)  # what a shell shows as 130
    assert time.monotonic() - began < within_s
    assert "Traceback" not in errors and "Error" not in errors and "Warning" not in errors, errors[-3000:]
    assert [line for line in errors.splitlines() if "interrupt" in line.lower()] == ["interrupted"]
    assert_all_ended(process)


def assert_all_ended(process: subprocess.Popen):
    """No process of the group is left, a moment after the command ended."""
    end = time.monotonic() + 10
    while alive(process.pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert alive(process.pid) == []


def alive(group: int) -> list[psutil.Process]:
    """The processes of a group, without zombies: orphans that nobody has waited for yet are dead all the same."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found
