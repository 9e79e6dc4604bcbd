"""A run that is killed, stopped or short of a checkpoint goes on to exactly what the undisturbed run gives."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swim.train.checkpoints import Checkpoints, mark, problem
from swim.train.config import ConfigError
from swim.train.run import train
from swim.train.run_folder import RunFolder

from .conftest import SHARING, weights
from .processes import Launch, curve, run_killed, run_through

# Checkpoints lie between log lines and inside epochs, whose last step has fewer micro-batches.
UNEVEN = {
    "max_steps": 12,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "logging_steps": 3,
    "save_steps": 2,
}
# Name -> processes, keys.
MODES = {
    "workers": (1, {"dataloader_num_workers": 2}),
    "LoRA": (1, {"lora.r": 4}),
    **{name: (2, SHARING[name]) for name in ("DDP", "ZeRO-2", "ZeRO-3 offload", "FSDP2")},
}


def assert_same_run(ours, reference, tolerance: float = 0.0):
    """Log and weights; within `tolerance`, relative for the log and absolute for the weights."""
    logged, expected = (curve(config.output_dir) for config in (ours, reference))
    assert [entry["step"] for entry in logged] == [entry["step"] for entry in expected]
    for entry, other in zip(logged, expected):
        assert entry == (pytest.approx(other, rel=tolerance) if tolerance else other)
    got, wanted = (weights(config.output_dir) for config in (ours, reference))
    assert set(got) == set(wanted)
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=tolerance, msg=name)


def test_a_run_killed_twice_is_bit_exact(configure):
    whole, broken = configure("whole", **UNEVEN), configure("broken", **UNEVEN)
    run_through(whole)
    run_killed(broken, kills=2, seed=0)
    assert_same_run(broken, whole)
    assert_tensorboard_shows_each_step_once(broken)


def assert_tensorboard_shows_each_step_once(config):
    events = EventAccumulator(str(Path(config.output_dir) / "tensorboard")).Reload()
    logged = {entry["step"]: entry["text_loss"] for entry in curve(config.output_dir) if "text_loss" in entry}
    shown = events.Scalars("train/text_loss")
    assert [scalar.step for scalar in shown] == list(logged)
    assert [scalar.value for scalar in shown] == pytest.approx(list(logged.values()), rel=1e-5)
    assert {"train/pointing", "train/data_s", "train/peak_memory_gb"} <= set(events.Tags()["scalars"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_goes_on_to_the_undisturbed_result(configure, mode):
    processes, keys = MODES[mode]
    options = {**UNEVEN, **keys, "save_total_limit": 2}
    whole, broken = configure("whole", **options), configure("broken", **options)
    run_through(whole, processes)
    launch = run_killed(broken, kills=2, seed=2, processes=processes)
    assert "resuming from" in launch.log
    assert_same_run(broken, whole, tolerance=1e-5 if processes > 1 else 0.0)


@pytest.mark.slow
def test_a_storm_of_twenty_kills_changes_nothing_under_zero3(configure):
    """Two processes. Both runs give the same numbers to the last bit here; stated is 1e-5."""
    options = {**UNEVEN, **SHARING["ZeRO-3"], "max_steps": 60, "save_steps": 1, "save_total_limit": 2}
    whole, broken = configure("whole", **options), configure("broken", **options)
    run_through(whole, processes=2)
    run_killed(broken, kills=20, seed=1, processes=2, longest_delay_s=0.5)
    assert_same_run(broken, whole, tolerance=1e-5)
    assert {path.name for path in Path(broken.output_dir).glob("checkpoint-*")} == {"checkpoint-59", "checkpoint-60"}


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_ends_and_the_same_command_goes_on(configure, number, status):
    options = {**UNEVEN, "save_steps": 100}
    whole, stopped = configure("whole", **options), configure("stopped", **options)
    train(whole)
    launch = Launch(stopped)
    launch.wait_for_log_line()
    os.kill(launch.ranks[0].pid, number)
    assert launch.wait() == [status]
    saved = Checkpoints(stopped.output_dir).last()
    message = f"{signal.Signals(number).name}: stopped after step {saved.name.split('-')[1]} of 12, saved as {saved}"
    assert message in launch.log and "Traceback" not in launch.log
    run_through(stopped)
    assert_same_run(stopped, whole)


def test_control_c_ends_at_once_in_one_line(configure):
    launch = Launch(configure(max_steps=400))
    launch.wait_for_log_line()
    os.kill(launch.ranks[0].pid, signal.SIGINT)
    assert launch.wait() == [130]
    assert "interrupted; rerun the same command to resume" in launch.log and "Traceback" not in launch.log


def test_a_signal_to_one_rank_stops_all_at_the_same_step(configure):
    config = configure(max_steps=400, per_device_train_batch_size=2, save_steps=1000)
    launch = Launch(config, processes=2)
    launch.wait_for_log_line()
    os.kill(launch.ranks[1].pid, signal.SIGTERM)
    assert launch.wait() == [143, 143], launch.log[-3000:]
    lines = [line for line in launch.log.splitlines() if "stopped after step" in line]
    assert len(lines) == 2 and lines[0] == lines[1]
    with pytest.raises(ConfigError, match="was saved by 2 process.es., this run has 1"):
        train(config)


def test_an_incomplete_checkpoint_is_set_aside_and_told(configure, capsys):
    config = configure(max_steps=3, save_steps=1, save_total_limit=5)
    train(config)
    folder = Path(config.output_dir)
    expected = curve(folder), weights(folder)
    for name in ("finished.json", "model.safetensors", "trainer_state.json", "checkpoint-3/complete.json"):
        (folder / name).unlink()
    capsys.readouterr()
    train(config)
    printed = capsys.readouterr().out
    assert "checkpoint-3 is incomplete (no complete.json): set aside as checkpoint-3.incomplete" in printed
    assert f"resuming from {folder / 'checkpoint-2'}" in printed
    assert curve(folder) == expected[0]
    assert all(torch.equal(tensor, expected[1][name]) for name, tensor in weights(folder).items())
    # the step was saved again: what was set aside is not needed any more
    assert not list(folder.glob("*.incomplete")) and problem(folder / "checkpoint-3") is None


def make_checkpoint(folder: Path, step: int, complete: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "parts").mkdir(parents=True)
    (path / "parts" / "weights").write_text("weights")
    if complete:
        mark(path, processes=1)
    return path


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: (path / "complete.json").unlink(), "no complete.json"),
        (lambda path: (path / "parts/weights").unlink(), "parts/weights is missing"),
        (lambda path: os.truncate(path / "parts/weights", 3), "parts/weights has 3 bytes instead of 7"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_named(tmp_path, damage, reason):
    good, bad = make_checkpoint(tmp_path, 4), make_checkpoint(tmp_path, 6)
    damage(bad)
    assert problem(bad) == reason and Checkpoints(tmp_path).last() == good
    line = f"{bad} is incomplete ({reason}): set aside as checkpoint-6.incomplete"
    assert Checkpoints(tmp_path).set_aside() == [line]


@pytest.mark.parametrize(
    ("complete", "incomplete", "keep", "best", "left"),
    [
        ([5, 10], [], 1, None, [15]),
        ([5, 10], [], 2, None, [10, 15]),
        ([5, 10], [], 2, 5, [5, 15]),
        ([5, 10], [], 1, 5, [5, 15]),
        ([5, 10], [], None, None, [5, 10, 15]),
        ([100], [], 2, None, [15, 100]),
        ([5], [7, 20], 2, None, [5, 15]),
    ],
)
def test_old_checkpoints_go_only_behind_a_complete_one(tmp_path, complete, incomplete, keep, best, left):
    for step in complete:
        make_checkpoint(tmp_path, step)
    for step in incomplete:
        make_checkpoint(tmp_path, step, complete=False)
    checkpoints = Checkpoints(tmp_path)
    assert len(checkpoints.set_aside()) == len(incomplete)
    newest = make_checkpoint(tmp_path, 15, complete=False)
    assert [path.name for path in checkpoints.complete()] == [f"checkpoint-{step}" for step in complete]
    checkpoints.finish(newest, keep, None if best is None else f"elsewhere/checkpoint-{best}", processes=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"checkpoint-{step}" for step in left)


def test_changed_data_are_named_and_refused(configure, demo_data, data_of):
    records = json.loads(demo_data.train_json.read_text())
    config = configure(data_config=data_of(records), save_steps=1)
    train(config)
    (Path(config.output_dir) / "finished.json").unlink()
    fewer = data_of(records[:-1])
    with pytest.raises(ConfigError, match=r"different: .*train.json \(sha256 was .*, is .*\(records was 18, is 17\)"):
        train(config)
    allowed = configure(data_config=fewer, save_steps=1, allow_config_change=True)
    assert train(allowed)["steps"] == 2


def test_a_run_killed_behind_its_last_checkpoint_learns_no_more(configure):
    config = configure(save_steps=1)
    first = train(config)
    folder = Path(config.output_dir)
    expected = curve(folder), weights(folder)
    (folder / "finished.json").unlink()
    (folder / "model.safetensors").unlink()
    again = train(config)
    assert again["steps"] == 2 and again["train_loss"] == first["train_loss"]
    assert curve(folder) == expected[0]
    assert all(torch.equal(tensor, expected[1][name]) for name, tensor in weights(folder).items())


def test_an_allowed_change_takes_effect_and_is_told(configure, capsys):
    """A finished run goes on to more steps with another learning rate."""
    train(configure(save_steps=1, lr_scheduler_type="linear"))
    capsys.readouterr()
    changes = {"max_steps": 4, "learning_rate": 1e-4, "lr_scheduler_type": "constant"}
    changed = configure(save_steps=1, allow_config_change=True, **changes)
    train(changed)
    assert "continuing although these differ: learning_rate, lr_scheduler_type, max_steps" in capsys.readouterr().out
    rates = [entry["learning_rate"] for entry in curve(changed.output_dir) if "learning_rate" in entry]
    assert not RunFolder(changed.output_dir).differences(changed)
    assert len(rates) == 4 and rates[2:] == [1e-4, 1e-4]


def test_the_best_checkpoint_is_kept_and_its_weights_are_the_result(configure, demo_data):
    """The learning rate makes the first evaluation the best of its loss."""
    options = {"eval_grounding": demo_data.held_out_json, "save_steps": 1, "max_steps": 4, "save_total_limit": 1}
    best = {"metric_for_best_model": "text_loss", "greater_is_better": False, "load_best_model_at_end": True}
    config = configure(learning_rate=1.0, max_grad_norm=0, **options, **best)
    train(config)
    folder = Path(config.output_dir)
    losses = {entry["step"]: entry["eval_text_loss"] for entry in curve(folder) if "eval_text_loss" in entry}
    step = min(losses, key=losses.get)
    assert step < 4
    assert {path.name for path in folder.glob("checkpoint-*")} == {f"checkpoint-{step}", "checkpoint-4"}
    assert all(
        torch.equal(tensor, weights(folder)[name]) for name, tensor in weights(folder / f"checkpoint-{step}").items()
    )


def test_a_second_process_in_the_same_folder_is_refused(configure):
    """Two terminals, one output_dir: the second says who trains there, and the first is not disturbed."""
    options = {"max_steps": 40, "save_steps": 10}
    whole = configure("whole", **options)
    run_through(whole)
    config = configure(**options)
    first = Launch(config)
    first.wait_for_log_line()
    second = Launch(config, log=Path(f"{config.output_dir}.second.log"))
    assert second.wait(60) == [1]
    told = f"error: {config.output_dir} is in use by process {first.ranks[0].pid} on "
    assert told in second.log and "Traceback" not in second.log
    assert first.wait() == [0]
    assert curve(config.output_dir) == curve(whole.output_dir)
