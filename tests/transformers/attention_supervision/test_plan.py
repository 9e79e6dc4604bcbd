"""Columns of the visual tokens, however a family of models places them: a video in one run, or in one for each step."""

import pytest
import torch
from transformers.attention_supervision import VisualTokens, plan_maps
from transformers.attention_supervision.batch import IMAGE, VIDEO


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
