"""The fork on a GPU: its loss, maps and gradients are the CPU's, and supervision makes the host wait once."""

import importlib.util
import warnings

import pytest
import torch

from .inputs import Spec, make_batch, make_tiny_config, make_tiny_model, without_supervision
from .test_attention_supervision import MIXED, PAPER, RELEASE, assert_same_gradients, gradients_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_flash_attn = pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="needs flash-attn")
ATTENTION = ["sdpa", pytest.param("flash_attention_2", marks=needs_flash_attn)]
# bf16 keeps 8 bits. Its roundings over 4 layers move a tiny model's gradient by a few percent of its norm, and that of a
# single parameter whose terms nearly cancel (a key's bias) by more; a wrong row, column or mask moves it by its norm.
BF16_GRADIENT, BF16_ONE_GRADIENT = 0.1, 0.4


@pytest.fixture(autouse=True)
def exact_float32():
    """TF32 keeps 10 bits of float32's 23; cuDNN takes it for convolutions unless told not to."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def on_gpu(batch: dict) -> dict:
    return {name: value.cuda() for name, value in batch.items()}


def model_with(options: dict, attention: str = "sdpa"):
    return make_tiny_model(make_tiny_config(options), attn_implementation=attention).train()


def cpu_copies(gradients: dict) -> dict:
    return {name: None if value is None else value.float().cpu() for name, value in gradients.items()}


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("options", [PAPER, RELEASE], ids=["paper", "release"])
def test_float32_gives_the_cpus_loss_maps_and_gradients(options, padding_side):
    batch, model = make_batch(MIXED, padding_side), model_with(options)
    expected = model(**batch)
    gradients = gradients_of(model, expected.loss)
    model = model_with(options).cuda()
    found = model(**on_gpu(batch))
    for name in ("text_loss", "mask_loss", "attention_maps", "grounding"):
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(expected, name), rtol=1e-4, atol=1e-6)
    assert_same_gradients(cpu_copies(gradients_of(model, found.loss)), gradients, 1e-3)


@pytest.mark.parametrize("checkpointing", [None, False, True], ids=["kept", "non-reentrant", "reentrant"])
@pytest.mark.parametrize("attention", ATTENTION)
def test_bf16_is_near_the_cpus_float32(attention, checkpointing):
    batch, model = make_batch(MIXED), model_with(PAPER)
    expected = model(**batch)
    gradients = gradients_of(model, expected.loss)
    model = model_with(PAPER, attention).to("cuda", torch.bfloat16)
    if checkpointing is not None:
        model.activation_checkpointing_enable({"use_reentrant": checkpointing})
    found = model(**on_gpu(batch))
    torch.testing.assert_close(found.text_loss.cpu(), expected.text_loss, rtol=0.02, atol=0)
    torch.testing.assert_close(found.mask_loss.cpu(), expected.mask_loss, rtol=0.02, atol=0)
    found = cpu_copies(gradients_of(model, found.loss))
    assert_same_gradients(found, gradients, BF16_ONE_GRADIENT)
    names = [name for name, gradient in gradients.items() if gradient is not None]
    one, other = (torch.cat([side[name].flatten() for name in names]) for side in (found, gradients))
    assert (one - other).norm() <= BF16_GRADIENT * other.norm()


@needs_flash_attn
@pytest.mark.parametrize("padding_side", ["right", "left"])
def test_flash_attention_masks_the_padding_as_sdpa_does(padding_side):
    batch = on_gpu(make_batch(MIXED, padding_side))
    losses = [
        model_with(PAPER, name).to("cuda", torch.bfloat16)(**batch).loss for name in ("sdpa", "flash_attention_2")
    ]
    torch.testing.assert_close(*losses, rtol=0.01, atol=0)


def waits_of(work) -> list[str]:
    """Where `work` makes the host wait for the GPU, as torch reports it."""
    work()  # first calls load kernels and libraries
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [f"{note.filename}:{note.lineno}" for note in caught if "synchronizing CUDA operation" in str(note.message)]


@pytest.mark.parametrize("attention", ATTENTION)
def test_supervision_makes_the_host_wait_once(attention):
    """Beside a stock forward of the language model that is given the same vision output and positions."""
    spec = Spec("video", (2, 3, 4), before=150, after=220, tags={1: 0, 2: 0, 40: 1})
    batch = on_gpu(make_batch([spec]))
    model = model_with({"layers": [1, 3]}, attention).to("cuda", torch.bfloat16)
    names = ("input_ids", "attention_mask", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts")
    batch["position_ids"], _ = model.model.get_rope_index(**{name: batch[name] for name in names})
    pixels = batch.pop("pixel_values_videos").to(torch.bfloat16)
    batch["mm_encoder_outputs"] = {"video": model.model.get_video_features(pixels, batch["video_grid_thw"])}
    text = {name: value for name, value in without_supervision(batch).items() if name != "labels"}
    stock = waits_of(lambda: model.model(**text, use_cache=False))
    supervised = waits_of(lambda: model(**batch))
    assert len(supervised) - len(stock) == 1, (stock, supervised)
