"""What a run says of itself: log entries, curves and the last page."""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from swim.train.checkpoints import Checkpoints
from swim.train.config import ConfigError
from swim.train.run import train
from swim.train.watch import StepClock, keep_wandb_run, most_of_ranks

from .conftest import log_entries
from .processes import free_port


def without_masks(records: list[dict], every: int) -> list[dict]:
    for record in records[::every]:
        record["annotation"] = []
    return records


def test_the_log_tells_throughput_step_time_memory_and_supervision(configure, demo_data, data_of):
    """Half of the records have no masks; rates times seconds give the samples and tokens that there are."""
    records = without_masks(json.loads(demo_data.train_json.read_text()), every=2)
    one_epoch = {"max_steps": 3, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "logging_steps": 3}
    began = time.perf_counter()
    config = configure(data_config=data_of(records), **one_epoch)
    train(config)
    spent = time.perf_counter() - began
    (entry,) = log_entries(config.output_dir, "samples_per_second")
    seconds = 3 * (entry["data_s"] + entry["compute_s"] + entry["optimizer_s"])
    assert 0 < seconds < spent and min(entry["data_s"], entry["compute_s"], entry["optimizer_s"]) > 0
    assert entry["samples_per_second"] * seconds == pytest.approx(18)
    assert entry["tokens_per_second"] * seconds == pytest.approx(18 * 107, rel=0.05)
    assert entry["supervised_share"] == 0.5
    assert 0.1 < entry["peak_memory_gb"] < 20


def test_what_is_logged_of_all_ranks_is_of_the_one_that_has_most():
    """A rank that waits for its data makes the others wait for it, and only its own clock says so."""
    context, port = multiprocessing.get_context("spawn"), free_port()
    with context.Pool(2) as pool:
        found = pool.starmap(_most_of_two, [(rank, port) for rank in (0, 1)], chunksize=1)
    assert found == [[4.0, 3.0], [4.0, 3.0]]


def _most_of_two(rank: int, port: int) -> list[float]:
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
    return most_of_ranks(Accelerator(cpu=True), *((1.0, 3.0) if rank else (4.0, 0.5)))


def test_the_clock_tells_waiting_computing_and_updating_apart():
    class Slow(torch.optim.SGD):
        def step(self, closure=None):
            time.sleep(0.03)

    clock, optimizer = StepClock(), Slow([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with clock.running():
        for _ in range(2):
            with clock.waiting_for_data():
                time.sleep(0.01)
            clock.on_step_begin(None, None, None)
            time.sleep(0.02)
            optimizer.step()
            clock.on_step_end(None, None, None)
    seconds = clock.seconds()
    for part, expected in {"data": 0.02, "compute": 0.04, "optimizer": 0.06}.items():
        assert seconds[part] == pytest.approx(expected, rel=0.5), part
    clock.restart()
    assert set(clock.seconds().values()) == {0.0}


def test_evaluation_keeps_the_checkpoint_that_points_best(configure, demo_data):
    config = configure(max_steps=5, save_steps=1, eval_grounding=demo_data.held_out_json, save_total_limit=2)
    train(config)
    folder = Path(config.output_dir)
    pointing = {entry["step"]: entry["eval_pointing"] for entry in log_entries(folder, "eval_pointing")}
    assert len(pointing) == 5 and all("eval_loss" in entry for entry in log_entries(folder, "eval_pointing"))
    best = max(pointing, key=pointing.get)
    names = [path.name for path in Checkpoints(folder).complete()]
    assert names == [f"checkpoint-{step}" for step in sorted({best, *([4, 5] if best > 3 else [5])})]
    assert f"Best checkpoint: checkpoint-{best}" in (folder / "report.md").read_text()


def test_the_last_page_is_complete(configure, demo_data):
    config = configure(max_steps=3, eval_grounding=demo_data.held_out_json, save_steps=1)
    train(config)
    folder = Path(config.output_dir)
    text = (folder / "report.md").read_text()
    for line in ("Finished after 3 steps", "## Settings", "| max_steps | 3 |", "## Data", "| train.json | 18 of 18 |"):
        assert line in text, line
    for name in ("| eval_pointing |", "| mask_loss |", f"| torch | {torch.__version__.split('+')[0]}", "| machine |"):
        assert name in text, name
    pictures = [line.split("(")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(pictures) == 4
    for picture in pictures:
        assert (folder / picture).read_bytes().startswith(b"\x89PNG") and (folder / picture).stat().st_size > 10_000


def test_the_card_of_a_run_tells_data_settings_and_numbers(configure):
    """Not TRL's, which speaks of TRL."""
    config = configure(max_steps=3, save_steps=2)
    train(config)
    text = (Path(config.output_dir) / "README.md").read_text()
    for part in ("## Numbers", "| steps | 3 |", "| mask_loss |", "| train.json | 18 of 18 |", "| max_steps | 3 |"):
        assert part in text, part
    assert "library_name: transformers" in text and "trl" not in text.split("## Settings")[0].lower()


@pytest.mark.parametrize("named", ["wandb", "no_such_tracker"])
def test_a_tracker_that_is_not_there_is_told_before_training(configure, monkeypatch, named):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=f"report_to: {named} is not installed"):
        train(configure(report_to=named))


def test_a_resumed_run_stays_one_run_of_wandb(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    keep_wandb_run(tmp_path)
    first = os.environ.pop("WANDB_RUN_ID")
    keep_wandb_run(tmp_path)
    assert os.environ["WANDB_RUN_ID"] == first and os.environ["WANDB_RESUME"] == "allow"
    os.environ["WANDB_RUN_ID"] = "mine"
    keep_wandb_run(tmp_path)
    assert os.environ["WANDB_RUN_ID"] == "mine"


def test_a_run_of_a_few_steps_logs_and_draws_them_all(configure):
    """Of 4 steps with an entry every 5 nothing was logged, and the axes of the report were empty."""
    config = configure(max_steps=4, logging_steps=5)
    train(config)
    assert [entry["step"] for entry in log_entries(config.output_dir, "text_loss")] == [1, 2, 3, 4]
    few = configure("few", max_steps=1, logging_steps=5)
    train(few)
    for name in ("losses", "grounding", "speed", "optimisation"):
        assert colourful(Path(few.output_dir) / "report" / f"{name}.png") > 10


def colourful(path: Path) -> int:
    """Pixels of a picture that are no shade of grey."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((pixels.max(axis=2) - pixels.min(axis=2) > 60).sum())
