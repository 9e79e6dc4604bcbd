"""Outlined frames: where the line runs, which frames are taken, what is refused."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from swim.construct.frames import COLOURS, colour_of, outline, outlined_frames
from swim.data.masks import decode_mask
from swim.errors import DataError

from ..video.clips import pictures, write_video
from .records import annotation, rle


def instances(count: int, frames=(0, 2)) -> list[dict]:
    return [{int(n): f["segmentation"] for n, f in found.items()} for found in annotation(count, frames)]


def test_the_line_runs_around_the_mask_and_not_on_it():
    mask = decode_mask(rle(20, 30, size=40, height=96, width=120), 96, 120)
    frame = np.full((96, 120, 3), 100, np.uint8)
    drawn = np.asarray(outline(frame, {3: mask}))
    changed = (drawn != frame).any(axis=2)
    red = (drawn == COLOURS[colour_of(3)]).all(axis=2)
    assert red[19, 50] and red[60, 50] and red[40, 29] and red[40, 70]
    assert not changed[40:60, 30:70].any()  # the number stands in the upper left corner
    assert not changed[62:].any() and not changed[:, 72:].any()


def test_colours_repeat_after_the_last():
    assert colour_of(0) == colour_of(len(COLOURS)) != colour_of(1)


def test_annotated_frames_alone_are_shown(tmp_path):
    video = write_video(tmp_path / "clip.mp4", pictures(8))
    assert [frame.number for frame in outlined_frames(video, instances(2, (1, 3, 6)), 2)] == [1, 6]
    assert [frame.number for frame in outlined_frames(video, instances(1, (3, 900)), 5)] == [3]
    (frame,) = outlined_frames(video, instances(1, (3,)), 5)
    picture = Image.open(io.BytesIO(base64.b64decode(frame.uri.removeprefix("data:image/jpeg;base64,"))))
    assert picture.format == "JPEG" and picture.size[0] > picture.size[1]


def test_frames_that_cannot_be_drawn_are_errors(tmp_path):
    video = write_video(tmp_path / "clip.mp4", pictures(8))
    with pytest.raises(DataError, match=r"none of the annotated frames \[900\]"):
        outlined_frames(video, instances(1, (900,)), 2)
    with pytest.raises(DataError, match="expected a mask of 56 x 84"):
        outlined_frames(video, [{0: rle(4, 4, height=90, width=90)}], 2)
    with pytest.raises(DataError, match="no such video"):
        outlined_frames(tmp_path / "none.mp4", instances(1), 2)
