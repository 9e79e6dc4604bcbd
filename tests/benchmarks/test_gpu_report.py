"""The GPU report, rehearsed on the CPU: every command of it runs, and what it says is what was measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "driver/benchmarks/gpu_report.py"


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory) -> tuple[dict, str, str]:
    """The report, its page for people, and what the command printed."""
    output = tmp_path_factory.mktemp("gpu report")
    command = ["bash", str(ROOT / "run_scripts/gpu_report.sh"), "--rehearse", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=output)
    assert done.returncode == 0, done.stderr[-3000:]
    page = (output / "gpu_report.md").read_text()
    return json.loads((output / "gpu_report.json").read_text()), page, done.stdout


@pytest.mark.slow
def test_every_part_runs_and_says_that_it_is_a_rehearsal(rehearsed):
    report, page, printed = rehearsed
    assert set(report["parts"]) == {"tests", "overhead", "training_step", "maps", "feeding"}
    assert report["did_not_run"] == {} and report["rehearsal"] and report["environment"]["gpu"] is None
    assert "A rehearsal on a CPU" in page and page in printed
    assert set(report["seconds"]) == set(report["parts"])


@pytest.mark.slow
def test_gpu_tests_are_skipped_and_counted_so(rehearsed):
    report, page, _ = rehearsed
    tests = report["parts"]["tests"]
    assert tests["passed"] == 0 and tests["failed"] == [] and tests["skipped"] > 10
    assert f"GPU tests: 0 passed, {tests['skipped']} skipped." in page


@pytest.mark.slow
def test_ratios_are_those_of_the_measured_numbers(rehearsed):
    report, page, _ = rehearsed
    for row in report["parts"]["training_step"]["results"]:
        assert set(row["ways"]) >= {"swim", "fused", "trl"}
        speeds = {way: measured["tokens_per_second"] for way, measured in row["ways"].items()}
        assert row["swim_to"]["trl"] == pytest.approx(speeds["swim"] / speeds["trl"], abs=1e-3)
        for measured in row["ways"].values():
            assert measured["tokens_per_second"] == pytest.approx(row["tokens"] / measured["seconds"], rel=0.01)
            assert f"| {row['tokens']} | " in page and f"| {measured['tokens_per_second']} |" in page
    for row in report["parts"]["overhead"]["results"]:
        ratio = row["seconds"]["supervised"] / row["seconds"]["text"]
        assert row["time_ratio"]["supervised"] == pytest.approx(ratio, abs=0.01)  # of rounded seconds
        assert row["peak_bytes"]["eager"] > row["peak_bytes"]["supervised"]
    assert report["parts"]["maps"]["results"][0]["largest_difference"] < 1e-5
    assert report["parts"]["feeding"]["samples_per_second"]["1"] > 0


def test_a_part_that_fails_stops_no_other_one(tmp_path):
    command = [
        sys.executable,
        str(REPORT),
        "--rehearse",
        "--output",
        str(tmp_path),
        "--stock",
        str(tmp_path / "nothing"),
    ]
    done = subprocess.run([*command, "--parts", "training_step", "tests"], capture_output=True, text=True)
    report = json.loads((tmp_path / "gpu_report.json").read_text())
    assert done.returncode == 1 and set(report["parts"]) == {"tests"}
    assert f"--stock: {tmp_path / 'nothing'} holds no package transformers" in done.stderr
    assert report["did_not_run"] == {"training_step": "ended with 2"}
    assert "Did not run:\n- training_step: ended with 2\n" in (tmp_path / "gpu_report.md").read_text()


def test_what_no_time_is_left_for_is_named(tmp_path):
    command = [sys.executable, str(REPORT), "--rehearse", "--output", str(tmp_path), "--minutes", "0.04"]
    done = subprocess.run([*command, "--parts", "overhead", "maps"], capture_output=True, text=True)
    report = json.loads((tmp_path / "gpu_report.json").read_text())
    assert done.returncode == 1 and report["parts"] == {}
    assert report["did_not_run"] == {"overhead": "out of time after 2 s", "maps": "no time was left"}


def test_without_a_gpu_it_says_how_to_rehearse(tmp_path):
    done = subprocess.run(
        [sys.executable, str(REPORT), "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert done.stderr.splitlines()[-1] == "error: no GPU is here; --rehearse runs the same commands on the CPU"
