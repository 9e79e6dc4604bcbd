"""ZeRO-3 on two real processes whose samples differ in kind, and LoRA under ZeRO-3 with checkpointing."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from swim.train.run import train

from ..transformers.inputs import family
from . import rank_worker
from .conftest import REPOSITORY, SHARING, log_entries, weights
from .rank_worker import KINDS
from .test_deepspeed import train_on_two

EVERY_PAIR = list(itertools.product(KINDS, repeat=2))


def run_ranks(folder: Path, pairs: list[tuple[str, str]], timeout_s: int, tower: str = "learns") -> list[list[dict]]:
    """What the two ranks recorded in each micro-step. Raises subprocess.TimeoutExpired when they hang."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "tests.train.rank_worker", str(folder), family().name, tower, *(",".join(pair) for pair in pairs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def train_alone(pairs: list[tuple[str, str]]) -> tuple[list[list[dict]], dict[str, torch.Tensor]]:
    """(losses of each rank's samples in each step, final weights) of one process that takes the mean of both losses."""
    model = rank_worker.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=rank_worker.LEARNING_RATE)
    recorded = [[], []]
    for step, kinds in enumerate(pairs):
        optimizer.zero_grad()
        for rank, kind in enumerate(kinds):
            output = model(**rank_worker.batch_of(kind, step, rank))
            (output.loss / 2).backward()
            recorded[rank].append({name: float(output[name].detach()) for name in ("text_loss", "mask_loss")})
        optimizer.step()
    return recorded, {name: parameter.detach() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("each_family", ["qwen2_5_vl", pytest.param("qwen3_vl", marks=pytest.mark.slow)], indirect=True)
def test_ranks_with_different_kinds_of_samples(tmp_path, each_family):
    """No hang, the tower once per micro-step on each rank, and the weights of one process that averages both losses."""
    found = run_ranks(tmp_path, EVERY_PAIR, timeout_s=600)
    expected, trained = train_alone(EVERY_PAIR)
    for rank in (0, 1):
        assert [step.pop("tower_calls") for step in found[rank]] == [1] * len(EVERY_PAIR)
        for step, (ours, reference) in enumerate(zip(found[rank], expected[rank], strict=True)):
            assert {name: ours[name] for name in reference} == pytest.approx(reference, rel=1e-3, abs=1e-6), (
                rank,
                step,
            )
            assert (ours["mask_loss"] > 0) == EVERY_PAIR[step][rank].startswith("supervised")
            assert ours["text_loss"] > 0
    before = dict(rank_worker.make_model().named_parameters())
    for name, parameter in torch.load(tmp_path / "weights.pt").items():
        moved, error = trained[name] - before[name].detach(), parameter - trained[name]
        assert float(error.norm()) <= 1e-2 * float(moved.norm()) + 1e-6, name


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [[("supervised video", "text"), ("supervised image", "video")], EVERY_PAIR])
@pytest.mark.usefixtures("each_family")
def test_a_frozen_tower_runs_once_and_never_backward_with_the_same_bits(tmp_path, pairs):
    """Under ZeRO-3 on two processes with checkpointing, as against a tower that takes part in the backward pass."""
    runs, trained = {}, {}
    for tower in ("frozen", "differentiated"):
        (tmp_path / tower).mkdir()
        runs[tower] = run_ranks(tmp_path / tower, pairs, timeout_s=600, tower=tower)
        trained[tower] = torch.load(tmp_path / tower / "weights.pt")
    for step, (ours, reference) in enumerate(zip(*(itertools.chain(*runs[tower]) for tower in runs), strict=True)):
        assert (ours["forward"], ours["backward"]) == (1, 0), step
        for name in ("text_loss", "mask_loss"):
            assert ours[name] == reference[name], (step, name)
    assert any(step["backward"] == 1 for rank in runs["differentiated"] for step in rank)
    before = dict(rank_worker.make_model().named_parameters())
    for name, weight in trained["frozen"].items():
        assert torch.equal(weight, trained["differentiated"][name]), name
        assert torch.equal(weight, before[name]) == name.startswith("model.visual"), name


@pytest.mark.slow
@pytest.mark.parametrize("use_reentrant", [False, True], ids=["non-reentrant", "reentrant"])
def test_lora_with_zero3_and_checkpointing_equals_one_process_without(configure, tmp_path, use_reentrant):
    """Three short steps of plain SGD: the adapter's weights are its gradients; long ones would amplify rounding."""
    zero3 = json.loads(SHARING["ZeRO-3"]["deepspeed"].read_text())
    zero3["zero_allow_untested_optimizer"] = True
    (tmp_path / "zero3.json").write_text(json.dumps(zero3))
    options = {
        "lora.r": 2,
        "lora.dropout": 0.0,
        "optim": "sgd",
        "learning_rate": 0.05,
        "max_grad_norm": 0,
        "max_steps": 3,
        "attention_supervision.text_loss_weight": 0.1,
    }
    kind = {"use_reentrant": use_reentrant}
    checkpointing = {"activation_checkpointing": True, "activation_checkpointing_kwargs": kind}
    two = configure("two", per_device_train_batch_size=2, deepspeed=tmp_path / "zero3.json", **checkpointing, **options)
    train_on_two(two, timeout_s=600)
    one = configure("one", per_device_train_batch_size=4, **options)
    train(one)
    logged = (log_entries(config.output_dir, "text_loss") for config in (two, one))
    for ours, reference in zip(*logged, strict=True):
        for key in ("text_loss", "mask_loss"):
            assert ours[key] == pytest.approx(reference[key], rel=1e-3), (key, ours["step"])
    found, expected = (weights(run.output_dir) for run in (two, one))
    assert found.keys() == expected.keys() and found
    for name, weight in expected.items():
        assert float((found[name] - weight).norm()) <= 1e-2 * float(weight.norm()), name
    moved = [name for name in expected if "lora_B" in name and float(expected[name].norm()) > 0]
    assert any("layers.1.self_attn.q_proj" in name for name in moved)  # a supervised layer's queries
