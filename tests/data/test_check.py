"""The check finds before training what training would find, and goes on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Thread

import psutil
import pytest
import yaml
from transformers import AutoConfig, AutoProcessor

from swim.cli.check import main
from swim.data.collator import SwimCollator
from swim.data.lengths import read_lengths
from swim.data.mixture import load_mixture
from swim.demo.clips import make_demo_data
from swim.train.config import load_config

from ..interrupting import assert_ctrl_c_ends_it_at_once, in_own_session, wait_until

FULL = {"segmentation": {"size": [168, 168], "counts": [0, 168 * 168]}}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("demo"), 20, 0, workers=1)


@pytest.fixture
def mixture(clips, tmp_path) -> Path:
    """60 good records, and bad ones between them: what each level of the check must find."""
    records = json.loads(clips.train_json.read_text())
    cut = (clips.data_root / records[0]["video"]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(cut[: len(cut) // 3])
    (tmp_path / "clips").symlink_to(clips.data_root / "clips")

    def bad(**changes):
        return {**records[3], **changes}

    for place, record in enumerate(
        [
            bad(conversations=[]),
            bad(video="none.mp4"),
            bad(video="cut.mp4"),
            bad(annotation=[{"0": {"segmentation": {"size": [90, 90], "counts": [0, 8100]}}}]),
            bad(annotation=[{"0": {"segmentation": {"size": [90, 90], "counts": "zz"}}}]),
            bad(annotation=[{"900": FULL}]),
            bad(annotation=[{"0": {"segmentation": {"size": [169, 168], "counts": [0, 169 * 168]}}, "900": FULL}]),
        ]
    ):
        records.insert(place * 7, record)
    (tmp_path / "train.json").write_text(json.dumps(records))
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({"datasets": [{"json_path": "train.json"}]}))
    return tmp_path / "train.yaml"


@pytest.fixture
def train_config(tmp_path, tiny_model_dir) -> Path:
    keys = {"output_dir": "x", "model_name_or_path": str(tiny_model_dir), "min_pixels": 784, "max_pixels": 28224}
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({**keys, "max_frames": 4, "system_prompt": "Look."}))
    return tmp_path / "sft.yaml"


EXPECTED = {
    "none": {"malformed record": 1, "missing file": 1, "mask does not decode or fit its frame": 1},
    "header": {
        "malformed record": 1,
        "missing file": 1,
        "unreadable video or image": 1,
        "mask does not decode or fit its frame": 2,
        "no usable mask": 1,
    },
}
EXPECTED["full"] = EXPECTED["header"]


@pytest.mark.parametrize("level", EXPECTED)
def test_each_level_finds_what_it_looks_at(mixture, train_config, tmp_path, level, capsys):
    output = tmp_path / level
    arguments = [str(mixture), "--decode", level, "--workers", "0", "--output", str(output)]
    assert main([*arguments, "--train_config", str(train_config)]) == 1
    report = json.loads((output / "report.json").read_text())
    assert report["by_reason"] == EXPECTED[level] and report["bad"] == sum(EXPECTED[level].values())
    assert report["records"] == 67 and report["mixture"]["sources"][0]["records"] == 67
    if level != "none":
        assert (report["resized_masks"], report["frames_past_end"]) == (1, 1)
        assert report["tokens"]["lowest"] > 72 and report["tokens"]["highest"] < 150
    listed = [json.loads(line) for line in (output / "skip_list.jsonl").read_text().splitlines()]
    assert Counter(entry["reason"] for entry in listed) == EXPECTED[level]
    assert all("train.json, record" in entry["record"] for entry in listed)
    kept = load_mixture(mixture, skip_list=output / "skip_list.jsonl")
    assert len(kept.dataset) == 67 - report["bad"]
    assert "67 records" in capsys.readouterr().out


def test_a_clean_mixture_has_status_0(clips, tmp_path):
    assert main([str(clips.train_config), "--workers", "2", "--output", str(tmp_path / "clean")]) == 0
    report = json.loads((tmp_path / "clean" / "report.json").read_text())
    assert report["bad"] == 0 and "tokens" not in report


@pytest.mark.slow
def test_a_killed_check_goes_on_to_the_same_result(mixture, train_config, tmp_path):
    def command(output):
        options = ["--decode", "full", "--workers", "1", "--train_config", str(train_config), "--output", str(output)]
        return [sys.executable, "-m", "swim", "check", str(mixture), *options]

    undisturbed, broken = tmp_path / "undisturbed", tmp_path / "broken"
    assert subprocess.run(command(undisturbed), capture_output=True).returncode == 1
    process = subprocess.Popen(command(broken), start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    progress = broken / "progress.jsonl"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (progress.exists() and progress.read_bytes().count(b"row") > 0):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert progress.read_bytes().count(b"row") > 0
    with progress.open("ab") as file:
        file.write(b'{"row": 3, "tok')  # a torn line
    done = subprocess.run(command(broken), capture_output=True, text=True)
    assert done.returncode == 1 and "Resuming: " in done.stdout
    for name in ("report.json", "skip_list.jsonl"):
        assert (broken / name).read_text() == (undisturbed / name).read_text()


def test_what_cannot_be_checked_is_one_clear_line(tmp_path, capsys):
    assert main([str(tmp_path / "no.yaml")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.fixture
def replace_video(clips, tmp_path):
    """replace_video(position, make) writes a mixture of 60 records, of which one has the video that `make(path)` made."""

    def replace(position: int, make) -> Path:
        records = json.loads(clips.train_json.read_text())
        make(tmp_path / "odd.mp4")
        records[position]["video"] = str(tmp_path / "odd.mp4")
        (tmp_path / "train.json").write_text(json.dumps(records))
        data = {"datasets": [{"json_path": "train.json", "data_root": str(clips.data_root)}]}
        (tmp_path / "train.yaml").write_text(yaml.safe_dump(data))
        return tmp_path / "train.yaml"

    return replace


def test_a_record_whose_reading_ends_the_process_is_named_and_the_others_are_checked(replace_video, tmp_path, capsys):
    """Killed from outside, as the kernel does when memory is used up, while it reads the record; and so again."""
    mixture = replace_video(40, os.mkfifo)

    def kill():
        for _ in range(2):
            with (tmp_path / "odd.mp4").open("wb"):  # opens when a reader is there
                workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
                reading = [child for child in workers if opens(child, tmp_path / "odd.mp4")]
                for child in reading:
                    child.kill()
                psutil.wait_procs(reading)

    killer = Thread(target=kill, daemon=True)
    killer.start()
    assert main([str(mixture), "--workers", "2", "--output", str(tmp_path / "out")]) == 1
    killer.join(10)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["records"] == 60 and report["bad"] == 1 and report["by_reason"] == {"reading it ends the process": 1}
    (listed,) = map(json.loads, (tmp_path / "out" / "skip_list.jsonl").read_text().splitlines())
    assert listed["record"].endswith("train.json, record 40") and listed["position"] == 40
    assert "died twice" in listed["message"] and "reading it ends the process" in capsys.readouterr().out


def opens(process: psutil.Process, path: Path) -> bool:
    files = Path(f"/proc/{process.pid}/fd")
    return any(os.path.realpath(file) == str(path) for file in files.iterdir())


def test_ctrl_c_ends_a_check_at_once_and_it_can_be_resumed(replace_video, clips, tmp_path):
    """One worker has read 32 records and has nothing to do; the other one waits for a video that never comes."""
    mixture, output = replace_video(40, os.mkfifo), tmp_path / "out"
    command = [sys.executable, "-m", "swim", "check", str(mixture), "--workers", "2", "--output", str(output)]
    with in_own_session(command) as process:
        progress = output / "progress.jsonl"
        wait_until(lambda: progress.exists() and progress.read_bytes().count(b"\n") == 33, process)
        with (tmp_path / "odd.mp4").open("wb"):  # opens when a reader is there
            assert_ctrl_c_ends_it_at_once(process)
    (tmp_path / "odd.mp4").unlink()
    (tmp_path / "odd.mp4").symlink_to(clips.data_root / json.loads(clips.train_json.read_text())[40]["video"])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "Resuming: 32 records already checked" in done.stdout


def test_what_the_disk_does_not_give_is_not_listed_and_tried_anew(replace_video, clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swim.data.sample._PAUSE_S", 0.01)
    mixture = replace_video(3, lambda path: path.symlink_to("/proc/self/mem"))  # whose first byte is an I/O error
    command = [str(mixture), "--workers", "0", "--output", str(tmp_path / "out")]
    assert main(command) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["bad"], report["not_read"]) == (0, 1)
    assert report["by_reason"] == {"the disk or the network does not answer": 1}
    assert (tmp_path / "out" / "skip_list.jsonl").read_text() == ""
    assert "1 records could not be read, and are not listed: rerun the same command" in capsys.readouterr().out
    (tmp_path / "odd.mp4").unlink()
    (tmp_path / "odd.mp4").symlink_to(clips.data_root / json.loads(clips.train_json.read_text())[3]["video"])
    assert main(command) == 0
    assert "Resuming: 59 records already checked" in capsys.readouterr().out


def test_lengths_are_those_that_training_reads(mixture, train_config, tmp_path):
    assert main([str(mixture), "--train_config", str(train_config), "--output", str(tmp_path / "out")]) == 1
    training, known = load_config(train_config), load_mixture(mixture)
    lengths = read_lengths(tmp_path / "out" / "lengths.json", known)
    bad = [json.loads(line)["position"] for line in (tmp_path / "out" / "skip_list.jsonl").read_text().splitlines()]
    assert [number for number, length in enumerate(lengths) if not length] == bad
    processor = AutoProcessor.from_pretrained(training.model)
    collator = SwimCollator(processor, AutoConfig.from_pretrained(training.model), training.data_settings)
    for number in (1, 30, 66):
        batch = collator([collator.reader(known.dataset[number])])
        assert lengths[number] == batch["input_ids"].shape[1]


def test_a_random_choice_of_records_is_the_one_that_training_reads(mixture, train_config, tmp_path):
    data = {"datasets": [{"json_path": "train.json", "sampling_strategy": "random:9"}]}
    mixture.write_text(yaml.safe_dump(data))
    training = {**yaml.safe_load(train_config.read_text()), "seed": 5}
    train_config.write_text(yaml.safe_dump(training))
    assert load_mixture(mixture, 5).dataset["position"][:] != load_mixture(mixture).dataset["position"][:]
    for workers in ("0", "1"):
        output = tmp_path / f"out{workers}"
        main([str(mixture), "--train_config", str(train_config), "--workers", workers, "--output", str(output)])
        (entry,) = json.loads((output / "lengths.json").read_text())["files"].values()
        checked = [position for position, tokens in enumerate(entry["tokens"]) if tokens != -1]
        assert checked == load_mixture(mixture, 5).dataset["position"][:]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_list_of_records_to_leave_out_is_honoured_and_kept(mixture, tmp_path, workers):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main([str(mixture), "--decode", "none", "--output", str(first), "--workers", "0"]) == 1
    listed = [json.loads(line) for line in (first / "skip_list.jsonl").read_text().splitlines()]
    rejected = {**listed[0], "position": 1, "reason": "rejected in review"}
    (tmp_path / "known.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in [rejected, *listed[1:]]))
    command = [str(mixture), "--decode", "none", "--skip_list", str(tmp_path / "known.jsonl"), "--workers", workers]
    assert main([*command, "--output", str(second)]) == 1
    report = json.loads((second / "report.json").read_text())
    whole = json.loads((first / "report.json").read_text())
    assert report["bad"] == 1 and report["records"] == whole["records"] - len(listed)
    merged = [json.loads(line) for line in (second / "skip_list.jsonl").read_text().splitlines()]
    assert merged == [rejected, *listed[1:], listed[0]]
