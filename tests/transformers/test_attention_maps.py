"""Maps of chosen tokens against eager attention: batches, padding on both sides, images, sliding windows, many rows."""

import pytest
import torch
from transformers.attention_supervision import forward

from .inputs import IMAGE, SUPERVISION, VIDEO, Spec, family, make_batch, make_tiny_config, make_tiny_model, offset_of

pytestmark = pytest.mark.usefixtures("each_family")

SPECS = [
    Spec(grid=(2, 3, 4), after=7),
    Spec(visual="image", grid=(1, 2, 5), before=1, after=4),
    Spec(grid=(3, 2, 2), after=9),
]


def log_attention_maps(*arguments, **inputs):
    return family().adapter.log_attention_maps(*arguments, **inputs)


def inputs_of(batch: dict) -> dict:
    return {name: value for name, value in batch.items() if name not in (*SUPERVISION, "labels")}


def eager_maps(batch: dict, sample: int, position: int, spec: Spec, config=None) -> torch.Tensor:
    """float32[L, T, H, W] from whole matrices."""
    model = make_tiny_model(config, attn_implementation="eager")
    with torch.no_grad():
        attentions = model(**inputs_of(batch), output_attentions=True, use_cache=False).attentions
    visual = torch.isin(batch["input_ids"][sample], torch.tensor([VIDEO, IMAGE]))
    return torch.stack([layer[sample, :, position, visual].mean(0).view(spec.grid) for layer in attentions])


@pytest.mark.parametrize("side", ["left", "right"])
def test_maps_of_a_padded_batch_equal_eager_attention(side):
    batch = make_batch(SPECS, padding_side=side)
    length = batch["input_ids"].shape[1]
    starts = [offset_of(spec, length, side) + spec.behind for spec in SPECS]
    positions = torch.tensor([[starts[0] + 5, starts[0]], [starts[1] + 2, -1], [starts[2] + 1, starts[2] + 8]])
    maps, cells = log_attention_maps(make_tiny_model(), positions, [0, 3], **inputs_of(batch))
    assert maps.shape == (3, 2, 2, 3, 3, 5) and cells.shape == (3, 1, 3, 3, 5)
    for sample, spec in enumerate(SPECS):
        t, h, w = spec.grid
        assert cells[sample, 0].nonzero().amax(0).tolist() == [t - 1, h - 1, w - 1] and cells[sample].sum() == t * h * w
        for row, position in enumerate(positions[sample].tolist()):
            if position >= 0:
                expected = eager_maps(batch, sample, position, spec)[[0, 3]]
                torch.testing.assert_close(maps[sample, row, :, :t, :h, :w].exp(), expected, rtol=1e-4, atol=1e-6)


def test_heads_kept_apart_are_eager_attentions_own_and_their_mean_is_the_map():
    spec = SPECS[0]
    batch = make_batch([spec])
    positions = torch.tensor([[spec.behind, spec.behind + 5]])
    heads, _ = log_attention_maps(make_tiny_model(), positions, [1, 2], by_head=True, **inputs_of(batch))
    model = make_tiny_model(attn_implementation="eager")
    with torch.no_grad():
        attentions = model(**inputs_of(batch), output_attentions=True, use_cache=False).attentions
    visual = torch.isin(batch["input_ids"][0], torch.tensor([VIDEO, IMAGE]))
    for row, position in enumerate(positions[0].tolist()):
        for place, layer in enumerate((1, 2)):
            expected = attentions[layer][0, :, position, visual].view(-1, *spec.grid)
            torch.testing.assert_close(heads[0, row, place].exp(), expected, rtol=1e-4, atol=1e-6)
    maps, _ = log_attention_maps(make_tiny_model(), positions, [1, 2], **inputs_of(batch))
    torch.testing.assert_close(heads.exp().mean(3), maps.exp(), rtol=1e-5, atol=1e-8)


def test_a_sliding_window_hides_what_eager_hides():
    if not hasattr(make_tiny_config().text_config, "sliding_window"):
        pytest.skip("this family has none")
    config = make_tiny_config(use_sliding_window=True, sliding_window=12, max_window_layers=2)
    spec = Spec(grid=(2, 3, 4), after=8)
    batch = make_batch([spec])
    position = spec.behind + 5
    maps, _ = log_attention_maps(make_tiny_model(config), torch.tensor([[position]]), [0, 1, 2, 3], **inputs_of(batch))
    expected = eager_maps(batch, 0, position, spec, config)
    torch.testing.assert_close(maps[0, 0].exp(), expected, rtol=1e-4, atol=1e-6)
    assert (expected[3] == 0).sum() > (expected[0] == 0).sum() == 0


def test_rows_in_groups_equal_rows_at_once(monkeypatch):
    spec = Spec(after=12)
    batch, positions = make_batch([spec]), torch.arange(spec.behind, spec.behind + 12)[None]
    maps = []
    for at_once in (5, 12):
        monkeypatch.setattr(forward, "ROWS_AT_ONCE", at_once)
        maps.append(log_attention_maps(make_tiny_model(), positions, **inputs_of(batch))[0])
    torch.testing.assert_close(maps[0], maps[1])


def test_positions_outside_the_text_are_named():
    spec = Spec(after=4)
    batch = make_batch([spec])
    beyond = rf"positions: expected tokens below {spec.length}, or -1, found \[99\]"
    for position, message in ((99, beyond), (-2, r"found \[-2\]")):
        with pytest.raises(ValueError, match=message):
            log_attention_maps(make_tiny_model(), torch.tensor([[position]]), **inputs_of(batch))
    with pytest.raises(ValueError, match="after the visual block"):
        log_attention_maps(make_tiny_model(), torch.tensor([[spec.columns[0]]]), **inputs_of(batch))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_maps_on_a_gpu_equal_eager_attention(attention):
    if attention == "flash_attention_2":
        pytest.importorskip("flash_attn")
    spec = Spec(grid=(2, 3, 4), after=7)
    batch = {name: value.cuda() for name, value in inputs_of(make_batch([spec])).items()}
    model = make_tiny_model(attn_implementation=attention).to("cuda", torch.bfloat16)
    maps, _ = log_attention_maps(model, torch.tensor([[spec.behind + 3]]), [0, 3], **batch)
    expected = eager_maps({name: value.cpu() for name, value in batch.items()}, 0, spec.behind + 3, spec)[[0, 3]]
    torch.testing.assert_close(maps[0, 0].exp().cpu(), expected, rtol=0.1, atol=1e-2)
