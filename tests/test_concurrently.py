"""Ctrl-C and kills of commands that work on many things at a time."""

import os
import signal
import sys
import threading
import time

import psutil
import pytest

from swim.concurrently import WorkerProcesses

from .interrupting import alive, assert_all_ended, assert_ctrl_c_ends_it_at_once, in_own_session, wait_until

# A module as a command is one: `swim` has installed the hook that prints the line; the imports of a worker take a second.
POOL = """
import sys, time
from pathlib import Path
import torch
from swim.command_line import end_in_one_line
from swim.concurrently import WorkerProcesses

def work(number):
    Path(sys.argv[1], str(number)).touch()
    time.sleep(30)

if __name__ == "__main__":
    sys.excepthook = end_in_one_line
    with WorkerProcesses(2) as pool:
        futures = [pool.submit(work, number) for number in range(100)]
        print("submitted", flush=True)
        futures[0].result()
"""

THREADS = """
import sys, time
from pathlib import Path
from swim.command_line import end_in_one_line
from swim.concurrently import run_concurrently

def work(number):
    Path(sys.argv[1], str(number)).touch()
    time.sleep(30 * number)

sys.excepthook = end_in_one_line
for task, _ in run_concurrently(range(100), work, 2):
    print(task, flush=True)
"""


@pytest.fixture
def command(tmp_path):
    """Function: the command of a module of this text; its work touches files in tmp_path/begun."""

    def make(text: str) -> list[str]:
        (tmp_path / "begun").mkdir()
        (tmp_path / "command.py").write_text(text)
        return [sys.executable, str(tmp_path / "command.py"), str(tmp_path / "begun")]

    return make


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.3])
def test_ctrl_c_while_the_workers_are_loading(command, delay_s):
    with in_own_session(command(POOL)) as process:
        wait_until(lambda: len(alive(process.pid)) == 4, process)  # with Python's own tracker of resources
        time.sleep(delay_s)
        assert_ctrl_c_ends_it_at_once(process)


def test_ctrl_c_while_the_workers_work(command, tmp_path):
    with in_own_session(command(POOL)) as process:
        wait_until(lambda: len(os.listdir(tmp_path / "begun")) == 2, process)
        assert_ctrl_c_ends_it_at_once(process)
    assert len(os.listdir(tmp_path / "begun")) == 2  # nothing that was queued began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_command(command, tmp_path, number):
    with in_own_session(command(POOL)) as process:
        wait_until(lambda: len(os.listdir(tmp_path / "begun")) == 2, process)
        process.send_signal(number)
        process.wait(20)
        assert_all_ended(process)


def test_ctrl_c_waits_for_no_thread(command, tmp_path):
    with in_own_session(command(THREADS)) as process:
        assert process.stdout.readline() == "0\n"
        wait_until(lambda: len(os.listdir(tmp_path / "begun")) == 3, process)
        assert_ctrl_c_ends_it_at_once(process)
    assert len(os.listdir(tmp_path / "begun")) == 3


def workers_of_this_process() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_the_pool_has_ended_with_its_statement():
    """Its thread closed a pipe just when Python, at its own end, wrote into it: "Bad file descriptor" after Ctrl-C."""
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt), WorkerProcesses(1) as pool:
            pool.submit(time.sleep, 30)
            raise KeyboardInterrupt
        left = [thread for thread in threading.enumerate() if type(thread).__name__ == "_ExecutorManagerThread"]
        assert left == []


def test_an_error_drops_what_is_queued_and_ends_the_workers():
    began = time.monotonic()
    with pytest.raises(ValueError, match="mine"), WorkerProcesses(2) as pool:
        for _ in range(20):
            pool.submit(time.sleep, 30)
        assert len(workers_of_this_process()) == 2
        raise ValueError("mine")
    assert workers_of_this_process() == [] and time.monotonic() - began < 20


class InterruptsWhilePickled:
    """Ctrl-C at the worst moment: the worker has been started and does not have its orders yet."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGINT)
        return int, ()


@pytest.fixture
def handler():
    """Python's own handler of Ctrl-C, in place also where this suite was told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_a_worker_is_started_takes_effect_afterwards(handler):
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(KeyboardInterrupt), WorkerProcesses(1, int, (InterruptsWhilePickled(),)) as pool:
        try:
            pool.submit(time.sleep, 30)
        finally:
            assert len(workers_of_this_process()) == 1  # it is known, and can be ended
    assert workers_of_this_process() == []
    assert signal.getsignal(signal.SIGINT) is handler and signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
