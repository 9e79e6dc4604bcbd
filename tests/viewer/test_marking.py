"""Objects marked by hand: outlines and clicks become records that training takes."""

import json
from pathlib import Path

import numpy as np
import pytest

from swim.construct.tracking import Tracker
from swim.data.collator import SwimCollator
from swim.data.masks import decode_mask
from swim.data.records import parse_record
from swim.errors import DataError
from swim.viewer.marking import Marking, Marks

from ..construct.sam import build_sam2
from ..video.clips import moving_pictures, write_video
from .test_session import SETTINGS

SQUARE = [(20.0, 10.0), (60.0, 10.0), (60.0, 40.0), (20.0, 40.0)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    """Twelve frames of 72 x 128."""
    return str(write_video(tmp_path_factory.mktemp("upload") / "clip.mp4", moving_pictures(12)))


@pytest.fixture(scope="module")
def tracker(tmp_path_factory) -> Tracker:
    return Tracker(str(build_sam2(tmp_path_factory.mktemp("sam") / "sam2")))


def outline(*frames: int) -> Marks:
    marks = Marks()
    for frame in frames:
        for x, y in SQUARE:
            marks = marks.with_point(frame, x, y, True)
    return marks


def records(file: Path) -> list[dict]:
    return json.loads(file.read_text())


def test_outlines_become_masks_and_the_record_trains(clip, tmp_path, tiny_processor, make_tiny_config):
    marking = Marking(tmp_path / "marks/records.json")
    assert marking.frame_count(clip) == 12
    told = marking.add(clip, "the <ins>dog</ins> on the bed", outline(3, 7))
    assert told == f"added with masks in 2 frame(s): {tmp_path}/marks/records.json now has 1 record(s)"
    [raw] = records(marking.file)
    record = parse_record(raw, "here", marking.file.parent)
    assert record.path == tmp_path / "marks/clips/clip.mp4" and record.annotated_frames == [3, 7]
    mask = decode_mask(record.instances[0][3], 72, 128)
    assert mask.sum() == 41 * 31 and mask[10:41, 20:61].all()  # with its edges
    batch = SwimCollator(tiny_processor, make_tiny_config(), SETTINGS)(
        [SwimCollator(tiny_processor, make_tiny_config(), SETTINGS).read(record)]
    )
    assert batch["ins_masks"].sum() > 0


def test_the_picture_shows_clicks_and_what_they_outline(clip, tmp_path):
    marking = Marking(tmp_path / "records.json")
    plain = marking.frame(clip, 3)
    three = marking.picture(clip, 3, outline(3))
    assert (three != plain)[15:35, 25:55].any(-1).all() and (three == plain)[60:].all()
    two = marking.picture(clip, 3, Marks({3: [(20.0, 10.0, 1), (60.0, 10.0, 1)]}))
    assert (two != plain).any() and (two == plain)[20:].all()
    assert np.array_equal(marking.picture(clip, 4, outline(3)), marking.frame(clip, 4))


def test_a_click_is_followed_through_the_clip(clip, tracker, tmp_path):
    marking = Marking(tmp_path / "records.json", tracker)
    marks = Marks().with_point(5, 40, 30, True).with_point(5, 100, 60, False)
    assert (marking.picture(clip, 5, marks) != marking.frame(clip, 5)).any()
    marking.add(clip, "dog", marks)
    [raw] = records(marking.file)
    assert set(map(int, raw["annotation"][0])) <= set(range(12)) and len(raw["annotation"][0]) > 6
    assert raw["conversations"][1]["value"] == "<ins>Dog</ins>."
    with pytest.raises(ValueError, match="Click in one frame alone"):
        marking.add(clip, "dog", marks.with_point(6, 1, 1, True))


def test_what_makes_no_object_is_told_and_changes_nothing(clip, tmp_path):
    marking = Marking(tmp_path / "records.json")
    for phrase, marks, message in (
        ("  ", outline(0), "What is it called"),
        ("dog", Marks(), "Click the object first"),
        ("dog", Marks({0: [(1.0, 1.0, 1), (9.0, 9.0, 1)]}), "three corners at least; frame 0"),
        ("the <ins>dog", outline(0), "unclosed"),
    ):
        with pytest.raises(ValueError, match=message):
            marking.add(clip, phrase, marks)
    with pytest.raises(DataError, match="no such video"):
        marking.add("none.mp4", "dog", outline(0))
    assert not marking.file.exists()


def test_a_file_grows_and_clips_are_kept_once(clip, tmp_path):
    file = tmp_path / "records.json"
    for noun in ("dog", "cat"):
        Marking(file).add(clip, noun, outline(0))
    other = write_video(tmp_path / "clip.mp4", moving_pictures(6))
    Marking(file).add(str(other), "bird", outline(0))
    assert [record["video"] for record in records(file)] == ["clips/clip.mp4"] * 2 + ["clips/clip_1.mp4"]
    assert len({record["index"] for record in records(file)}) == 3
    file.write_text('{"video": 1}')
    with pytest.raises(DataError, match="records.json: expected a JSON list of records; choose another --marks"):
        Marking(file)
