"""Every way of sharing a run among processes gives the loss curve of one process; real, on two CPU processes."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from swim.train.run import train

from .conftest import REPOSITORY
from .test_deepspeed import history, train_on_two

SCRIPTS = REPOSITORY / "run_scripts"
MODES = {
    "DDP": {},
    "ZeRO-2": {"deepspeed": SCRIPTS / "deepspeed/zero2.json"},
    "ZeRO-3": {"deepspeed": SCRIPTS / "deepspeed/zero3.json"},
    "FSDP2": {"fsdp": True, "fsdp_config": SCRIPTS / "fsdp/fsdp2.json"},
}


@pytest.mark.parametrize("mode", [pytest.param(mode, marks=pytest.mark.slow) for mode in MODES])
def test_two_processes_give_the_losses_of_one(configure, mode):
    changes = {"max_steps": 4, "max_grad_norm": 1.0, "weight_decay": 0.1}
    one = configure("one", per_device_train_batch_size=4, **changes)
    train(one)
    two = configure("two", per_device_train_batch_size=2, **MODES[mode], **changes)
    assert f"2 process(es), {mode}," in train_on_two(two)
    for ours, reference in zip(history(two.output_dir), history(one.output_dir), strict=True):
        for key in ("text_loss", "mask_loss", "grad_norm"):
            assert ours[key] == pytest.approx(reference[key], rel=2e-3), (key, ours["step"])
        assert ours["pairs"] == reference["pairs"]
    expected, got = (load_file(Path(config.output_dir) / "model.safetensors") for config in (one, two))
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert (got[name] - tensor).abs().max() < 1e-3, name
