"""Scores of hand-made maps: exactly the known values, and readable references for random ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swim.attention.grounding import SCORES, THRESHOLDS, TOP_PERCENT, score_maps

CELLS = 40


def object_of(count: int) -> torch.Tensor:
    on_object = torch.zeros(CELLS, dtype=torch.bool)
    on_object[1 : 1 + count] = True
    return on_object


def known(scores: dict, name: str) -> float:
    return pytest.approx(float(scores[name]), abs=1e-6)


@pytest.mark.parametrize("count", [1, 8, CELLS - 1])
def test_a_uniform_map_scores_the_share_of_the_object(count):
    scores = score_maps(torch.full((CELLS,), 0.3), object_of(count))
    assert [count / CELLS] * len(SCORES) == [known(scores, name) for name in SCORES]
    assert scores["iou"].tolist() == [0.0] * len(THRESHOLDS)


@pytest.mark.parametrize("count", [1, 8, CELLS - 1])
def test_a_perfect_map_scores_one(count):
    scores = score_maps(object_of(count).float(), object_of(count))
    reachable = [min(1.0, count / max(1, CELLS * k // 100)) for k in TOP_PERCENT]
    assert [scores[f"game_point_{k}"].item() for k in TOP_PERCENT] == pytest.approx(reachable)
    assert [scores[name].item() for name in ("pointing", "inside", "average_precision")] == [1.0] * 3
    assert scores["iou"].tolist() == [1.0] * len(THRESHOLDS)


@pytest.mark.parametrize("count", [1, 8])
def test_an_inverted_map_scores_nothing_but_what_is_left(count):
    scores = score_maps((~object_of(count)).float(), object_of(count))
    assert [scores[name].item() for name in SCORES[:-1]] == [0.0] * (len(SCORES) - 1)
    assert count / CELLS == known(scores, "average_precision")  # the object's cells come last, all at once
    assert scores["iou"].tolist() == [0.0] * len(THRESHOLDS)


def test_half_of_the_highest_cells():
    maps = torch.zeros(CELLS)
    maps[[3, 20]] = 1.0  # one of two equal peaks lies on the object of four cells
    scores = score_maps(maps, object_of(4))
    assert [scores[f"game_point_{k}"].item() for k in TOP_PERCENT] == pytest.approx([0.5, 0.5, (1 + 2 * 3 / 38) / 4])
    assert scores["pointing"].item() == scores["inside"].item() == 0.5
    assert scores["iou"].tolist() == pytest.approx([1 / 5] * len(THRESHOLDS))
    assert scores["average_precision"].item() == pytest.approx((0.5 + 3 * 4 / CELLS) / 4)


def reference(values: list[float], on: list[bool], count: int) -> float:
    """Mean share on the object over every order of equal cells, by counting."""
    ranked = sorted(set(values), reverse=True)
    left, share = count, 0.0
    for value in ranked:
        group = [o for v, o in zip(values, on) if v == value]
        take = min(left, len(group))
        share += take * sum(group) / len(group)
        left -= take
    return share / count


def precision_reference(values: list[float], on: list[bool]) -> float:
    parts = []
    for value, hit in zip(values, on):
        if hit:
            above = [o for v, o in zip(values, on) if v >= value]
            parts.append(sum(above) / len(above))
    return sum(parts) / len(parts)


@given(st.data())
def test_scores_equal_counting(data):
    size = data.draw(st.integers(1, 60))
    values = data.draw(st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0, 3.0]), min_size=size, max_size=size))
    on = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    on[data.draw(st.integers(0, size - 1))] = True
    values[data.draw(st.integers(0, size - 1))] = 2.0
    scores = score_maps(torch.tensor(values), torch.tensor(on))
    assert reference(values, on, 1) == known(scores, "pointing")
    for k in TOP_PERCENT:
        assert reference(values, on, max(1, size * k // 100)) == known(scores, f"game_point_{k}")
    assert precision_reference(values, on) == known(scores, "average_precision")
    assert sum(v for v, o in zip(values, on) if o) / sum(values) == known(scores, "inside")
    low, high = min(values), max(values)
    for threshold, found in zip(THRESHOLDS, scores["iou"].tolist()):
        chosen = [high > low and (v - low) / (high - low) >= threshold for v in values]
        union = sum(c or o for c, o in zip(chosen, on))
        assert found == pytest.approx(sum(c and o for c, o in zip(chosen, on)) / union, abs=1e-6), threshold


def test_many_maps_at_once_are_each_scored_alone():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 5, CELLS, generator=generator)
    on_object = torch.rand(5, CELLS, generator=generator) < 0.3
    together = score_maps(maps, on_object)
    for layer in range(3):
        for pair in range(5):
            alone = score_maps(maps[layer, pair], on_object[pair])
            for name, value in alone.items():
                torch.testing.assert_close(together[name][layer, pair], value)
