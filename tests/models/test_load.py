"""Which attention a model is loaded with."""

import pytest
import torch

from swim.models import load


@pytest.mark.parametrize(
    "device, installed, capability, expected",
    [
        ("cpu", (2, 3), 9, "sdpa"),
        ("cuda", (), 9, "sdpa"),
        ("cuda", (2,), 9, "flash_attention_2"),
        ("cuda", (2, 3), 8, "flash_attention_2"),
        ("cuda", (2, 3), 9, {"text_config": "flash_attention_3", "vision_config": "flash_attention_2"}),
        ("cuda", (3,), 9, {"text_config": "flash_attention_3", "vision_config": "sdpa"}),
        ("cuda", (3,), 10, "sdpa"),
    ],
)
def test_the_fastest_attention_that_is_installed(monkeypatch, device, installed, capability, expected):
    """What is installed, and on which GPU, is torch's and transformers' to say."""
    for version in (2, 3):
        monkeypatch.setattr(load, f"is_flash_attn_{version}_available", lambda version=version: version in installed)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (capability, 0))
    assert load.best_attention(device) == expected


def test_parts_of_a_model_have_an_attention_each(tiny_model_dir):
    model = load.load_weights(tiny_model_dir, attn_implementation={"text_config": "eager", "vision_config": "sdpa"})
    found = {name: getattr(model.config, name)._attn_implementation for name in load.ATTENTION_PARTS}
    assert found == {"text_config": "eager", "vision_config": "sdpa"}
    assert model.model.language_model.config._attn_implementation == "eager"
