"""Reading frames of real files, and the sizes that the budget gives them."""

import av
import numpy as np
import pytest
import torch
from PIL import Image

from swim.data import video
from swim.data.errors import DataError
from swim.data.video import VisualBudget, read_clip

SMALL = VisualBudget(max_frames=8, min_pixels=28 * 28, max_pixels=84 * 56)


def pictures(count: int, height: int = 56, width: int = 84) -> np.ndarray:
    """uint8[count, H, W, 3]: frame n is flat, of grey 10 + 12 * n, with a white right half."""
    frames = np.full((count, height, width, 3), 255, np.uint8)
    frames[:, :, : width // 2] = (10 + 12 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    return frames


def write_mp4(path, frames, fps=5, codec="libx264"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "8", "threads": "1", "g": "5"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def levels(clip) -> list[int]:
    """Which picture each frame shows, by its grey."""
    return [round((float(frame[:, 8:-8, 8:24].float().mean()) - 10) / 12) for frame in clip.frames]


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    return write_mp4(tmp_path_factory.mktemp("clips") / "clip.mp4", pictures(17))


def test_an_mp4(mp4):
    clip = read_clip(mp4, SMALL)
    assert clip.frames.dtype == torch.uint8 and clip.frames.shape == (8, 3, 56, 84)
    assert clip.numbers == levels(clip) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert (clip.total, clip.fps, clip.height, clip.width) == (17, 5.0, 56, 84)
    assert clip.frames[:, :, :, 60:].float().mean() > 245  # not flipped


def test_annotated_frames_are_read(mp4):
    clip = read_clip(mp4, SMALL, [0, 1, 16, 400])
    assert clip.numbers == levels(clip) and {0, 1, 16} <= set(clip.numbers) and len(clip.numbers) == 8


@pytest.mark.parametrize("annotated", [[], [0, 2, 16]], ids=["uniform", "annotated"])
def test_pyav_reads_the_same_frames_as_decord(mp4, annotated):
    by_decord, by_pyav = (read(mp4, 8, annotated) for read in (video._read_decord, video._read_pyav))
    assert by_decord[1:] == by_pyav[1:]
    assert by_decord[0].shape == by_pyav[0].shape and by_decord[0].dtype == by_pyav[0].dtype == np.uint8
    assert np.abs(by_decord[0].astype(int) - by_pyav[0].astype(int)).max() <= 3  # rounding of yuv to rgb


def test_a_file_that_decord_refuses_is_read_by_pyav(mp4, monkeypatch):
    import decord

    def refuse(*args, **kwargs):
        raise decord.DECORDError("no such codec")

    expected = read_clip(mp4, SMALL)
    monkeypatch.setattr(decord, "VideoReader", refuse)
    clip = read_clip(mp4, SMALL)
    assert (clip.numbers, clip.total, clip.fps) == (expected.numbers, expected.total, expected.fps)
    assert levels(clip) == clip.numbers


def test_a_folder_of_frames_in_natural_order(tmp_path):
    for number, frame in enumerate(pictures(12)):
        Image.fromarray(frame).save(tmp_path / f"frame{number}.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("no frame")
    clip = read_clip(tmp_path, VisualBudget(max_frames=12, min_pixels=28 * 28, max_pixels=84 * 56))
    assert clip.numbers == levels(clip) == list(range(12))
    assert (clip.total, clip.fps, clip.height, clip.width) == (12, 24.0, 56, 84)
    assert levels(read_clip(tmp_path, SMALL, [10, 11])) == read_clip(tmp_path, SMALL, [10, 11]).numbers


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_an_image_is_a_clip_of_one_frame(tmp_path, mode):
    path = tmp_path / "image.png"
    Image.fromarray(pictures(4)[3]).convert(mode).save(path)
    clip = read_clip(path, SMALL, [7])
    assert clip.frames.shape == (1, 3, 56, 84) and clip.numbers == [0] and clip.total == 1
    assert levels(clip) == [3]


def size(height, width, budget, frames=1, factor=28) -> tuple[int, int]:
    return tuple(video._resize(torch.zeros(frames, 3, height, width, dtype=torch.uint8), budget, factor).shape[2:])


def test_sizes_follow_the_budget():
    paper = VisualBudget()
    assert size(720, 1280, paper, 32) == (560, 1008)  # 560 * 1008 <= 768 * 28 * 28 < 588 * 1036
    assert size(1080, 1920, paper, 32) == (560, 1008)
    assert size(28, 28, paper) == (336, 336)  # up to 128 * 28 * 28 at least
    assert size(480, 640, paper) == (476, 644)  # within both bounds: the nearest multiples
    assert size(56, 84, SMALL) == (56, 84)
    assert size(112, 168, SMALL) == (56, 84)
    assert size(56, 84, SMALL, factor=14) == (56, 84)
    few = VisualBudget(min_pixels=28 * 28, max_pixels=768 * 28 * 28, total_pixels=32 * 16 * 28 * 28)
    # of 32 frames each may have total / 32 * 2 pixels, since two frames share a step
    assert size(560, 560, few, 32) == (140, 140) and 140 * 140 <= 32 * 28 * 28 < 168 * 168


def test_small_frames_are_resized_with_their_content():
    frames = torch.from_numpy(pictures(2, 40, 60)).permute(0, 3, 1, 2)
    found = video._resize(frames, VisualBudget(min_pixels=56 * 84, max_pixels=56 * 112), 28)
    assert found.shape == (2, 3, 56, 84) and found.dtype == torch.uint8
    assert found[1, 0, 5, 5] == 22 and found[1, 0, 5, 80] == 255


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no such video or image: .*none.mp4"):
        read_clip(tmp_path / "none.mp4", SMALL)


@pytest.mark.parametrize("name", ["bad.mp4", "bad.jpg", "bad.PNG", "bad"])
@pytest.mark.parametrize("content", [b"", b"not a video" * 50], ids=["empty", "noise"])
def test_an_unreadable_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"unreadable (video|image) .*{name}"):
        read_clip(tmp_path / name, SMALL)


def test_a_cut_off_file_is_named(mp4, tmp_path):
    (tmp_path / "cut.mp4").write_bytes(mp4.read_bytes()[:300])
    with pytest.raises(DataError, match="unreadable video .*cut.mp4"):
        read_clip(tmp_path / "cut.mp4", SMALL)


def test_a_file_without_a_picture_is_named(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="unreadable video .*sound.mp4"):
        read_clip(path, SMALL)


def test_a_folder_without_frames_is_named(tmp_path):
    with pytest.raises(DataError, match=f"no image in the frame folder {tmp_path}"):
        read_clip(tmp_path, SMALL)


def test_a_broken_frame_of_a_folder_is_named(tmp_path):
    Image.fromarray(pictures(1)[0]).save(tmp_path / "0.jpg")
    (tmp_path / "1.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match="unreadable image .*1.jpg"):
        read_clip(tmp_path, SMALL)


def test_frames_of_different_sizes_are_named(tmp_path):
    for number, width in enumerate((84, 56)):
        Image.fromarray(pictures(1, 56, width)[0]).save(tmp_path / f"{number}.jpg")
    with pytest.raises(DataError, match=f"frames of different sizes .*{tmp_path}: .*56, 56.*56, 84"):
        read_clip(tmp_path, SMALL)


def test_an_impossible_shape_is_an_error(tmp_path):
    Image.fromarray(pictures(1, 2, 900)[0]).save(tmp_path / "thin.png")
    with pytest.raises(DataError, match="frame of 2 x 900 pixels"):
        read_clip(tmp_path / "thin.png", SMALL)


def test_real_clips(test_data):
    budget = VisualBudget(max_frames=4, min_pixels=28 * 28, max_pixels=16 * 28 * 28)
    clip = read_clip(test_data / "videorefer_dog" / "dog.mp4", budget, [0, 135])
    assert (clip.total, clip.height, clip.width) == (150, 720, 1280) and clip.fps == pytest.approx(29.97, abs=0.01)
    assert {0, 135} <= set(clip.numbers) and clip.frames.shape == (4, 3, 84, 140)
    frames = read_clip(test_data / "cutie_examples" / "examples" / "images" / "judo", budget, [15])
    assert frames.total == 16 and 15 in frames.numbers and len(frames.numbers) == 4
