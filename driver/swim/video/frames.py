"""Which frames of a video the model sees."""

from collections.abc import Sequence

import numpy as np


def frame_limit(total: int, fps: float, max_frames: int, max_fps: float | None = None) -> int:
    """How many of a clip's `total` frames may be sampled: at most `max_frames`, and at most `max_fps` a second.

    The bound by rate leaves two frames at least, or all where there are fewer.
    Examples: frame_limit(300, 30.0, 32, 2.0) -> 20;  frame_limit(300, 30.0, 8, 2.0) -> 8;
    frame_limit(300, 30.0, 32, 0.01) -> 2;  frame_limit(1, 30.0, 32, 2.0) -> 1.
    """
    limit = min(total, max_frames)
    return limit if max_fps is None else min(limit, max(2, round(total / fps * max_fps)))


def sample_frames(total: int, max_frames: int, annotated: Sequence[int] = ()) -> list[int]:
    """Frame numbers, sorted, at most `max_frames` of 0 to `total` - 1: annotated ones first, the rest uniform.

    A uniform choice of n among m takes the middles of n equal parts. More annotated frames than places are thinned
    uniformly themselves; those past the end are dropped.
    Examples: sample_frames(10, 2) -> [2, 7];  sample_frames(10, 3, [0, 9]) -> [0, 5, 9].
    """
    excluded = {number for number in annotated if 0 <= number < total}
    kept = _spread(sorted(excluded), max_frames)
    others = [number for number in range(total) if number not in excluded]
    return sorted(kept + _spread(others, max_frames - len(kept)))


def _spread(numbers: list[int], count: int) -> list[int]:
    """`count` of the numbers, or all, evenly spread."""
    if count >= len(numbers):
        return list(numbers)
    places = (np.arange(count) + 0.5) * len(numbers) / count
    return [numbers[int(place)] for place in places]
