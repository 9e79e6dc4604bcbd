"""Faults as they happen: each ends the run with a message, and nothing that was saved is lost."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import SafetensorError
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from swim.train.checkpoints import Checkpoints, problem
from swim.train.config import ConfigError
from swim.train.faults import TrainingFault, report_faults, saving
from swim.train.run import train
from swim.train.worker_notes import WorkerNotes

from .conftest import REPOSITORY, SHARING, flags_of, weights
from .processes import Launch, curve, run_through


def error_lines(launch: Launch) -> list[str]:
    return [line for line in launch.log.splitlines() if line.startswith("error: ")]


@pytest.fixture
def poisoned(demo_data, data_of, tiny_model_dir, tmp_path):
    """Keys of a run in which one record names a thing that the model's weights know as NaN: record 7."""
    records = json.loads(demo_data.train_json.read_text())
    for turn in records[7]["conversations"]:
        turn["value"] = turn["value"].replace("<ins>", "<ins>zz ")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_dir)
    processor = AutoProcessor.from_pretrained(tiny_model_dir)
    # Untied: tied weights would make every logit NaN.
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    token = processor.tokenizer.convert_tokens_to_ids("z")
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = float("nan")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return {"data_config": data_of(records), "model_name_or_path": tmp_path / "model"}


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_learnt(configure, poisoned):
    """The record is named with the step; every checkpoint lies before that step and is finite."""
    config = configure(per_device_train_batch_size=2, max_steps=9, save_steps=1, **poisoned)
    with pytest.raises(TrainingFault, match=r"the loss is not finite .*record 7 \(videorefer_demo_\d+\)") as caught:
        train(config)
    step = int(str(caught.value).split(":")[0].removeprefix("step "))
    assert str(caught.value).count("record ") == 2  # the batch
    last = Checkpoints(config.output_dir).last()
    assert (last is None and step == 1) or last.name == f"checkpoint-{step - 1}"


def test_a_gradient_that_is_not_finite_ends_the_run(configure):
    """The loss is finite; its gradient's square is not."""
    config = configure(**{"attention_supervision.text_loss_weight": 1e30})
    with pytest.raises(
        TrainingFault, match="step 1: the gradient is not finite .*no checkpoint holds this step. Its records: .*record"
    ):
        train(config)
    assert Checkpoints(config.output_dir).last() is None


@pytest.mark.parametrize("mode", [{}, pytest.param(SHARING["ZeRO-3"], marks=pytest.mark.slow)], ids=["ddp", "zero3"])
def test_every_rank_ends_and_names_the_record_of_one(configure, poisoned, mode):
    config = configure(per_device_train_batch_size=1, max_steps=9, save_steps=1, **poisoned, **mode)
    launch = Launch(config, processes=2)
    assert launch.wait() == [1, 1], launch.log[-3000:]
    first, second = error_lines(launch)
    assert first == second and "the loss is not finite" in first
    assert first.count("record ") == 1 and "record 7 (" in first
    step = int(first.split("step ")[1].split(":")[0])
    saved = Checkpoints(config.output_dir).last()
    assert (saved is None and step == 1) or saved.name == f"checkpoint-{step - 1}"


@pytest.fixture
def hanging(demo_data, data_of, tmp_path):
    """Keys of a run whose record 5 has a video that never ends: a FIFO to which nobody writes."""
    records = json.loads(demo_data.train_json.read_text())
    os.mkfifo(tmp_path / "hangs.mp4")
    records[5]["video"] = str(tmp_path / "hangs.mp4")
    return {"data_config": data_of(records), "decode_time_limit_s": 1000}


def test_a_data_worker_that_hangs_is_named(configure, hanging):
    workers = {"dataloader_num_workers": 2, "dataloader_timeout_s": 2}
    launch = Launch(configure(per_device_train_batch_size=1, max_steps=30, save_steps=1, **workers, **hanging))
    assert launch.wait(60) == [1]
    (line,) = error_lines(launch)
    assert "a data worker hangs: no batch for 2 s (dataloader_timeout_s); worker " in line
    assert "has been reading " in line and "train.json, record 5 for " in line


def test_a_data_worker_that_is_killed_is_told(configure, hanging):
    launch = Launch(configure(per_device_train_batch_size=1, max_steps=30, dataloader_num_workers=1, **hanging))
    process = psutil.Process(launch.ranks[0].pid)
    assert launch.wait_for(lambda: bool(process.children())), launch.log[-3000:]
    process.children()[0].kill()
    assert launch.wait(60) == [1]
    (line,) = error_lines(launch)
    assert "error: DataLoader worker (pid(s) " in line


