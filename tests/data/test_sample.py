"""What the reader does with a disk that does not answer in time."""

import json
import os
import time
from threading import Thread

import pytest
import torch

from swim.data import sample
from swim.data.mixture import load_mixture
from swim.data.sample import SampleReader
from swim.data.settings import DataSettings
from swim.errors import DataError, Reason
from swim.video.clip import VisualBudget

SETTINGS = DataSettings(budget=VisualBudget(max_frames=4, min_pixels=784, max_pixels=28224), time_limit_s=0.5)


@pytest.fixture
def late(demo_data, data_of, tmp_path):
    """(the row of a demo record whose video is `late.mp4`, that path: a link to the clip, which a test replaces)."""
    record = json.loads(demo_data.train_json.read_text())[0]
    real, path = demo_data.data_root / record["video"], tmp_path / "late.mp4"
    record["video"] = str(path)
    path.symlink_to(real)
    return load_mixture(data_of([record])).dataset[0], path


def test_a_read_that_is_late_or_fails_once_gives_the_same_sample(late, monkeypatch, caplog):
    monkeypatch.setattr(sample, "_PAUSE_S", 0.2)
    row, path = late
    expected = SampleReader(SETTINGS, 28)(row)
    real = os.readlink(path)
    for fault in (
        os.mkfifo,
        lambda path: path.symlink_to("/proc/self/mem"),
    ):  # hangs; is an I/O error at its first byte
        path.unlink()
        fault(path)

        def mend(path=path):
            while not caplog.records:
                time.sleep(0.01)
            path.unlink()
            path.symlink_to(real)

        caplog.clear()
        mender = Thread(target=mend)
        mender.start()
        found = SampleReader(SETTINGS, 28)(row)
        mender.join()
        assert (
            torch.equal(found.clip.frames, expected.clip.frames) and (found.masks.shares == expected.masks.shares).all()
        )
        assert "record 0" in caplog.text and "trying again" in caplog.text


@pytest.mark.parametrize("level", ["full", "header"])
def test_each_try_has_a_longer_limit_and_there_are_three(late, monkeypatch, level):
    monkeypatch.setattr(sample, "_PAUSE_S", 0.01)
    row, path = late
    path.unlink()
    os.mkfifo(path)
    record = sample.row_record(row)
    reader = SampleReader(SETTINGS, 28)
    reader.check_files(record)  # a pipe is there
    start = time.monotonic()
    with pytest.raises(DataError, match="late.mp4: not read after 1 s") as caught:
        reader.read(record) if level == "full" else reader.check_header(record)
    assert caught.value.reason == Reason.TIMEOUT and "record 0" in caught.value.where
    assert time.monotonic() - start == pytest.approx(0.5 + 1 + 1, abs=0.9)


def test_what_is_wrong_for_good_is_tried_once(late, caplog):
    row, path = late
    path.unlink()
    path.write_text("no video")
    with pytest.raises(DataError) as caught:
        SampleReader(SETTINGS, 28)(row)
    assert caught.value.reason == Reason.UNREADABLE and not caplog.records
