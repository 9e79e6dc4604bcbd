"""Which frames of a video the model sees."""

import numpy as np


def sample_frames(total: int, max_frames: int, annotated: list[int] = ()) -> list[int]:
    """Frame numbers, sorted, at most `max_frames` of 0 to `total` - 1: annotated ones first, the rest uniform.

    A uniform choice of n among m takes the middles of n equal parts. More annotated frames than places are thinned
    uniformly themselves; those past the end are dropped.
    Examples: sample_frames(10, 2) -> [2, 7];  sample_frames(10, 3, [0, 9]) -> [0, 5, 9].
    """
    annotated = sorted({number for number in annotated if 0 <= number < total})
    kept = _spread(annotated, max_frames)
    excluded = set(annotated)
    others = [number for number in range(total) if number not in excluded]
    return sorted(kept + _spread(others, max_frames - len(kept)))


def _spread(numbers: list[int], count: int) -> list[int]:
    """`count` of the numbers, or all, evenly spread."""
    if count >= len(numbers):
        return list(numbers)
    places = (np.arange(count) + 0.5) * len(numbers) / count
    return [numbers[int(place)] for place in places]
