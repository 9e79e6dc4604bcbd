"""Intervals and paired tests against values that are known."""

import math

import numpy as np
import pytest

from swim.eval import stats
from swim.eval.stats import bootstrap_interval, bootstrap_means, interval_words, mcnemar, paired_bootstrap


def test_the_interval_of_a_share_is_the_normal_one():
    values = [1.0] * 300 + [0.0] * 700
    low, high = bootstrap_interval(values)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - half, abs=0.003) and high == pytest.approx(0.3 + half, abs=0.003)
    assert bootstrap_interval(values) == (low, high)


def test_edges():
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([2.0]) is None  # one item says nothing of its spread
    assert interval_words(bootstrap_interval([2.0]), ".2f") == "one item: none"
    assert interval_words((0.5, 0.75), ".2f") == "0.50 to 0.75"
    assert paired_bootstrap([1, 2, 3], [1, 2, 3]) == (0.0, 0.0, 0.0, 1.0)


def test_a_paired_difference():
    first, second = [0.0, 1.0] * 100, [1.0, 1.0] * 100
    difference, low, high, p = paired_bootstrap(first, second)
    assert difference == 0.5 and 0.42 < low < 0.45 and 0.55 < high < 0.58 and p < 0.001
    back = paired_bootstrap(second, first)
    assert back[0] == -0.5 and back[3] < 0.001


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (9, 1, 2 * 11 / 1024), (1, 9, 2 * 11 / 1024), (5, 5, 1.0), (10, 0, 2 / 1024)],
)
def test_mcnemar_is_the_exact_sign_test(wins, losses, p):
    assert mcnemar(wins, losses) == pytest.approx(p)


def test_many_records_are_drawn_in_blocks_as_few_are(monkeypatch):
    rng = np.random.default_rng(1)
    values, weights = rng.random((50, 2)), rng.integers(0, 3, 50)
    whole = bootstrap_means(values, weights)
    monkeypatch.setattr(stats, "_DRAWN_AT_ONCE", 7 * 50)
    blocks = bootstrap_means(values, weights)
    np.testing.assert_allclose(blocks.draws, whole.draws, rtol=1e-12)
    assert blocks.low == pytest.approx(whole.low) and blocks.high == pytest.approx(whole.high)
