"""What a run says that it needs is what it takes: checkpoints on the disk, tensors in memory."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from swim.demo.model import TEXT, build_tiny_model
from swim.train.checkpoints import Checkpoints
from swim.train.estimate import Estimate, Parallelism, estimate, memory_warnings, shared_memory_warnings
from swim.video.clip import VisualBudget

from .conftest import REPOSITORY, SHARING, flags_of
from .processes import run_through

SAVED = {
    "one": (1, {}),
    "lora": (1, {"lora.r": 8}),
    **{name: (2, SHARING[name]) for name in ("DDP", "ZeRO-2", "ZeRO-3", "FSDP2")},
}


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=pytest.mark.slow if mode != "one" else ()) for mode in SAVED]
)
def test_the_estimated_checkpoint_is_the_real_one(configure, mode):
    """Within a tenth; what does not grow with the model is left out."""
    processes, changes = SAVED[mode]
    config = configure(max_steps=1, **changes)
    launch = run_through(config, processes)
    number, unit = launch.log.split("a checkpoint takes about ")[1].split()[:2]
    estimated = float(number) * {"kB": 1e3, "MB": 1e6}[unit]
    large = [path for path in Checkpoints(config.output_dir).last().rglob("*") if path.suffix not in (".json", ".py")]
    real = sum(os.path.getsize(path) for path in large if path.is_file())
    assert estimated == pytest.approx(real, rel=0.1 if mode != "lora" else 0.5)


def test_memory_and_disk_of_a_known_case():
    """A billion trained and a billion frozen parameters in bf16 on 8 processes, by hand."""
    parameters = [(10**9, 2, True), (10**9, 2, False)]
    alone = estimate(parameters, Parallelism())
    assert (alone.weights, alone.gradients, alone.optimizer) == (4e9, 2e9, 4e9)
    assert (alone.checkpoint, alone.model, alone.host) == (8e9, 4e9, 0)
    zero3 = estimate(parameters, Parallelism(8, zero=3, offload_optimizer=True, offload_weights=True))
    # beside the gradients in bf16 DeepSpeed keeps them in float32 where they lie in host memory
    assert (zero3.weights, zero3.gradients, zero3.optimizer) == (0.5e9, 0.25e9 + 0.5e9, 1.5e9)
    assert zero3.host == 2.75e9 and zero3.checkpoint == 4e9 + 2e9 + 12e9
    assert zero3.resuming == 1.5e9 and alone.resuming == 4e9  # the optimiser's part of a checkpoint, while it loads
    zero2 = estimate(parameters, Parallelism(8, zero=2))
    assert (zero2.weights, zero2.gradients, zero2.optimizer) == (4e9, 0.25e9, 1.5e9)
    lora = estimate(parameters, Parallelism(), adapter=True)
    assert (lora.checkpoint, lora.model) == (6e9, 2e9)


@pytest.fixture(scope="module")
def larger_model(tmp_path_factory):
    """17 million parameters: beside them a batch is small. The demo's has 2 million."""
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16}
    return build_tiny_model(tmp_path_factory.mktemp("model"), text={**TEXT, **sizes})


IN_MEMORY = {
    **SHARING,
    **{f"{name}, bf16": {**SHARING[name], "bf16": True} for name in ("ZeRO-2", "ZeRO-3", "ZeRO-3 offload")},
    "LoRA, ZeRO-2, bf16": {**SHARING["ZeRO-2"], "bf16": True, "lora.r": 64},
}


@pytest.mark.parametrize(
    "mode",
    [pytest.param(mode, marks=pytest.mark.slow if mode != "DDP" else ()) for mode in IN_MEMORY],
)
def test_the_estimated_memory_is_that_of_all_tensors_before_a_step(configure, larger_model, mode):
    """Within a tenth. The batch and the padding of DeepSpeed's flat buffers are not estimated."""
    keys = {"model_name_or_path": larger_model, "per_device_train_batch_size": 1, "save_strategy": "no"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "tests.train.buffers_worker", *flags_of(configure(**keys, **IN_MEMORY[mode]))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    (measured,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"live"')]
    live = measured.pop("live")
    assert live > 50e6 and sum(measured.values()) == pytest.approx(live, rel=0.1)


def test_the_memory_of_host_and_gpu_is_compared_with_what_is_needed():
    gigabyte = 10**9
    needs = Estimate(
        weights=4 * gigabyte, gradients=2 * gigabyte, optimizer=10 * gigabyte, host=12 * gigabyte, checkpoint=0, model=0
    )
    assert memory_warnings(needs, 96 * gigabyte, 4 * gigabyte, processes=8) == []
    (host,) = memory_warnings(needs, 96 * gigabyte - 1, 4 * gigabyte, processes=8)
    assert host == "warning: not enough memory: 96.00 GB needed, without activations"
    (gpu,) = memory_warnings(needs, 96 * gigabyte, 4 * gigabyte - 1, processes=8)
    assert "not enough GPU memory: 4.00 GB needed" in gpu
    (alone,) = memory_warnings(needs, 16 * gigabyte - 1, None, processes=1)
    assert "not enough memory: 16.00 GB" in alone


def test_too_little_shared_memory_for_the_data_workers_is_told(tmp_path):
    """32 frames of 768 cells are 58 MB as bytes; 8 processes with 4 workers that have 2 batches ready need 64 of them."""
    assert shared_memory_warnings(VisualBudget(), 1, 0, None, 8, tmp_path) == []
    assert shared_memory_warnings(VisualBudget(), 1, 4, None, 8, tmp_path / "none") == []
    free = shutil.disk_usage(tmp_path).free
    few = VisualBudget(max_frames=2, max_pixels=free // 100, total_pixels=free)
    assert shared_memory_warnings(few, 1, 4, 2, 2, tmp_path) == []  # 96 % of what is free
    (told,) = shared_memory_warnings(VisualBudget(), 10**6, 4, None, 8, tmp_path)
    assert "may take 3,699,376.13 GB" in told and str(tmp_path) in told and "--shm-size 3445313g" in told
