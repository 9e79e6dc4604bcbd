"""Heat over a frame, to the pixel."""

import numpy as np
from matplotlib import colormaps

from swim.attention.paint import COLOURS, blend, colour_strip, enlarge, paint_outline

FRAME = np.full((60, 80, 3), (200, 40, 40), np.uint8)
HOTTEST = np.array(colormaps[COLOURS](1.0)[:3]) * 255


def hot_corner() -> np.ndarray:
    heat = np.zeros((3, 4), np.float32)
    heat[2, 0] = 2.0
    return heat


def test_the_hottest_cell_has_the_last_colour_and_cold_ones_the_frames_own():
    picture = blend(FRAME, hot_corner(), highest=2.0)
    assert np.abs(picture[55, 5] - (HOTTEST * 0.7 + FRAME[0, 0] * 0.3)).max() <= 1
    assert (picture[5, 75] == FRAME[0, 0]).all()
    assert (blend(FRAME, hot_corner(), highest=1.0)[55, 5] == picture[55, 5]).all()  # beyond the scale: the last colour
    assert (blend(FRAME, np.zeros((3, 4), np.float32), highest=1.0) == FRAME).all()


def test_cells_are_enlarged_smoothly_and_invent_no_value():
    large = enlarge(hot_corner(), (60, 80))
    assert large.shape == (60, 80) and large.min() == 0.0 and 1.9 < large.max() <= 2.0
    assert np.abs(np.diff(large, axis=0)).max() < 0.25 and np.abs(np.diff(large, axis=1)).max() < 0.25
    highest = np.argwhere(large == large.max())
    assert highest[:, 0].min() >= 40 and highest[:, 1].max() < 20


def test_the_strip_goes_from_the_frame_to_the_hottest_colour():
    strip = colour_strip(3, 100).astype(int)
    assert (strip[:, 0] == 225).all() and np.abs(strip[0, -1] - (HOTTEST * 0.7 + 225 * 0.3)).max() <= 1


def test_an_outline_is_seen_on_light_and_on_dark():
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 30:50] = 1
    for level in (0, 128, 255):
        picture = np.full((60, 80, 3), level, np.uint8)
        paint_outline(picture, mask)
        assert (picture[20:40, 30:50] == level).all()  # the object itself stays
        assert (picture[30, 51] == 255).all() and (picture[30, 52] == 0).all() and (picture[30, 54] == level).all()
