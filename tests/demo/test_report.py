"""The demo from end to end, on a few clips and steps."""

import json
from pathlib import Path

import pytest
import yaml

from swim.cli.runs.demo_defaults import DEMO_CONFIG, with_demo_inputs
from swim.cli.runs.demo_report import HeldOut, read_held_out, train_and_report
from swim.demo.inputs import make_demo_inputs
from swim.train.config import ConfigError, load_config

DEMO_YAML = Path(__file__).resolve().parents[2] / "run_scripts/configs/sft_demo.yaml"


@pytest.fixture
def config(tmp_path):
    keys = {
        "output_dir": tmp_path / "run",
        "demo.dir": tmp_path / "inputs",
        "demo.train_clips": 6,
        "demo.held_out_clips": 3,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "demo_report": True,
        "disable_tqdm": True,
    }
    return with_demo_inputs(load_config(DEMO_YAML, [f"--{key}={value}" for key, value in keys.items()]))


def test_the_report_is_complete_and_made_once(config):
    train_and_report(config)
    folder = Path(config.output_dir)
    numbers = json.loads((folder / "summary.json").read_text())
    for name in ("pointing", "inside"):
        for suffix in ("_before", "_after", "_text_only"):
            assert 0 <= numbers[name + suffix] <= 1
    for name in (
        "pointing_swapped",
        "chance",
        "accuracy",
        "accuracy_text_only",
        "text_loss",
        "mask_loss",
        "train_seconds",
    ):
        assert numbers[name] >= 0
    assert numbers["steps"] == 2
    # question and answer name the object in two tokens each, in two annotated steps of three clips
    assert numbers["pairs"] + numbers["pairs_left_out"] == 3 * 4 * 2
    for name in ("attention.png", "overlay.webp", "loss.png"):
        assert (folder / name).stat().st_size > 10_000
    mine, control = (
        yaml.safe_load((path / "train_config.yaml").read_text()) for path in (folder, folder / "text_only")
    )
    assert control.pop("attention_supervision") == {**mine.pop("attention_supervision"), "mask_loss_weight": 0.0}
    for key in ("output_dir", "demo_report"):
        assert mine.pop(key) != control.pop(key)
    assert mine == control

    made = (folder / "summary.json").stat().st_mtime_ns
    train_and_report(config)
    assert (folder / "summary.json").stat().st_mtime_ns == made


def test_commands_without_arguments_find_the_shipped_demo():
    """They looked for it below driver/ once, and every one of them ended in an error."""
    assert DEMO_CONFIG.samefile(DEMO_YAML) and load_config(DEMO_CONFIG).demo.held_out_clips == 200


def test_a_failing_control_is_named(config, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(ConfigError, match="text-only control failed; its output is in .*text_only.log"):
        train_and_report(config)


def test_swapped_questions_keep_the_first_objects_mask(config):
    inputs = make_demo_inputs(config.demo)
    held_out = read_held_out(inputs.held_out_json, config.data_settings)
    assert isinstance(held_out, HeldOut) and len(held_out.asked) == 3
    for asked, swapped, other, answer in zip(*vars(held_out).values()):
        phrase = asked.record.turns[0].spans[0].phrase
        assert swapped.record.turns[0].spans[0].phrase == other.record.turns[0].spans[0].phrase != phrase
        assert (swapped.masks.shares == asked.masks.shares).all() and (other.masks.shares != asked.masks.shares).any()
        assert phrase in answer
