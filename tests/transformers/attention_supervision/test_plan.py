"""Columns of the visual tokens, however a family of models places them: a video in one run, or in one for each step."""

from dataclasses import replace

import pytest
import torch
from transformers.attention_supervision import (
    Adapter,
    Supervision,
    VisualTokens,
    log_attention_maps,
    plan_maps,
    supervised_forward,
)
from transformers.attention_supervision.batch import IMAGE, VIDEO
from transformers.models.qwen2_5_vl.attention_supervision import encode_vision, find_visual_tokens

from ..inputs import SUPERVISION, Spec, make_batch, make_tiny_config, make_tiny_model
from ..inputs import VIDEO as VIDEO_TOKEN

LAYERS = [1, 3]


def visual_tokens(kinds: list[list[int]], images=(), videos=(), run_per_step: bool = True) -> VisualTokens:
    """Grids are merged ones: merge_size is 1."""
    grids = (torch.tensor(grids).view(-1, 3) for grids in (images, videos))
    return VisualTokens(torch.tensor(kinds), *grids, merge_size=1, run_per_step=run_per_step)


def columns_of(visual: VisualTokens, positions: list[list[int]]) -> tuple[list, list]:
    """(columns with None in the padding, cells per sample) of a plan of maps."""
    plan = plan_maps((0,), torch.tensor(positions), visual, None)
    cells = plan.cells.flatten(1)
    columns = [
        [place if real else None for place, real in zip(*row)]
        for row in zip(plan.rows.columns.tolist(), cells.tolist())
    ]
    return columns, cells.sum(1).tolist()


V, I = VIDEO, IMAGE  # noqa: E741


def test_cells_are_the_visual_tokens_in_their_order_whatever_lies_between():
    kinds = [[0, V, V, 0, V, V, 0, 0], [0, 0, I, I, I, 0, 0, 0]]
    visual = visual_tokens(kinds, images=[[1, 1, 3]], videos=[[2, 1, 2]])
    columns, cells = columns_of(visual, [[6], [7]])
    assert columns == [[1, 2, None, 4, 5, None], [2, 3, 4, None, None, None]]
    assert cells == [4, 3]


def test_one_run_for_a_video_gives_consecutive_columns():
    visual = visual_tokens([[0, 0, V, V, V, V, 0]], videos=[[2, 1, 2]], run_per_step=False)
    assert columns_of(visual, [[6]]) == ([[2, 3, 4, 5]], [4])


def test_runs_of_other_samples_are_not_taken():
    """The first sample, of which no token is asked for, has an image and two videos of 2 and 1 steps."""
    kinds = [[V, V, 0, I, 0, V, V, 0, V, 0, 0], [0, V, V, V, 0, V, V, V, 0, 0, 0]]
    visual = visual_tokens(kinds, images=[[1, 1, 1]], videos=[[2, 1, 2], [1, 1, 1], [2, 1, 3]])
    columns, cells = columns_of(visual, [[-1], [10]])
    assert columns[1] == [1, 2, 3, 5, 6, 7] and cells == [0, 6]


BAD = {
    "a short step": ([V, V, 0, V, 0, 0], [[2, 1, 2]], True, r"expected 2 \+ 2 visual tokens .* found 2 \+ 1"),
    "a missing step": ([V, V, 0, 0, 0, 0], [[2, 1, 2]], True, r"expected 2 \+ 2 visual tokens .* found 2$"),
    "two videos": ([V, 0, V, 0, V, 0], [[2, 1, 1], [1, 1, 1]], True, "expected one visual block .* found 2"),
    "more runs than steps": ([V, 0, V, 0, V, 0], [[2, 1, 1]], True, "more visual blocks than rows"),
    "a token between the steps": ([0, V, 0, 0, 0, V], [[2, 1, 1]], True, r"after the visual block \(at 6 or later\)"),
    "steps apart, where a video is one run": ([V, V, 0, V, V, 0], [[2, 1, 2]], False, "more visual blocks than rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_runs_that_are_not_the_grids_are_named(name):
    kinds, videos, run_per_step, message = BAD[name]
    position = 3 if name == "a token between the steps" else 5
    with pytest.raises(ValueError, match=f"sample 0: .*{message}|{message}"):
        columns_of(visual_tokens([kinds], videos=videos, run_per_step=run_per_step), [[position]])


def find_steps(*arguments) -> VisualTokens:
    return replace(find_visual_tokens(*arguments), run_per_step=True)


STEPWISE = Adapter(find_steps, encode_vision)


def stepwise_batch() -> tuple[dict, torch.Tensor]:
    """(a batch of one video of 2 steps with 3 words between, int64[24], the places of its visual tokens)."""
    spec = Spec("video", (2, 3, 4), after=8, tags={1: 0, 4: 1})
    batch = make_batch([spec])
    del batch["second_per_grid_ts"], batch["mm_token_type_ids"]
    middle = spec.first_cell + 12
    words = {"input_ids": 50, "attention_mask": 1, "labels": -100, "attn_labels": -100, "ins_contents_labels": -100}
    for name, value in words.items():
        parts = batch[name][:, :middle], torch.full((1, 3), value), batch[name][:, middle:]
        batch[name] = torch.cat(parts, dim=1)
    batch["position_ids"] = torch.arange(batch["input_ids"].shape[1]).expand(3, 1, -1)
    return batch, (batch["input_ids"][0] == VIDEO_TOKEN).nonzero().flatten()


def test_maps_and_loss_of_steps_with_text_between_are_those_of_eager_attention():
    config = make_tiny_config({"layers": LAYERS})
    batch, places = stepwise_batch()
    assert places[12] - places[11] == 4  # the steps really are apart
    inputs = {name: value for name, value in batch.items() if name not in (*SUPERVISION, "labels")}
    nouns = (batch["ins_contents_labels"][0] >= 0).nonzero().flatten()
    with torch.no_grad():
        eager = make_tiny_model(config, attn_implementation="eager")
        attentions = eager(**inputs, output_attentions=True, use_cache=False).attentions
    expected = torch.stack([attentions[layer][0].mean(0)[nouns][:, places].view(2, 2, 3, 4) for layer in LAYERS], 1)

    model = make_tiny_model(config)
    maps, cells = log_attention_maps(STEPWISE, model, nouns[None], LAYERS, **inputs)
    assert cells.all()
    torch.testing.assert_close(maps[0].exp(), expected, rtol=1e-4, atol=1e-6)

    supervision = Supervision(*(batch.pop(name) for name in Supervision._fields))
    output = supervised_forward(STEPWISE, model, supervision, **batch)
    fused = expected.mean(1)
    fused = fused / fused.sum((1, 2, 3), keepdim=True)
    torch.testing.assert_close(output.attention_maps[0], fused, rtol=1e-4, atol=1e-6)
    assert float(output.mask_loss.detach()) > 0
    with pytest.raises(ValueError, match="more visual blocks than rows"):  # the family's own rule: one run a video
        model(**batch, **supervision._asdict())
