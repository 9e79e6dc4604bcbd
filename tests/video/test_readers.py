"""Other readers of videos: right, or in the list of files that they read wrongly or not at all."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

from swim.data.sample import SampleReader
from swim.data.settings import DataSettings
from swim.errors import DataError, Reason
from swim.video import readers
from swim.video.clip import ClipLimits, VisualBudget, read_clip, read_header

from .clips import decode_all, moving_pictures, write_video
from .test_decoder import FILES

CHOICES = ([0], [13], [11, 12, 13], [39], list(range(40)))
# What each reader does with FILES beyond reading the frames that are asked for.
EXCEPTIONS = {
    "decord": {
        "open-groups": "wrong",
        "no-fresh-start": "wrong",
        "hevc": "wrong",
        "hevc-layers": "wrong",
        "transport-stream": "wrong",
        "program-stream": "wrong",
        "avi": "wrong",
        "avi-without-times": "wrong",
        "av1-mp4": "refused",
        "av1-webm": "refused",
        "gif": "refused",
        "no-container": "refused",
    },
    "torchcodec": {
        "no-fresh-start": "wrong",
        "transport-stream": "wrong",
        "program-stream": "wrong",
        "avi": "wrong",
        "avi-without-times": "wrong",
        "no-container": "refused",
    },
}
LIMITS = ClipLimits(VisualBudget(max_frames=4, min_pixels=28 * 28, max_pixels=56 * 84))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> dict[str, str]:
    """Environment in which torchcodec finds an FFmpeg: PyAV's, under the names that it looks for."""
    folder = tmp_path_factory.mktemp("ffmpeg")
    for path in (Path(av.__file__).parents[1] / "av.libs").glob("lib*"):
        name = re.match(r"(lib(?:av|sw)\w+)-\w+\.so\.(\d+)", path.name)
        if name:
            (folder / f"{name[1]}.so.{name[2]}").symlink_to(path)
    return {**os.environ, "LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}


@pytest.mark.parametrize("reader", EXCEPTIONS)
def test_which_files_a_reader_reads_right(reader, libraries, tmp_path):
    if reader == "torchcodec" and find_spec("torchcodec") is None:
        pytest.skip("torchcodec is not installed")  # set-up leaves it out: qwen-vl-utils would use it unasked
    # in a process of its own, with an end: decord may hang, and FFmpeg's libraries are found when a process starts
    command = [sys.executable, "-m", "tests.video.test_readers", reader, str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, env=libraries, cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {name: EXCEPTIONS[reader].get(name, "right") for name in FILES}


def verdict(reader: readers.Reader, path: Path, expected: list[np.ndarray]) -> str:
    """A frame is identified by its nearest match, since each library rounds colours in its own way."""
    try:
        with readers.open_video(path, path.name, reader) as file:
            if file.total != len(expected) or (file.height, file.width) != expected[0].shape[:2]:
                return "wrong"
            for numbers in CHOICES:
                found = dict(file.frames(numbers))
                if sorted(found) != numbers or any(nearest(found[number], expected) != number for number in numbers):
                    return "wrong"
    except DataError as error:
        assert error.reason == Reason.UNREADABLE and path.name in str(error)
        return "refused"
    return "right"


def nearest(frame: np.ndarray, frames: list[np.ndarray]) -> int:
    return int(np.argmin([np.abs(frame.astype(int) - other).mean() for other in frames]))


def test_a_reader_that_does_not_work_here_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(readers.NoReader, match="^torchcodec is not installed; pip install torchcodec, or use pyav$"):
        readers.check_reader("torchcodec")
    monkeypatch.setattr(readers, "find_spec", lambda name: None)
    with pytest.raises(readers.NoReader, match="^decord is not installed"):
        readers.check_reader("decord")


def test_a_clip_is_the_same_by_decord_where_it_is_right(tmp_path):
    path = write_video(tmp_path / "clip.mp4", moving_pictures(12), options={"g": "12", "bf": "3"})
    ours, theirs = (read_clip(path, LIMITS, [3], reader=reader) for reader in ("pyav", "decord"))
    assert (ours.numbers, ours.total, ours.fps) == (theirs.numbers, theirs.total, pytest.approx(theirs.fps))
    assert (ours.frames.int() - theirs.frames.int()).abs().max() <= 4  # rounding of yuv to rgb, and of the resize
    assert read_header(path, LIMITS) == read_header(path, LIMITS, reader="decord")


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
def test_what_is_no_video_is_named(tmp_path, content):
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"unreadable video .*broken\.mp4 \(DecordFile\): ") as caught:
        read_clip(path, LIMITS, reader="decord")
    assert caught.value.reason == Reason.UNREADABLE and "\n" not in str(caught.value)


def test_the_setting_reaches_the_file(demo_data, monkeypatch):
    opened = []
    true = readers.DecordFile._open
    monkeypatch.setattr(readers.DecordFile, "_open", lambda self: (opened.append(self.path.name), true(self)))
    record = json.loads(demo_data.train_json.read_text())[0]
    row = {"position": 0, "file": "f", "record": json.dumps(record), "annotation": json.dumps(record.pop("annotation"))}
    row |= {"data_root": str(demo_data.data_root), "folder_fps": None, "untrusted": False}
    SampleReader(DataSettings(video_reader="decord"), 28)({**row, "record": json.dumps(record)})
    assert opened == [Path(record["video"]).name]


if __name__ == "__main__":
    chosen, folder = sys.argv[1], Path(sys.argv[2])
    verdicts = {}
    for name, (ending, codec, options, others) in FILES.items():
        file = write_video(folder / f"{name}.{ending}", moving_pictures(40), codec=codec, options=options, **others)
        verdicts[name] = verdict(chosen, file, decode_all(file))
    print(json.dumps(verdicts))
