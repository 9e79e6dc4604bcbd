"""`swim grpo`: a run from its configuration to its report; killed, sharded, with bad records."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from swim.cli import main
from swim.train.config import ConfigError
from swim.train.run import train

from .conftest import SHARING, log_entries, weights
from .processes import curve, run_killed, run_through
from .test_resume import assert_same_run

# Checkpoints lie within a batch of completions, from which two steps of two micro-steps learn, twice.
UNEVEN = {
    "max_steps": 8,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
    "learning_rate": 1e-2,
    "beta": 0.1,
    "logging_steps": 3,
    "save_steps": 1,
}


@pytest.mark.slow
def test_a_run_killed_twice_is_bit_exact(configure_grpo):
    whole, broken = configure_grpo("whole", **UNEVEN), configure_grpo("broken", **UNEVEN)
    run_through(whole)
    launch = run_killed(broken, kills=2, seed=0)
    assert "resuming from" in launch.log
    assert_same_run(broken, whole)
    assert len(log_entries(whole.output_dir, "reward")) == 2 and curve(whole.output_dir)[0]["mask_loss"] > 0


def test_the_command_leaves_what_training_leaves(configure_grpo, tmp_path, demo_data, tiny_model_dir, capsys):
    config = configure_grpo(report=True, log_completions=True, max_steps=1)
    keys = {key: value for key, value in config.to_flat().items() if value is not None}
    (tmp_path / "grpo.yaml").write_text(json.dumps(keys, default=str))
    assert main(["grpo", "--config", str(tmp_path / "grpo.yaml")]) == 1
    assert "report: it compares models on held-out records" in capsys.readouterr().err
    (tmp_path / "grpo.yaml").write_text(json.dumps(keys | {"report": False}, default=str))
    assert main(["grpo", "--config", str(tmp_path / "grpo.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "2 completions of each prompt, reward = 1 * answer" in shown and "loss = GRPO + 30.0 * mask_loss" in shown
    folder = Path(config.output_dir)
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "README.md", "report.md", "reading_settings.json", "completions"} <= names
    assert "judge_replies.sqlite" not in names
    assert "reward" in json.loads((folder / "finished.json").read_text())
    assert load_file(folder / "model.safetensors").keys() == load_file(tiny_model_dir / "model.safetensors").keys()


@pytest.mark.parametrize(
    "sharing", ["DDP", *[pytest.param(mode, marks=pytest.mark.slow) for mode in ("ZeRO-3", "FSDP2")]]
)
def test_processes_whose_records_are_bad_do_not_hold_up_the_others(configure_grpo, data_of, demo_data, sharing):
    """Two processes, a group each: what a bad record leaves is text alone, on one of them, on both or on none."""
    records = json.loads(demo_data.train_json.read_text())[:8]
    for record in records[::2]:
        record["video"] = "missing.mp4"
    keys = {"on_bad_record": "skip", "max_bad_fraction": 1.0, "max_steps": 4, "per_device_train_batch_size": 2}
    config = configure_grpo(data_config=data_of(records), **keys, **SHARING[sharing])
    launch = run_through(config, processes=2)
    assert "skipped" in launch.log
    listed = [json.loads(line) for line in (Path(config.output_dir) / "skipped.jsonl").read_text().splitlines()]
    assert 0 < len(listed) < 8 and all("missing.mp4" in entry["message"] for entry in listed)
    assert all(abs(entry["loss"]) < 100 for entry in log_entries(config.output_dir, "loss"))


def test_nothing_but_bad_records_teaches_nothing(configure_grpo, data_of, demo_data):
    records = [{**record, "video": "missing.mp4"} for record in json.loads(demo_data.train_json.read_text())[:4]]
    keys = {"on_bad_record": "skip", "max_bad_fraction": 1.0, "beta": 0.0}
    config = configure_grpo(data_config=data_of(records), **keys)
    train(config)
    before = load_file(Path(config.model) / "model.safetensors")
    assert all((tensor == before[name]).all() for name, tensor in weights(config.output_dir).items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": "language_model,merger"}, "train: a prompt's completions share what the vision tower"),
        ({"eval_grounding": "x.json"}, "eval_grounding: not used by GRPO"),
        (
            {"use_vllm": True},
            "use_vllm: True would change nothing here: TRL's client of vLLM takes pictures and no videos",
        ),
        ({"reward_weights": "[1.0]"}, "reward_weights is set by the trainer"),
        ({"packing": True}, "unknown key 'packing'"),
        ({"num_generation": 3}, "unknown key 'num_generation'; did you mean 'num_generations'"),
        ({"judge.model": "x", "judge.base_ur": "y"}, "judge.base_ur: unknown key; did you mean 'base_url'"),
        ({"num_generations": 3}, "the trainer refuses its arguments"),
    ],
)
def test_what_cannot_be_is_refused_with_the_key(configure_grpo, given, message):
    with pytest.raises(ConfigError, match=message):
        configure_grpo(**given).trainer_arguments()


@pytest.mark.parametrize("rewards", ["{speed: 1.0}", "{judge: 1.0}", "{format: 1.0}", "{'json:nothing': 1.0}"])
def test_a_reward_that_cannot_be_had_ends_the_run_before_it_begins(configure_grpo, rewards):
    with pytest.raises(ConfigError, match="^rewards: "):
        train(configure_grpo(rewards=rewards))
