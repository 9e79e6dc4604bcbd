"""The vision tower's attention without flash-attn: what a loop over the windows gives, in fewer calls."""

import gc
from collections import Counter

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.qwen2_5_vl import window_attention as module
from transformers.models.qwen2_5_vl.window_attention import window_attention

from .inputs import make_tiny_config, make_tiny_model

LENGTHS = {
    "equal": [16] * 6,
    "two lengths": [16, 16, 8, 16, 8, 8, 16],
    "all different": [3, 16, 8, 5],
    "one": [24],
}
# Two videos and a still whose sides are no multiples of a window's, 4 x 4: windows of 16, 8 and 4, frames of 60 and 24.
GRIDS = torch.tensor([[2, 6, 10], [1, 10, 6], [3, 4, 6]])


def bounds_of(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def packed(lengths: list[int], dtype=torch.float32, device="cpu") -> list[torch.Tensor]:
    """Query, key and value, [1, heads, S, D], that take gradients."""
    generator = torch.Generator().manual_seed(0)
    parts = (torch.randn(1, 2, sum(lengths), 16, generator=generator) for _ in range(3))
    return [part.to(device, dtype).requires_grad_() for part in parts]


def loop(query, key, value, lengths: list[int], scaling: float) -> torch.Tensor:
    """[1, S, heads, D] by the definition, a window at a time, in float64."""
    parts = zip(*(part.double().split(lengths, dim=2) for part in (query, key, value)))
    outputs = [((q @ k.mT * scaling).softmax(-1) @ v).transpose(1, 2) for q, k, v in parts]
    return torch.cat(outputs, dim=1)


class Attend:
    """Attention over whole windows that counts its calls."""

    def __init__(self, scaling: float):
        self.scaling, self.calls = scaling, 0

    def __call__(self, query, key, value):
        self.calls += 1
        return scaled_dot_product_attention(query, key, value, scale=self.scaling).transpose(1, 2)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_outputs_and_gradients_are_those_of_a_loop(lengths, implementation):
    inputs, expected_inputs, attend = packed(lengths), packed(lengths), Attend(0.3)
    found = window_attention(attend, *inputs, bounds_of(lengths), 0.3, implementation)
    expected = loop(*expected_inputs, lengths, 0.3)
    weights = torch.linspace(-1, 1, found.numel()).reshape(found.shape)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)
    for one, other in zip(inputs, expected_inputs):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    # eager keeps the weights of its windows: it takes them one by one
    assert attend.calls == (len(lengths) if implementation == "eager" else len(set(lengths)))


def tower(attention: str):
    config = make_tiny_config()
    config.vision_config.depth = 4
    return make_tiny_model(config, attn_implementation=attention).model.visual.train()


def run_tower(visual) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The tower's merged output for GRIDS, and the gradients of its parameters."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(int(GRIDS.prod(1).sum()), 3 * 2 * 14 * 14, generator=generator)
    output = visual(pixels, grid_thw=GRIDS).pooler_output
    weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
    (output * weights).sum().backward()
    return output.detach(), {name: parameter.grad for name, parameter in visual.named_parameters()}


def test_the_tower_gives_the_same_by_sdpa_and_by_eager():
    (found, gradients), (expected, expected_gradients) = (run_tower(tower(name)) for name in ("sdpa", "eager"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        # float32 sums over 300 patches: five digits of the largest entry
        torch.testing.assert_close(
            gradient, expected_gradients[name], rtol=1e-3, atol=1e-5 * gradient.abs().max().item()
        )


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.seen[operation.name()] += 1
        return operation(*args, **(kwargs or {}))


def test_each_kind_of_layer_looks_at_its_bounds_once():
    """Three layers attend within windows, one within frames: two tensors of bounds reach the host, not four."""
    with Operations() as watched:
        run_tower(tower("sdpa"))
    assert watched.seen["aten::_unique2"] == 2
    attention = sum(count for name, count in watched.seen.items() if name.startswith("aten::_scaled_dot_product"))
    backward = sum(count for name, count in watched.seen.items() if "scaled_dot_product" in name and "backward" in name)
    assert attention - backward == 3 * 3 + 2  # windows of three lengths, frames of two


def test_bounds_that_change_in_place_are_read_again():
    bounds, inputs = bounds_of([8, 8, 4, 4]), packed([8, 8, 4, 4])
    window_attention(Attend(0.3), *inputs, bounds, 0.3, "sdpa")
    bounds.copy_(bounds_of([4, 4, 8, 8]))
    found = window_attention(Attend(0.3), *inputs, bounds, 0.3, "sdpa")
    torch.testing.assert_close(found, loop(*inputs, [4, 4, 8, 8], 0.3).float(), rtol=1e-5, atol=1e-6)


def test_works_in_inference_mode():
    with torch.inference_mode():
        bounds, inputs = bounds_of([8, 8, 4]), packed([8, 8, 4])
        found = window_attention(Attend(0.3), *inputs, bounds, 0.3, "sdpa")
    torch.testing.assert_close(found, loop(*inputs, [8, 8, 4], 0.3).float(), rtol=1e-5, atol=1e-6)


def test_bounds_that_nobody_needs_are_forgotten():
    gc.collect()
    before, bounds = len(module._known), bounds_of([8, 8, 4])
    window_attention(Attend(0.3), *packed([8, 8, 4]), bounds, 0.3, "sdpa")
    assert len(module._known) == before + 1
    del bounds
    gc.collect()
    assert len(module._known) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_torchs_variable_length_kernel_gives_what_the_loop_gives(lengths):
    inputs, attend = packed(lengths, torch.bfloat16, "cuda"), Attend(0.3)
    found = window_attention(attend, *inputs, bounds_of(lengths).cuda(), 0.3, "sdpa")
    assert attend.calls == 0
    # bf16 keeps 8 bits of weights and values of about 1
    torch.testing.assert_close(found.double(), loop(*inputs, lengths, 0.3), rtol=0.02, atol=0.02)
