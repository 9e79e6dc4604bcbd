"""The frame sampler."""

from hypothesis import given
from hypothesis import strategies as st

from swim.data.frames import sample_frames

totals, most = st.integers(1, 300), st.integers(1, 40)
annotated_lists = st.lists(st.integers(-5, 320), max_size=60)


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
