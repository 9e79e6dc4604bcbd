"""Uncertainty of scores: bootstrap intervals and the paired test of two runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

RESAMPLES = 10_000
_DRAWN_AT_ONCE = 20_000_000  # numbers: 160 MB


def bootstrap_interval(values: list[float], confidence: float = 0.95, seed: int = 0) -> tuple[float, float] | None:
    """(low, high) of the mean over items drawn with replacement: the percentile bootstrap. None below two values.

    The same values give the same interval: the draws depend on `seed` alone.
    """
    if len(values) < 2:
        return None
    array = np.asarray(values, dtype=np.float64)
    means = _resampled(array, seed).mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def paired_bootstrap(first: list[float], second: list[float], confidence: float = 0.95, seed: int = 0):
    """(difference, low, high, p) of mean(second) - mean(first) over the same items; p is two-sided, against 0."""
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    means = _resampled(differences, seed).mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = (float(edge) for edge in np.quantile(means, [tail, 1 - tail]))
    p = min(1.0, 2 * (1 + min((means <= 0).sum(), (means >= 0).sum())) / (1 + RESAMPLES))
    return float(differences.mean()), low, high, float(p)


@dataclass(frozen=True)
class WeightedMeans:
    """Of M columns: value, low and high, each float64[M]; draws: float64[RESAMPLES, M], the resampled means."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    draws: np.ndarray


def bootstrap_means(values: np.ndarray, weights: np.ndarray, confidence: float = 0.95, seed: int = 0) -> WeightedMeans:
    """Means of float[N, M] over N records of unequal weight, with percentile intervals over records drawn anew.

    The draws depend on N and `seed` alone, so those of two models on the same records are paired. Needs N > 0.
    """
    values, weights = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    count = len(weights)
    rng, even = np.random.default_rng(seed), np.full(count, 1 / count)
    weighted = np.c_[weights, weights[:, None] * values]
    at_once = max(1, _DRAWN_AT_ONCE // count)
    blocks = [min(at_once, RESAMPLES - first) for first in range(0, RESAMPLES, at_once)]
    total, *sums = np.concatenate([rng.multinomial(count, even, size=block) @ weighted for block in blocks]).T
    value = weights @ values / weights.sum()
    # a draw of weightless records alone has no mean; it counts as the mean of all
    draws = np.where(total[:, None] > 0, np.stack(sums, axis=1) / np.maximum(total, 1e-300)[:, None], value)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], axis=0)
    return WeightedMeans(value, low, high, draws)


def mcnemar(wins: int, losses: int) -> float:
    """Two-sided exact p of `wins` against `losses` among the items that changed: both equally likely by chance.

    Example: mcnemar(9, 1) is 2 * (1 + 10) / 2 ** 10 = 0.0215.
    """
    changed, fewer = wins + losses, min(wins, losses)
    if changed == 0:
        return 1.0
    return min(1.0, 2 * sum(math.comb(changed, k) for k in range(fewer + 1)) / 2**changed)


@overload
def rounded(value: float) -> float: ...
@overload
def rounded(value: float | None) -> float | None: ...
def rounded(value: float | None) -> float | None:
    """To four digits after the point, for reports."""
    return None if value is None else round(value, 4)


def rounded_interval(edges: Sequence[float] | None) -> list[float] | None:
    """Both edges as `rounded`."""
    return None if edges is None else [rounded(float(edge)) for edge in edges]


def interval_words(edges: Sequence[float] | None, form: str) -> str:
    """Example: interval_words((0.5, 0.75), ".2f") -> "0.50 to 0.75". None, an interval of one item, is no number."""
    return "one item: none" if edges is None else " to ".join(format(edge, form) for edge in edges)


def _resampled(values: np.ndarray, seed: int) -> np.ndarray:
    """float64[RESAMPLES, len(values)]: items drawn with replacement."""
    rng = np.random.default_rng(seed)
    return values[rng.integers(0, len(values), (RESAMPLES, len(values)))]
