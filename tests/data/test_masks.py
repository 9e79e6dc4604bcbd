"""Masks: decoding, and the exact share of each cell."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from swim.data.masks import _pixels, check_mask, cover_cells, decode_mask, is_off_by_one
from swim.errors import DataError, Reason


def shares_by_hand(mask, rows: int, columns: int) -> list[list[float]]:
    """Share of each cell, pixel by pixel, in exact fractions."""
    height, width = mask.shape
    cell_height, cell_width = Fraction(height, rows), Fraction(width, columns)
    shares = []
    for row in range(rows):
        shares.append([])
        for column in range(columns):
            covered = Fraction(0)
            for y in range(height):
                for x in range(width):
                    if mask[y, x]:
                        tall = min(Fraction(y + 1), cell_height * (row + 1)) - max(Fraction(y), cell_height * row)
                        wide = min(Fraction(x + 1), cell_width * (column + 1)) - max(Fraction(x), cell_width * column)
                        covered += max(tall, Fraction(0)) * max(wide, Fraction(0))
            shares[-1].append(float(covered / (cell_height * cell_width)))
    return shares


def random_mask(height, width, seed=0) -> np.ndarray:
    return (np.random.default_rng(seed).random((height, width)) < 0.4).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (13, 17, 3, 5),
        (17, 13, 5, 3),
        (12, 8, 3, 4),
        (7, 7, 7, 7),
        (5, 9, 8, 2),
        (3, 2, 5, 7),
        (1, 1, 2, 3),
        (11, 4, 1, 1),
    ],
)
def test_shares_are_exact_at_odd_sizes(height, width, rows, columns):
    mask = random_mask(height, width)
    found = cover_cells(mask, rows, columns)
    assert found.dtype == np.float32 and found.shape == (rows, columns)
    np.testing.assert_allclose(found, shares_by_hand(mask, rows, columns), atol=2e-6)


@settings(max_examples=30)
@given(st.integers(1, 14), st.integers(1, 14), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_shares_are_exact_at_any_size(height, width, rows, columns, seed):
    mask = random_mask(height, width, seed)
    found = cover_cells(mask, rows, columns)
    np.testing.assert_allclose(found, shares_by_hand(mask, rows, columns), atol=2e-6)
    assert found.mean() == pytest.approx(mask.mean(), abs=1e-5)  # no area is lost


def test_shares_of_full_empty_and_one_pixel():
    assert np.allclose(cover_cells(np.ones((31, 47), np.uint8), 3, 4), 1, atol=1e-6)
    assert not cover_cells(np.zeros((31, 47), np.uint8), 3, 4).any()
    assert cover_cells(np.array([[1, 1, 0]], np.uint8), 1, 2).tolist() == [[1.0, pytest.approx(1 / 3)]]
    pixel = np.zeros((56, 84), np.uint8)
    pixel[27, 28] = 1  # last row of the first cell row, first column of the second cell column
    expected = np.zeros((2, 3))
    expected[0, 1] = 1 / 28**2
    np.testing.assert_allclose(cover_cells(pixel, 2, 3), expected, atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(13, 17), (1, 1), (30, 7)])
def test_each_form_of_rle_decodes(height, width):
    mask = random_mask(height, width)
    packed = coco.encode(np.asfortranarray(mask))
    runs, value = [0], 0
    for pixel in mask.T.ravel():  # column by column, beginning with the number of zeros
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    for counts in (packed["counts"], packed["counts"].decode(), runs):
        found = decode_mask({"size": [height, width], "counts": counts}, height, width)
        assert found.dtype == np.uint8 and np.array_equal(found, mask)


def test_polygons_decode_and_are_joined():
    mask = decode_mask([[1, 1, 5, 1, 5, 4, 1, 4], [8, 0, 10, 0, 10, 6, 8, 6]], 6, 12)
    expected = np.zeros((6, 12), np.uint8)
    expected[1:4, 1:5] = 1
    expected[:, 8:10] = 1
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize(
    ("off_rows", "off_columns"), [(1, 0), (0, 1), (-1, 0), (0, -1), (1, -1), (-1, 1), (1, 1), (-1, -1)]
)
def test_one_pixel_off_is_fitted(off_rows, off_columns):
    mask = random_mask(9 + off_rows, 14 + off_columns)
    packed = coco.encode(np.asfortranarray(mask))
    found = decode_mask(packed, 9, 14)
    expected = np.zeros((9, 14), np.uint8)
    for y in range(9):
        for x in range(14):  # a missing last row or column repeats the one before, a surplus one goes
            expected[y, x] = mask[min(y, mask.shape[0] - 1), min(x, mask.shape[1] - 1)]
    assert np.array_equal(found, expected)
    assert is_off_by_one(packed, 9, 14)


def test_what_fits_its_frame_is_not_off_by_one():
    packed = coco.encode(np.asfortranarray(random_mask(9, 14)))
    assert not is_off_by_one(packed, 9, 14) and not is_off_by_one([[1, 1, 5, 1, 5, 4]], 9, 14)


@pytest.mark.parametrize(("height", "width"), [(11, 14), (9, 12), (7, 14), (14, 9), (18, 28)])
def test_more_than_one_pixel_off_is_an_error(height, width):
    packed = coco.encode(np.asfortranarray(random_mask(height, width)))
    with pytest.raises(DataError, match=f"expected a mask of 9 x 14 as its frame, found {height} x {width}") as caught:
        decode_mask(packed, 9, 14)
    assert caught.value.reason == Reason.BAD_MASK


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [4, 4]},
        {"counts": "abc"},
        {"size": 4, "counts": [16]},
        {"size": [4], "counts": [16]},
        {"size": [4, 4], "counts": 7},
        {"size": [4, 4], "counts": None},
        {"size": [4, 4], "counts": ["a"]},
        {"size": ["4", "4"], "counts": [0, 16]},
        {"size": [4, 4], "counts": [0, 99]},
        {"size": [4, 4], "counts": [0, 3]},
        {"size": [4, 4], "counts": []},
        {"size": [4, 4], "counts": "03"},
        {"size": [4, 4], "counts": ""},
        {"size": [4, 4], "counts": "zz"},
        {"size": [4, 4], "counts": "\u00e9"},
        {"size": [4, 4], "counts": "0`0P"},  # a last number that goes on
        {"size": [4, 4], "counts": "PPPPPPP0`0"},  # a number of eight characters
        {"size": [4, 4], "counts": "O`01"},  # -1 + 16 + 1 pixels
        [],
        [[]],
        [[1, 1]],
        [[1, 1, 3, 3]],
        [[1, 1, 2, 2, 3, 3, 4]],
        [[0, 0, 3, 0, 3, 3], [1, 1]],
    ],
    ids=str,
)
def test_what_does_not_decode_is_an_error(segmentation):
    with pytest.raises(DataError, match="^segmentation: ") as caught:
        decode_mask(segmentation, 4, 4)
    assert caught.value.reason == Reason.BAD_MASK


FULL = 2**40


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ([[5e8, 1.0, 20.0, 1.0, 20.0, 20.0]], "leaves its frame of 56 x 84: x = 5e\\+08"),
        ([[1e12, 1.0, 20.0, 1.0, 20.0, 20.0]], r"x = 1e\+12"),
        ([[1.0, -1e300, 20.0, 1.0, 20.0, 20.0]], "y = -1e\\+300"),
        ([[1.0, 1.0, 20.0, 1.0, 20.0, 60.0]], "y = 60"),
        ([[-3, 1, 20, 1, 20, 20]], "x = -3"),
        ([[1, 1, 20, 1, 20, 20], [1, 1, 90, 1, 20, 20]], "x = 90"),
        ([[float("nan"), 1.0, 20.0, 1.0, 20.0, 20.0]], "finite numbers, found nan"),
        ([[float("inf"), 1.0, 20.0, 1.0, 20.0, 20.0]], "finite numbers, found inf"),
        ([[10**400, 1, 20, 1, 20, 20]], "int too large"),
        ([["1", "1", "20", "1", "20", "20"]], "finite numbers, found 1"),
        ([[True, 1, 20, 1, 20, 20]], "finite numbers, found True"),
        ([[None, 1, 20, 1, 20, 20]], "finite numbers, found None"),
        (["123456"], "finite numbers, found 1"),
        ([[0.1, 0.1, 0.6, 0.1, 0.6, 0.9]], "from 0 to 1: multiply by 84 and 56"),
        ([[0, 0, 1, 0, 1, 1]], "from 0 to 1"),
        ({"size": [FULL, FULL], "counts": [FULL * FULL]}, r"expected size: \[height, width\]"),
        ({"size": [-56, -84], "counts": [56 * 84]}, "expected size"),
        ({"size": [0, 0], "counts": [0]}, "expected size"),
        ({"size": [float("nan"), 84], "counts": [56 * 84]}, "expected size"),
        ({"size": [True, True], "counts": [1]}, "expected size"),
        ({"size": [60_000, 60_000], "counts": [3_600_000_000]}, "expected a mask of 56 x 84"),
        ({"size": [56, 84], "counts": [float("nan"), 56 * 84]}, "whole numbers"),
        ({"size": [56, 84], "counts": [1.5, 56 * 84 - 1.5]}, "whole numbers"),
        ({"size": [56, 84], "counts": [-1, 56 * 84 + 1]}, "none below 0"),
        ({"size": [56, 84], "counts": [2**64, 56 * 84 - 2**64]}, "none below 0"),
        ({"size": [56, 84], "counts": [2**64]}, "18446744073709551616 pixels in counts, 4704 in size"),
        ({"size": [56, 84], "counts": [True] * 4704}, "whole numbers"),
        ({"size": [56, 84], "counts": "\ud800"}, "segmentation"),
        ({"size": [56, 84], "counts": "p" * 4704}, "a character that no RLE has"),
        ({"size": [56, 84], "counts": {"0": 4704}}, "found dict"),
    ],
)
def test_numbers_that_would_break_the_decoder_are_named_before_it_meets_them(segmentation, told):
    """One coordinate of 5e8 took all memory and ended the process."""
    with pytest.raises(DataError, match=told) as caught:
        decode_mask(segmentation, 56, 84)
    assert caught.value.reason == Reason.BAD_MASK and len(str(caught.value)) < 300


def test_polygons_may_touch_the_edges_and_leave_the_frame_by_a_pixel():
    whole = np.ones((6, 12), np.uint8)
    for polygon in ([0, 0, 12, 0, 12, 6, 0, 6], [-0.5, -1, 13, -1, 13, 7, -0.5, 7]):
        assert np.array_equal(decode_mask([polygon], 6, 12), whole)


def test_counts_that_json_wrote_as_fractions_decode():
    assert decode_mask({"size": [4.0, 3.0], "counts": [6.0, 6.0]}, 4, 3).sum() == 6


@pytest.mark.parametrize("segmentation", [{"size": [4, 4], "counts": [0, 3]}, [[1, 1]], [[float("nan")] * 6], 3, None])
def test_a_mask_without_its_frame_is_checked_too(segmentation):
    check_mask([[5, 5, 700, 5, 700, 700]])
    check_mask({"size": [50_000, 50_000], "counts": [0, 2_500_000_000]})  # of which no pixel is made
    with pytest.raises(DataError, match="^segmentation: "):
        check_mask(segmentation)


# ----------------------------------------------------------------------------------------------------------------------
# The length of a compressed RLE
# ----------------------------------------------------------------------------------------------------------------------


def runs_one_by_one(counts: bytes) -> list[int]:
    """The run lengths, character by character. Raises ValueError where the last one goes on."""
    runs, value, shift = [], 0, 0
    for character in counts:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise ValueError
    return runs


@given(st.lists(st.integers(0, 60) | st.integers(0, 2**32 - 1), min_size=1, max_size=40))
def test_the_pixels_of_any_runs(runs):
    counts = coco.frPyObjects({"size": [1, 1], "counts": runs}, 1, 1)["counts"]
    assert runs_one_by_one(counts) == runs
    assert _pixels(counts) == sum(runs)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_the_pixels_of_any_mask(height, width, share, seed):
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    assert _pixels(coco.encode(np.asfortranarray(mask))["counts"]) == height * width


@settings(max_examples=300)
@given(st.lists(st.integers(0, 255) | st.integers(48, 111) | st.integers(48, 79), max_size=20).map(bytes))
def test_the_pixels_of_any_characters(counts):
    try:
        found = _pixels(counts)
    except ValueError as error:
        try:
            runs = runs_one_by_one(counts)
        except ValueError:
            return
        too_long = any(len(number) > 6 for number in _continued(counts))
        foreign = any(not 48 <= character < 48 + 64 for character in counts)  # 6 bits and 48 are all that an RLE has
        assert foreign or too_long or min(runs) < 0 or max(runs) >= 2**32, error
    else:
        assert found == sum(runs_one_by_one(counts))


def _continued(counts: bytes) -> list[str]:
    """Each stretch of characters behind which the number goes on."""
    return "".join("c" if (character - 48) & 32 else " " for character in counts).split()


def test_the_pixels_of_a_large_mask():
    mask = random_mask(720, 1280)
    counts = coco.encode(np.asfortranarray(mask))["counts"]
    assert len(counts) > 400_000 and _pixels(counts) == 720 * 1280
