"""One process at a time writes into a folder."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from swim import lock
from swim.cli import check, construct, infer
from swim.lock import LOCK_FILE, FolderInUse, alone_in, hold

from .construct.records import conversation
from .holding import held_by_another


@pytest.fixture
def holder(tmp_path):
    """A process that holds `tmp_path / "run"`."""
    with held_by_another(tmp_path / "run") as process:
        yield process


def test_a_folder_is_held_until_it_is_released(tmp_path):
    with alone_in(tmp_path / "new" / "run"):
        assert (tmp_path / "new" / "run" / LOCK_FILE).exists()
        with alone_in(tmp_path / "new" / "run"):  # the same process, once more
            pass
        assert (tmp_path / "new" / "run" / LOCK_FILE).exists()
    assert os.listdir(tmp_path / "new" / "run") == []


def test_another_process_is_named_with_what_to_do(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.2)
    with pytest.raises(FolderInUse) as error:
        hold(tmp_path / "run")
    told = str(error.value)
    assert told.startswith(f"{tmp_path / 'run'} is in use by process {holder.pid} on {os.uname().nodename}: ")
    assert f"remove {tmp_path / 'run' / LOCK_FILE}" in told and "\n" not in told


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_claim_dies_with_its_process(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    assert (tmp_path / "run" / LOCK_FILE).exists()
    with alone_in(tmp_path / "run"):
        pass


def claim_of_another_machine(folder):
    """The claim of a process of another machine that was killed there: nobody renews it."""
    with alone_in(folder):
        claim = (folder / LOCK_FILE).read_text()
    (folder / LOCK_FILE).write_text(re.sub("(?m)^host=.*$", "host=node-17", claim))


def test_a_dead_process_of_another_machine_is_taken_over_from_after_a_while(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock, "LEASE_S", 1.0)
    claim_of_another_machine(tmp_path)
    with alone_in(tmp_path):
        assert "node-17" not in (tmp_path / LOCK_FILE).read_text()
    assert f"was claimed by process {os.getpid()} on node-17: waiting 1 s to see whether" in capsys.readouterr().err


def test_a_live_process_of_another_machine_is_not(tmp_path, monkeypatch):
    """It renews its claim, as a process elsewhere on a shared disk does."""
    monkeypatch.setattr(lock, "LEASE_S", 1.0)
    claim_of_another_machine(tmp_path)
    renew = "import os, sys, time\nwhile True: os.utime(sys.argv[1]); time.sleep(0.2)"
    process = subprocess.Popen([sys.executable, "-c", renew, str(tmp_path / LOCK_FILE)])
    try:
        with pytest.raises(FolderInUse, match="is in use by process .* on node-17"):
            hold(tmp_path)
    finally:
        process.kill()
        process.wait()


def test_children_neither_hold_nor_free_the_claim(tmp_path):
    lease = hold(tmp_path)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert lease.is_locked and (tmp_path / LOCK_FILE).exists()
    lease.release()


def commands(folder) -> dict[str, tuple]:
    """(main, arguments) of each command that writes into `--output`, on inputs that would do."""
    questions = folder / "questions.jsonl"
    questions.write_text('{"video": "clip.mp4", "prompt": "What?"}\n')
    records = folder / "videorefer.json"
    records.write_text(json.dumps([conversation("Where is the [<region>]?", "On the bed.", id=1)]))
    mixture = folder / "mixture.yaml"
    (folder / "train.json").write_text(json.dumps([{"data_source": "x", "conversations": []}]))
    mixture.write_text("datasets: [{json_path: train.json}]\n")
    server = ["--base_url", "http://127.0.0.1:9/v1", "--model", "m"]
    return {
        "infer": (infer.main, ["--batch", str(questions), "--backend", "openai", *server]),
        "construct": (construct.main, ["--input", str(records), *server]),
        "check": (check.main, [str(mixture), "--workers", "0"]),
    }


@pytest.mark.parametrize("name", ["infer", "construct", "check"])
def test_every_command_that_writes_for_long_claims_its_folder(tmp_path, name, capsys, monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.2)
    main, arguments = commands(tmp_path)[name]
    with held_by_another(tmp_path / "out") as process:
        assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: {tmp_path / 'out'} is in use by process {process.pid} on ")
