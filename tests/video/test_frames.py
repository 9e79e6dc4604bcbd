"""The frame sampler."""

from hypothesis import given
from hypothesis import strategies as st

from swim.video.frames import frame_limit, sample_frames

totals, most = st.integers(1, 300), st.integers(1, 40)
annotated_lists = st.lists(st.integers(-5, 320), max_size=60)
rates, greatest_rates = st.floats(0.1, 120), st.none() | st.floats(0.01, 60)


def test_examples():
    assert sample_frames(10, 2) == [2, 7]
    assert sample_frames(10, 3, [0, 9]) == [0, 5, 9]
    assert sample_frames(5, 32) == [0, 1, 2, 3, 4]
    assert sample_frames(1, 1) == [0]
    assert sample_frames(8, 4) == [1, 3, 5, 7]
    assert sample_frames(100, 4, [0]) == [0, 17, 50, 83]
    assert sample_frames(12, 3, range(12)) == [2, 6, 10]  # more annotated ones than places: thinned evenly
    assert sample_frames(10, 2, [3, 3, 99, -1]) == [3, 5]
    assert sample_frames(10, 2, [4, 8]) == [4, 8]


@given(totals, most, annotated_lists)
def test_sorted_distinct_within_the_video_and_as_many_as_fit(total, max_frames, annotated):
    numbers = sample_frames(total, max_frames, annotated)
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(total, max_frames)
    assert set(numbers) <= set(range(total))


@given(totals, most, annotated_lists)
def test_annotated_frames_survive_frame_0_included(total, max_frames, annotated):
    annotated = [0, *annotated]
    usable = {number for number in annotated if 0 <= number < total}
    numbers = set(sample_frames(total, max_frames, annotated))
    if len(usable) <= max_frames:
        assert usable <= numbers and 0 in numbers
    else:
        assert numbers <= usable


@given(totals, most, annotated_lists)
def test_order_and_repetition_of_the_annotated_do_not_matter(total, max_frames, annotated):
    assert sample_frames(total, max_frames, annotated[::-1] * 2) == sample_frames(total, max_frames, annotated)


@given(totals, most)
def test_without_annotation_the_choice_is_even(total, max_frames):
    numbers = sample_frames(total, max_frames)
    gaps = [after - before for before, after in zip(numbers, numbers[1:])]
    assert not gaps or max(gaps) - min(gaps) <= 1
    # both ends are left out by half a gap, give or take the rounding
    assert abs(numbers[0] - (total - 1 - numbers[-1])) <= 1


def test_examples_of_the_limit():
    assert frame_limit(300, 30.0, 32) == 32 and frame_limit(20, 30.0, 32) == 20
    assert frame_limit(300, 30.0, 32, 2.0) == 20
    assert frame_limit(300, 30.0, 8, 2.0) == 8
    assert frame_limit(300, 30.0, 32, 0.01) == 2  # two at least ...
    assert frame_limit(300, 30.0, 1, 0.01) == 1  # ... unless max_frames says one,
    assert frame_limit(1, 30.0, 32, 2.0) == 1  # or there are fewer
    assert frame_limit(45, 29.97, 32, 1.0) == 2  # 1.5015 s


@given(totals, rates, most, greatest_rates)
def test_the_limit_keeps_each_bound(total, fps, max_frames, max_fps):
    limit = frame_limit(total, fps, max_frames, max_fps)
    bound = min(total, max_frames)
    assert min(2, bound) <= limit <= bound
    if max_fps is None:
        assert limit == bound
    elif limit > 2:
        assert limit <= round(total / fps * max_fps)
    elif limit < bound:
        assert round(total / fps * max_fps) <= 2


@given(totals, rates, most, greatest_rates, annotated_lists)
def test_within_any_limit_annotated_frames_come_first(total, fps, max_frames, max_fps, annotated):
    limit = frame_limit(total, fps, max_frames, max_fps)
    numbers = sample_frames(total, limit, annotated)
    usable = {number for number in annotated if 0 <= number < total}
    assert numbers == sorted(set(numbers)) and len(numbers) == limit and set(numbers) <= set(range(total))
    assert len(usable & set(numbers)) == min(len(usable), limit)
