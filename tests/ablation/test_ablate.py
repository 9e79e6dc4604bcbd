"""`ablate.sh` from end to end on a few clips and steps: killed and again; when slow, shared among processes and failing."""

import json
import random
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml

from swim.cli import main
from swim.cli.runs.measuring import reworded

from ..conftest import REPOSITORY

ABLATION = {
    "base": str(REPOSITORY / "run_scripts/configs/sft_demo.yaml"),
    "set": {"max_steps": 2, "logging_steps": 1, "save_steps": 1, "cpu_threads": 1, "per_device_train_batch_size": 2},
    "seeds": [3],
    "yardsticks": ["held_out", "bench_q", "bench_d"],
    "bench_q": {"types": ["Basic Questions"]},
    "axes": {
        "loss": {"before": None, "bce": {}, "dice": {"attention_supervision.loss": "dice"}},
        "words": {"as trained": {}, "others": {"words": {"circle": "disc"}}},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a space in its path, and with ablation.yaml."""
    folder = tmp_path_factory.mktemp("an ablation")
    clips = {"dir": str(folder / "in"), "train_clips": 6, "held_out_clips": 3}
    content = {**ABLATION, "set": {**ABLATION["set"], "demo": clips}}
    (folder / "ablation.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def command(folder: Path, output: str, *more: str, file: str = "ablation.yaml") -> list[str]:
    script = str(REPOSITORY / "run_scripts/ablate.sh")
    return ["bash", script, str(folder / file), "--output", str(folder / output), *more]


def results(folder: Path, output: str) -> list[dict]:
    return json.loads((folder / output / "ablation.json").read_text())["results"]


def run_to_its_end(folder: Path, output: str) -> str:
    done = subprocess.run(command(folder, output), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def run_and_kill(folder: Path, output: str, delay_s: float):
    """Kills the command alone, `delay_s` after its first training began: its trainings have to end by themselves."""
    process = subprocess.Popen(
        command(folder, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and not list((folder / output).glob("cells/*/log.txt")):
        time.sleep(0.1)
    time.sleep(delay_s)
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


@pytest.fixture(scope="module")
def killed_once(folder) -> list[dict]:
    run_and_kill(folder, "whole", 6)
    run_to_its_end(folder, "whole")
    return results(folder, "whole")


def test_every_variant_is_in_the_table_and_every_training_ran_once(folder, killed_once):
    assert [(result["axis"], result["variant"]) for result in killed_once] == [
        (axis, variant) for axis, some in ABLATION["axes"].items() for variant in some
    ]
    by_name = {(result["axis"], result["variant"]): result["scores"] for result in killed_once}
    assert set(by_name["loss", "bce"]) == {
        *("pointing", "pointing_swapped", "inside", "answers", "perplexity", "bench_q", "bench_d")
    }
    assert by_name["words", "as trained"] == by_name["loss", "bce"]
    assert set(by_name["words", "others"]) == {"bench_q", "bench_d"}
    assert len({by_name["loss", name]["perplexity"] for name in ABLATION["axes"]["loss"]}) == 3
    table = (folder / "whole/ablation.md").read_text()
    assert f"| dice | {by_name['loss', 'dice']['pointing']:.2f} |" in table
    assert (folder / "whole/ablation.png").stat().st_size > 5_000
    cells = [path for path in (folder / "whole/cells").iterdir() if not path.name.startswith("start")]
    assert len(cells) == 2
    for cell in cells:
        log = json.loads((cell / "run/trainer_state.json").read_text())["log_history"]
        assert [entry["step"] for entry in log if "text_loss" in entry] == [1, 2]


def test_finished_trainings_keep_their_weights_and_no_checkpoints(folder, killed_once):
    """They took 28 GB for 26 trainings of the talking model, half a disk, and nothing resumes them."""
    runs = list((folder / "whole/cells").glob("*/run"))
    assert len(runs) == 2
    for run in runs:
        names = {path.name for path in run.iterdir()}
        assert {"model.safetensors", "finished.json"} <= names and not [name for name in names if "checkpoint" in name]


def test_a_number_of_processes_that_is_none_is_refused_before_anything_runs(folder, monkeypatch, capsys):
    monkeypatch.setenv("NPROC", "gpu")
    assert main(["ablate", str(folder / "ablation.yaml"), "--output", str(folder / "none")]) == 1
    assert "error: NPROC: expected a whole number, at least 1, found 'gpu'" in capsys.readouterr().err
    assert not (folder / "none").exists()


def test_a_finished_ablation_runs_nothing(folder, killed_once):
    before = {path: path.stat().st_mtime_ns for path in (folder / "whole/cells").rglob("*.json")}
    assert "0 of them to be run" in run_to_its_end(folder, "whole")
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "whole/cells").rglob("*.json")}


def test_tables_of_what_is_measured_so_far_train_nothing(folder, killed_once):
    content = yaml.safe_load((folder / "ablation.yaml").read_text())
    content["axes"]["loss"]["focal"] = {"attention_supervision.loss": "focal"}
    (folder / "more.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    cells = sorted((folder / "whole/cells").iterdir())
    for file, status in (("more.yaml", 3), ("ablation.yaml", 0)):
        done = subprocess.run(command(folder, "whole", "--tables_only", file=file), capture_output=True)
        assert done.returncode == status, done.stderr
        assert results(folder, "whole") == killed_once
        table = (folder / "whole/ablation.md").read_text()
        assert ("Not measured on every seed yet: loss: focal." in table) == (file == "more.yaml")
    assert cells == sorted((folder / "whole/cells").iterdir())


@pytest.mark.slow
def test_kills_change_nothing(folder, killed_once):
    """Neither one nor five: the tables are those of two commands that share the work undisturbed."""
    pair = [
        subprocess.Popen(command(folder, "shared"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=600) for process in pair]
    statuses = [process.returncode for process in pair]
    # whoever ended last saw everything; the other may have ended while a training was under way
    assert set(statuses) <= {0, 3} and 0 in statuses, outputs
    dice = random.Random(5)
    for _ in range(5):
        run_and_kill(folder, "often", dice.uniform(2, 20))
    run_to_its_end(folder, "often")
    assert results(folder, "shared") == results(folder, "often") == killed_once


@pytest.mark.slow
def test_a_training_that_fails_is_named_and_the_others_are_measured(folder, tmp_path):
    content = yaml.safe_load((folder / "ablation.yaml").read_text())
    content["yardsticks"] = ["held_out"]
    content["axes"] = {"skipping": {"listed": {"deepspeed": "nowhere.json"}, "nothing": {}}}
    (tmp_path / "ablation.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    done = subprocess.run(command(tmp_path, "out"), capture_output=True, text=True)
    assert done.returncode == 1 and "(skipping: listed, seed 3) failed; its output is in" in done.stderr
    log = Path(done.stderr.split("its output is in ")[1].splitlines()[0])
    assert "nowhere.json" in log.read_text()
    assert [result["variant"] for result in results(tmp_path, "out")] == ["nothing"]
    assert "Not measured on every seed yet: skipping: listed." in (tmp_path / "out/ablation.md").read_text()


def test_words_are_exchanged_whole_and_there_and_back():
    words = {"circle": "disc", "square": "box", "purple": "violet"}
    text = "Is the <ins>purple circle</ins> encircled by a square? Circles are not."
    there = reworded(text, words)
    assert there == "Is the <ins>violet disc</ins> encircled by a box? Circles are not."
    assert reworded(there, {new: old for old, new in words.items()}) == text
