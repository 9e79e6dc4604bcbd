"""J, F and boxes against slow references and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swim.attention.grounding import THRESHOLDS
from swim.attention.segmentation import boundary, box_of, box_overlap, region, region_by_threshold, upsampled


def square(size: int, top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def slow_boundary_of(mask: np.ndarray) -> set[tuple[int, int]]:
    """Pixels that differ from the neighbour right, below or diagonally below, where there is one."""
    height, width = mask.shape
    found = set()
    for i in range(height):
        for j in range(width):
            right = mask[i, min(j + 1, width - 1)]
            below = mask[min(i + 1, height - 1), j]
            diagonal = mask[min(i + 1, height - 1), min(j + 1, width - 1)]
            if mask[i, j] != right or mask[i, j] != below or mask[i, j] != diagonal:
                found.add((i, j))
    return found


def slow_boundary(found: np.ndarray, mask: np.ndarray) -> float:
    radius = math.ceil(0.008 * math.sqrt(mask.shape[0] ** 2 + mask.shape[1] ** 2))
    one, other = slow_boundary_of(found), slow_boundary_of(mask)
    if not one and not other:
        return 1.0
    if not one or not other:
        return 0.0

    def share_near(points, targets) -> float:
        near = sum(any((i - y) ** 2 + (j - x) ** 2 <= radius**2 for y, x in targets) for i, j in points)
        return near / len(points)

    precision, recall = share_near(one, other), share_near(other, one)
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


masks = st.integers(1, 12).flatmap(
    lambda width: st.lists(st.lists(st.booleans(), min_size=width, max_size=width), min_size=1, max_size=12)
)


@settings(max_examples=80)
@given(masks, st.randoms(use_true_random=False))
def test_any_two_masks_have_the_references_scores(rows, random):
    mask = np.array(rows)
    found = np.array([[value if random.random() < 0.7 else not value for value in row] for row in rows])
    assert boundary(found, mask) == pytest.approx(slow_boundary(found, mask))
    pairs = [(f, m) for f, m in zip(found.ravel(), mask.ravel()) if f or m]
    assert region(found, mask) == pytest.approx(sum(f and m for f, m in pairs) / len(pairs) if pairs else 1.0)


def test_a_square_that_is_moved():
    """Of 20 x 20 px, moved by 5: J is 15 / 25. On a frame of 100 px near means 2 px: the left and right sides are lost."""
    mask, moved = square(100, 40, 40, 20), square(100, 40, 45, 20)
    assert region(mask, moved) == pytest.approx(15 / 25) and region(mask, mask) == boundary(mask, mask) == 1
    assert boundary(moved, mask) == pytest.approx(slow_boundary(moved, mask)) and 0.3 < boundary(moved, mask) < 0.7
    assert boundary(square(100, 40, 41, 20), mask) == 1.0  # one px is near
    assert boundary(square(100, 0, 0, 5), mask) == 0.0


def test_what_is_empty_has_defined_scores():
    empty, full = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    assert region(empty, empty) == boundary(empty, empty) == 1.0
    assert region(empty, full) == 0.0 and boundary(empty, square(8, 2, 2, 3)) == 0.0
    assert boundary(full, full) == 1.0  # neither has a boundary: the frame's edge is none


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_j_by_threshold_is_j_of_each_mask(seed):
    generator = np.random.default_rng(seed)
    heat = generator.choice([0.0, 0.05, 0.33, 0.5, 0.95, 1.0, generator.random()], (7, 9)).astype(np.float32)
    mask = generator.random((7, 9)) < 0.4
    expected = [region(heat >= np.float32(threshold), mask) for threshold in THRESHOLDS]
    assert region_by_threshold(heat, mask) == pytest.approx(expected)


def test_boxes_are_those_of_the_largest_part():
    mask = square(20, 2, 3, 4) | square(20, 10, 10, 6)
    assert box_of(mask) == (10, 10, 16, 16) and box_of(np.zeros((3, 3), bool)) is None
    assert box_overlap((0, 0, 4, 4), (2, 2, 6, 6)) == pytest.approx(4 / 28)
    assert box_overlap((0, 0, 2, 2), (2, 2, 4, 4)) == 0 and box_overlap(None, (0, 0, 1, 1)) == 0
    assert box_overlap((1, 1, 3, 3), (1, 1, 3, 3)) == 1


def test_a_map_is_enlarged_between_the_middles_of_its_cells():
    heat = upsampled(torch.tensor([[0.0, 1.0]]), 2, 8)
    assert heat[0].tolist() == pytest.approx([0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1]) and (heat[0] == heat[1]).all()
