"""The demo from end to end, on a few clips and steps."""

import json
from pathlib import Path

import pytest
import yaml

from swim.cli.runs.comparison import train_and_report
from swim.cli.runs.demo_defaults import DEMO_CONFIG, with_demo_inputs
from swim.cli.runs.held_out import read_held_out
from swim.cli.runs.yardsticks import yardsticks
from swim.demo.inputs import make_demo_inputs
from swim.demo.model import build_tiny_model
from swim.errors import DataError
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
        "report": True,
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
        "perplexity",
        "perplexity_before",
        "perplexity_text_only",
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
    told = (folder / "comparison.md").read_text()
    assert "(attention.png)" in told and told.count("What pattern does the") == 3
    mine, control = (
        yaml.safe_load((path / "train_config.yaml").read_text()) for path in (folder, folder / "text_only")
    )
    assert control.pop("attention_supervision") == {**mine.pop("attention_supervision"), "mask_loss_weight": 0.0}
    for key in ("output_dir", "report"):
        assert mine.pop(key) != control.pop(key)
    assert mine == control

    made = (folder / "summary.json").stat().st_mtime_ns
    train_and_report(config)
    assert (folder / "summary.json").stat().st_mtime_ns == made


def test_ones_own_records_are_reported_on(config, demo_data, tmp_path):
    """A mixture and a held-out file of one's own: the same report, without the demo's swapped questions."""
    config.data_config = str(demo_data.train_config)
    with pytest.raises(
        ConfigError, match="^report: .*name an annotated file that is not trained on with eval_grounding"
    ):
        train_and_report(config)
    assert not (tmp_path / "run" / "finished.json").exists()
    untagged = json.loads(demo_data.held_out_json.read_text().replace("<ins>", "").replace("</ins>", ""))
    (tmp_path / "untagged.json").write_text(json.dumps(untagged))
    config.eval_grounding, config.eval_root = str(tmp_path / "untagged.json"), str(demo_data.data_root)
    with pytest.raises(DataError, match="untagged.json, record 0 .*: 1 annotated instances but no <ins> tag"):
        train_and_report(config)
    assert not (tmp_path / "run" / "finished.json").exists()
    config.eval_root = None
    records = json.loads(demo_data.held_out_json.read_text())
    for record in records:
        record["conversations"][0]["value"] += " | <b>"
        record["video"] = str(demo_data.data_root / record["video"])
    (tmp_path / "mine.json").write_text(json.dumps([*records, {**records[0], "annotation": []}]))
    config.eval_grounding = str(tmp_path / "mine.json")
    train_and_report(config)
    folder = Path(config.output_dir)
    numbers = json.loads((folder / "summary.json").read_text())
    assert "pointing_swapped" not in numbers and numbers["pairs"] + numbers["pairs_left_out"] == 2 * 4 * 2
    told = (folder / "comparison.md").read_text()
    assert "2 held-out records" in told.splitlines()[0] and told.count("\\| &lt;b>") == 2
    assert all((folder / name).exists() for name in ("attention.png", "overlay.webp", "loss.png"))


def test_every_yardstick_is_in_the_summary(config, tiny_model_dir, tmp_path):
    models = {"before": str(tiny_model_dir), "supervised": str(build_tiny_model(tmp_path / "other", seed=1))}
    found = yardsticks(models, config, tmp_path / "run")
    assert list(found) == ["bench_q", "bench_d", "general"]
    for scores in found.values():
        assert list(scores) == list(models)
    for name in models:
        assert found["bench_q"][name]["micro"] == report_of(tmp_path / "run/bench_q" / name)["micro"]
        assert len(found["bench_q"][name]) == 5 + 2 and len(found["bench_d"][name]) == 4 + 1
        assert found["bench_d"][name]["mean"] == report_of(tmp_path / "run/bench_d" / name)["mean"]
        chat, clips = found["general"][name]["plain chat"], found["general"][name]["whole clip"]
        assert chat["items"] == 30 and clips["items"] == 3 and chat["perplexity"] > 1 and clips["perplexity"] > 1


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.mark.slow
def test_the_talking_demo_goes_from_clips_to_summary(tmp_path):
    keys = {
        "output_dir": tmp_path / "run",
        "demo.dir": tmp_path / "inputs",
        "demo.train_clips": 8,
        "demo.held_out_clips": 4,
        "max_steps": 3,
        "logging_steps": 1,
        "report": True,
        "disable_tqdm": True,
    }
    talking = load_config(DEMO_YAML.with_name("sft_talking.yaml"), [f"--{key}={value}" for key, value in keys.items()])
    train_and_report(with_demo_inputs(talking))
    numbers = json.loads((tmp_path / "run/summary.json").read_text())
    for name in ("before", "text_only", "supervised"):
        assert len(numbers["bench_q"][name]) == 7 and numbers["bench_d"][name]["mean"] is not None
        assert numbers["general"][name]["plain chat"]["perplexity"] > 1
    before, after = (numbers["general"][name]["plain chat"]["perplexity"] for name in ("before", "supervised"))
    assert before < 6 and before != after  # a language model that can talk; a random one is at its vocabulary's size
    assert numbers["perplexity"] < numbers["perplexity_before"]


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
    held_out = read_held_out(inputs.held_out_json, config.data_settings, config.model)
    assert len(held_out.asked) == 3
    for asked, swapped, other, answer in zip(held_out.asked, held_out.swapped, held_out.other, held_out.answers):
        phrase = asked.record.turns[0].spans[0].phrase
        assert swapped.record.turns[0].spans[0].phrase == other.record.turns[0].spans[0].phrase != phrase
        assert (swapped.masks.shares == asked.masks.shares).all() and (other.masks.shares != asked.masks.shares).any()
        assert phrase in answer
