"""The study of what supervision does: its data and its words; from end to end on a few clips and steps when slow."""

import json
import subprocess
import sys

import effect
import pytest

from swim.data.mixture import load_mixture
from swim.train.config import load_config

from .conftest import BENCHMARKS, ROOT


def test_a_share_of_the_records_keeps_its_masks_and_all_keep_their_text(demo_data):
    whole = json.loads(demo_data.train_json.read_text())
    path = effect.mixture_with(0.3, demo_data.train_config)
    some = json.loads(path.with_suffix(".json").read_text())
    assert len(load_mixture(path).dataset) == len(some) == len(whole)
    assert [record["conversations"] for record in some] == [record["conversations"] for record in whole]
    assert sum("annotation" in record for record in some) == round(0.3 * len(whole))
    assert effect.mixture_with(1, demo_data.train_config) == demo_data.train_config


def test_words_are_exchanged_whole_and_there_and_back():
    text = "Is the <ins>purple circle</ins> encircled by a square? Circles are not."
    there = effect.reworded(text, effect.SYNONYMS)
    assert there == "Is the <ins>violet disc</ins> encircled by a box? Circles are not."
    assert effect.reworded(there, {new: old for old, new in effect.SYNONYMS.items()}) == text


def test_the_other_weight_is_the_one_that_the_configuration_has_not():
    for name, other in (("sft_demo", "text weight 0.05"), ("sft_talking", "text weight 1")):
        arms = effect.arms_of(load_config(ROOT / f"run_scripts/configs/{name}.yaml"))
        assert list(arms) == ["text only", "supervised", "10 %", "30 %", other]


@pytest.mark.slow
def test_the_study_ends_in_a_table_of_what_was_measured(tmp_path):
    keys = ["demo.train_clips=6", "demo.held_out_clips=3", "max_steps=2", "logging_steps=1", f"demo.dir={tmp_path}/in"]
    command = [sys.executable, str(BENCHMARKS / "effect.py"), "--output", str(tmp_path / "out")]
    command += ["--seeds", "3", "4", "--arms", "text only", "10 %", "--set", *keys]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "out/effect.json").read_text())["results"]
    assert [(result["seed"], result["arm"]) for result in results] == [
        (seed, arm) for seed in (3, 4) for arm in ("before", "text only", "10 %")
    ]
    table = (tmp_path / "out/effect.md").read_text()
    first, second = (result["scores"]["pointing"] for result in results if result["arm"] == "10 %")
    low, high = sorted((first, second))
    assert f"| 10 % | {(first + second) / 2:.2f} ({low:.2f} to {high:.2f}) |" in table and table in done.stdout
    assert (tmp_path / "out/effect.png").stat().st_size > 10_000
    # Again: nothing is trained or measured anew.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("scores.json")}
    assert subprocess.run(command, capture_output=True, cwd=ROOT).returncode == 0 and len(before) == 6
    assert before == {path: path.stat().st_mtime_ns for path in before}
