"""Several processes end in one line of ours, as one process does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def launch(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "swim.launch", "--standalone", "--nproc_per_node", "2", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


@pytest.mark.slow
def test_an_error_of_the_processes_is_followed_by_one_line(tmp_path):
    """It was followed by a block of torchelastic's, which said nothing of the error."""
    script = REPOSITORY / "run_scripts/run_sft.sh"
    environment = os.environ | {"NPROC": "2", "VIRTUAL_ENV": sys.prefix}
    options = ["--output_dir", str(tmp_path / "with space"), "--data_config", str(tmp_path / "no.yaml")]
    done = subprocess.run(["bash", str(script), *options], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line]
    assert f"error: {tmp_path}/no.yaml: no such data config" in "\n".join(lines)
    assert lines[-1].startswith("error: process ") and lines[-1].endswith("status 1; see its own error above")
    assert "Traceback" not in done.stderr and "FAILED" not in done.stderr and "elastic" not in done.stderr


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"NPROC": "gpu"}, "error: NPROC: expected a whole number of at least 1, found 'gpu'"),
        ({"NPROC": "0"}, "error: NPROC: expected a whole number of at least 1, found '0'"),
        ({"NNODES": "2.5"}, "error: NNODES: expected a whole number of at least 1, found '2.5'"),
        ({"NNODES": "2", "NODE_RANK": "-1"}, "error: NODE_RANK: expected a whole number of at least 0, found '-1'"),
        ({"NNODES": "2", "NODE_RANK": "2"}, "error: NODE_RANK: 2 of 2 nodes; the first is 0"),
        ({"NNODES": "2", "NODE_RANK": "1"}, "error: MASTER_ADDR: on 2 nodes, give the address of the first"),
    ],
)
def test_a_number_of_processes_that_is_none_is_refused(given, message):
    """NPROC=gpu, as torchrun takes it, trained on one of eight GPUs without a word."""
    others = {name: value for name, value in os.environ.items() if name not in ("NNODES", "NODE_RANK", "MASTER_ADDR")}
    script = str(REPOSITORY / "run_scripts/run_sft.sh")
    done = subprocess.run(["bash", script, "--help"], capture_output=True, text=True, env=others | given, timeout=60)
    assert (done.returncode, done.stderr.strip(), done.stdout) == (1, message, "")


def test_a_process_that_is_killed_is_named_and_its_status_kept():
    done = launch("--no-python", "bash", "-c", "[ $RANK = 1 ] && kill -9 $BASHPID; sleep 30")
    assert done.returncode == 128 + signal.SIGKILL
    assert (
        "error: process 1 of this run (pid " in done.stderr and "was killed by SIGKILL: out of memory?" in done.stderr
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("status", "told"), [(3, True), (138, False)])
def test_the_status_is_that_of_the_processes(status, told):
    done = launch("--no-python", "bash", "-c", f"exit {status}")
    assert done.returncode == status
    assert ("error: process " in done.stderr) == told and "Traceback" not in done.stderr


def test_a_signal_reaches_the_processes_and_ends_in_no_traceback(tmp_path):
    command = [
        sys.executable,
        "-m",
        "swim.launch",
        "--standalone",
        "--nproc_per_node",
        "2",
        "--no-python",
        "bash",
        "-c",
    ]
    script = f"trap 'touch {tmp_path}/stopped_$RANK; exit 143' TERM; touch {tmp_path}/begun_$RANK; while true; do sleep 0.1; done"
    process = subprocess.Popen([*command, script], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("begun_*"))) < 2:
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in errors
    assert {path.name for path in tmp_path.glob("stopped_*")} == {"stopped_0", "stopped_1"}
    assert not psutil.wait_procs(children, timeout=10)[1]