class Script:
    """`run_sft.sh` on two processes, as users start it. log: what it prints."""

    def __init__(self, config):
        command = ["bash", str(REPOSITORY / "run_scripts/run_sft.sh"), *flags_of(config)]
        environment = os.environ | {"NPROC": "2", "VIRTUAL_ENV": sys.prefix}
        self._path = Path(f"{config.output_dir}.log")
        with self._path.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        end = time.monotonic() + 120
        while "'text_loss'" not in self.log:
            assert self.process.poll() is None and time.monotonic() < end, self.log[-3000:]
            time.sleep(0.1)
        self.ranks = psutil.Process(self.process.pid).children()

    @property
    def log(self) -> str:
        return self._path.read_text()

    def wait(self, timeout_s: float) -> int:
        """The status; what is left over is killed."""
        try:
            return self.process.wait(timeout_s)
        finally:
            for left in [self.process, *(rank for rank in self.ranks if rank.is_running())]:
                left.kill()


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_others(configure):
    """The launcher ends what is left, and both say so."""
    script = Script(configure(per_device_train_batch_size=1, max_steps=5000, save_steps=1000))
    script.ranks[1].kill()
    assert script.wait(100) == 128 + signal.SIGKILL
    assert (
        "was killed by SIGKILL: out of memory?" in script.log
        and "error: another process of this run is lost or hangs" in script.log
    )


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_others(configure, monkeypatch):
    """One rank is frozen; the other waits for `ddp_timeout` and says so, and the launcher ends the frozen one."""
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "10")
    script = Script(configure(per_device_train_batch_size=1, max_steps=5000, save_steps=1000, ddp_timeout=10))
    script.ranks[1].suspend()
    assert script.wait(120) == 1
    assert "error: another process of this run is lost or hangs" in script.log


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_launcher_saves(configure, number):
    """As Slurm sends it; all ranks save at the same step, and the same command goes on from there."""
    options = {"per_device_train_batch_size": 1, "max_steps": 40, "save_steps": 1000}
    script = Script(configure(**options))
    script.process.send_signal(number)
    assert script.wait(60) != 0
    folder = Path(configure(**options).output_dir)
    saved = Checkpoints(folder).last()
    assert script.log.count(f"saved as {saved}; rerun the same command to resume") == 2, script.log[-3000:]
    again = Script(configure(**options))
    assert again.wait(120) == 0 and f"resuming from {saved}" in again.log
    assert len(curve(folder)) == 41  # each step once, and the end


@pytest.mark.parametrize(
    ("processes", "mode"),
    [(1, {}), pytest.param(2, SHARING["ZeRO-3"], marks=pytest.mark.slow)],
    ids=["one", "zero3"],
)
def test_a_full_disk_loses_nothing(configure, small_disk, tmp_path, processes, mode):
    """Another's file takes the room of the third checkpoint; without it the run goes on to the undisturbed result."""
    options = {"max_steps": 4, "save_steps": 1, "save_total_limit": 2, "per_device_train_batch_size": 2, **mode}
    whole = configure("whole", **options)
    run_through(whole, processes)
    place = small_disk(200_000_000)
    config = configure("small/run", **options)
    folder = Path(config.output_dir)
    launch = Launch(config, processes, log=tmp_path / "full.log")
    assert launch.wait_for(lambda: Checkpoints(folder).last() is not None), launch.log[-3000:]
    fill(place / "others")
    assert 1 in launch.wait(120), launch.log[-3000:]
    # who writes first, a checkpoint or the curves, tells
    told = f"{folder}: cannot save .*: the disk is full, .* free, about .* MB needed|: the disk is full. Make"
    assert any(re.search(told, line) for line in error_lines(launch)), launch.log[-3000:]
    assert problem(Checkpoints(folder).last()) is None
    (place / "others").unlink()
    run_through(config, processes)
    assert curve(folder) == curve(whole.output_dir)
    for name, tensor in weights(whole.output_dir).items():
        torch.testing.assert_close(weights(folder)[name], tensor, rtol=0, atol=1e-5 if mode else 0, msg=name)


def fill(path: Path):
    """Takes all room that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(100_000)):
                pass
        except OSError:
            return


def test_a_disk_too_small_for_a_checkpoint_is_refused_before_training(configure, small_disk, capsys):
    small_disk(5_000_000)
    with pytest.raises(ConfigError, match=r"4.9\d MB free, a checkpoint needs about 9.\d+ MB"):
        train(configure("small/run"))


def raised_while_saving(folder, error: Exception, needed_bytes: int = 1000) -> str:
    with pytest.raises(TrainingFault) as caught:
        with saving(folder, "checkpoint-3", needed_bytes):
            raise error
    return str(caught.value)


def test_only_a_full_disk_is_called_one(tmp_path):
    """What the system, torch's writer and safetensors report of files; the disk has room unless they say otherwise."""
    full = raised_while_saving(tmp_path, OSError(errno.ENOSPC, "No space left on device", "a.pt"))
    assert "cannot save checkpoint-3: the disk is full, " in full and "Make room and rerun the same command" in full
    inner = raised_while_saving(
        tmp_path, SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    )
    assert "the disk is full" in inner
    quota = raised_while_saving(tmp_path, OSError(errno.EDQUOT, "Disk quota exceeded", "a.pt"))
    assert "the disk quota is used up" in quota and "Make room" in quota and "disk is full" not in quota
    denied = raised_while_saving(tmp_path, OSError(errno.EACCES, "Permission denied", "a.pt"))
    assert "Permission denied: 'a.pt'. Fix that (" in denied and "disk is full" not in denied
    writer = RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
    assert "unexpected pos" in (told := raised_while_saving(tmp_path, writer)) and "disk is full" not in told
    assert "the disk is full" in raised_while_saving(tmp_path, writer, needed_bytes=10**18)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.distributed.DistBackendError("NCCL error in: ProcessGroupNCCL.cpp"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
    ],
    ids=["memory", "network", "kernel"],
)
def test_a_gpus_fault_while_saving_is_not_a_full_disk(tmp_path, error):
    with pytest.raises(type(error)) as caught:
        with saving(tmp_path, "checkpoint-3", 10**18):
            raise error
    assert caught.value is error


def test_a_full_gpu_is_told_in_one_line(tmp_path):
    with pytest.raises(TrainingFault) as caught:
        with report_faults(WorkerNotes(0), 1.0):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nMore")
    assert str(caught.value).startswith(
        "the memory of the GPU is full (CUDA out of memory). Set activation_checkpointing"
    )
