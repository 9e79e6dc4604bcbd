"""Real DeepSpeed on two CPU processes. The first run on a machine compiles DeepSpeed's operators: minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLForConditionalGeneration

from swim.train.export import export
from swim.train.run import train

from .conftest import DEMO_YAML, SHARING, flags_of, log_entries


def train_on_two(config, timeout_s: int = 900) -> str:
    """Runs `swim train` on two processes with the configuration's keys; what it printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "swim", "train", "--config", str(DEMO_YAML), *flags_of(config)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout_s, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_zero3_with_offload_equals_one_process(configure, demo_data):
    """Losses, weights and the evaluation during training."""
    evaluation = {"eval_grounding": demo_data.held_out_json, "save_steps": 2}
    two = configure("two", per_device_train_batch_size=2, **SHARING["ZeRO-3 offload"], **evaluation)
    train_on_two(two)
    one = configure("one", per_device_train_batch_size=4, **evaluation)
    train(one)
    ours, reference = (log_entries(config.output_dir, "eval_pointing")[0] for config in (two, one))
    for key in ("eval_text_loss", "eval_mask_loss", "eval_pointing", "eval_inside"):
        assert ours[key] == pytest.approx(reference[key], rel=1e-3), key
    logged = (log_entries(config.output_dir, "text_loss") for config in (two, one))
    for ours, reference in zip(*logged, strict=True):
        for key in ("text_loss", "mask_loss"):
            assert ours[key] == pytest.approx(reference[key], rel=1e-3), (key, ours["step"])
        assert ours["pairs"] == reference["pairs"]
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(two.output_dir)
    expected = load_file(Path(one.output_dir) / "model.safetensors")
    got = load_file(Path(two.output_dir) / "model.safetensors")
    assert set(got) == set(expected)
    assert all(got[name].shape == expected[name].shape for name in expected)
    assert model.config.attention_supervision["layers"] == [1, 2]
    check_consolidation(Path(two.output_dir), got)


PREPARED = """
import sys, torch
from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture
from swim.train.config import load_config
from swim.train.run import _join_processes, _make_trainer
from swim.train.signals import StopOnSignal
from swim.train.skipping import SkippedRecords
from swim.train.worker_notes import WorkerNotes

config = load_config(sys.argv[1], sys.argv[2:])
_join_processes(config)
mixture = load_mixture(config.data_config)
skipped = SkippedRecords(config.output_dir, 1.0, mixture.hashes)
trainer = _make_trainer(config, config.trainer_arguments(), mixture, skipped, WorkerNotes(0), StopOnSignal())
batch = trainer.data_collator([mixture.dataset[0]])
masks = batch["ins_masks"].clone()
plain = SwimCollator(trainer.processing_class, trainer.model.config, config.data_settings)([mixture.dataset[0]])
prepared = trainer._prepare_inputs(batch)
pixels = prepared["pixel_values_videos"]
print(
    *(batch["pixel_values_videos"].dtype, pixels.dtype, torch.equal(pixels, plain["pixel_values_videos"].to(pixels.dtype))),
    *(prepared["ins_masks"].dtype, torch.equal(prepared["ins_masks"], masks), *sorted(set(prepared) ^ set(plain))),
)
"""


def test_masks_and_pixels_keep_their_precision_under_bf16(configure):
    """Trainer makes bf16 of what is a float. Shares of cells would lose their third digit; pixels, which travel as bytes,
    are rounded once, after they were made floats."""
    config = configure(bf16=True, **SHARING["ZeRO-2"])
    command = [sys.executable, "-c", PREPARED, str(DEMO_YAML), *flags_of(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert (
        done.stdout.splitlines()[-1] == "torch.uint8 torch.bfloat16 True torch.float32 True data_counts record_names"
    ), done.stderr[-3000:]


@pytest.mark.parametrize(("offloaded", "adam"), [("offload_param", "AdamW"), ("offload_optimizer", "DeepSpeedCPUAdam")])
def test_only_an_offloaded_optimizer_is_deepspeeds_own(configure, tmp_path, offloaded, adam):
    """It was chosen for offloaded weights too, and on a GPU it asserts that its states lie in host memory."""
    settings = json.loads(Path(SHARING["ZeRO-3"]["deepspeed"]).read_text())
    settings["zero_optimization"][offloaded] = {"device": "cpu"}
    path = tmp_path / "offload.json"
    path.write_text(json.dumps(settings))
    script = f"{PREPARED}print(type(trainer.create_optimizer()).__name__)"
    command = [sys.executable, "-c", script, str(DEMO_YAML), *flags_of(configure(deepspeed=path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.stdout.splitlines()[-1:] == [adam], done.stderr[-3000:]


def check_consolidation(run: Path, expected: dict):
    """The last checkpoint's shards alone give the final weights."""
    source = run / "checkpoint-2"
    (source / "model.safetensors").unlink()
    folder = export(source, run / "exported", torch.float32)
    weights = load_file(folder / "model.safetensors")
    assert set(weights) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor.float(), msg=name)
