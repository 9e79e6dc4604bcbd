"""Every way of sharing a run among processes gives the loss curve of one process; real, on two CPU processes."""

import pytest

from swim.models import MODEL_TYPES
from swim.train.run import train

from .conftest import SHARING, log_entries, weights
from .test_deepspeed import train_on_two

MODES = ("DDP", "ZeRO-2", "ZeRO-3", "FSDP2")  # offload is test_deepspeed.py


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("mode", MODES)
def test_two_processes_give_the_losses_of_one(configure, tiny_model_dirs, mode, model_type):
    model = tiny_model_dirs[model_type]
    changes = {"model_name_or_path": model, "max_steps": 4, "max_grad_norm": 1.0, "weight_decay": 0.1}
    one = configure("one", per_device_train_batch_size=4, **changes)
    train(one)
    two = configure("two", per_device_train_batch_size=2, **SHARING[mode], **changes)
    assert f"2 process(es), {mode}," in train_on_two(two)
    logged = (log_entries(config.output_dir, "text_loss") for config in (two, one))
    for ours, reference in zip(*logged, strict=True):
        for key in ("text_loss", "mask_loss", "grad_norm"):
            assert ours[key] == pytest.approx(reference[key], rel=2e-3), (key, ours["step"])
        assert ours["pairs"] == reference["pairs"]
    expected, got = (weights(config.output_dir) for config in (one, two))
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert (got[name] - tensor).abs().max() < 1e-3, name
