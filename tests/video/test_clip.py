"""Clips: which frames of a source they hold, of what size, within which limits of tokens and time."""

import os
import time
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from qwen_vl_utils import vision_process as qwen

from swim.errors import DataError, Reason
from swim.video import clip as clip_module
from swim.video.clip import ClipLimits, VisualBudget, read_clip, read_header, resize_frame
from swim.video.decoder import VideoFile

from .clips import levels, pictures, write_sound, write_video

SMALL = ClipLimits(VisualBudget(max_frames=8, min_pixels=28 * 28, max_pixels=84 * 56))


@pytest.fixture(scope="module")
def mp4(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", pictures(17))


# ----------------------------------------------------------------------------------------------------------------------
# Frames
# ----------------------------------------------------------------------------------------------------------------------


def test_an_mp4(mp4):
    clip = read_clip(mp4, SMALL)
    assert clip.frames.dtype == torch.uint8 and clip.frames.shape == (8, 3, 56, 84) and clip.frames.is_contiguous()
    assert clip.numbers == levels(clip.frames) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert (clip.total, clip.fps, clip.height, clip.width) == (17, 5.0, 56, 84)
    assert clip.frames[:, :, :, 60:].float().mean() > 245  # not flipped


def test_annotated_frames_are_read(mp4):
    clip = read_clip(str(mp4), SMALL, [0, 1, 16, 400])
    assert clip.numbers == levels(clip.frames) and {0, 1, 16} <= set(clip.numbers) and len(clip.numbers) == 8


def test_av1_is_read(tmp_path):
    options = {"preset": "12", "crf": "5", "g": "5"}
    path = write_video(tmp_path / "av1.mp4", pictures(17), codec="libsvtav1", options=options)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER  # the encoder's real-time priority does not stay
    clip = read_clip(path, SMALL, [0, 16])
    assert clip.numbers == levels(clip.frames) and {0, 16} <= set(clip.numbers) and clip.total == 17


@pytest.mark.parametrize(("fps", "count"), [(None, 8), (5.0, 8), (2.0, 7), (1.0, 3), (0.5, 2), (0.001, 2)])
def test_the_greatest_sampling_rate(mp4, fps, count):
    budget = VisualBudget(max_frames=8, min_pixels=28 * 28, max_pixels=84 * 56, fps=fps)
    clip = read_clip(mp4, ClipLimits(budget), [0])  # 3.4 s
    assert len(clip.numbers) == count and 0 in clip.numbers and clip.numbers == levels(clip.frames)


def test_the_rate_is_the_last_field_of_a_budget():
    named = VisualBudget(max_frames=1, min_pixels=2, max_pixels=3, total_pixels=4, fps=5.0)
    assert VisualBudget(1, 2, 3, 4, 5.0) == named


def test_a_folder_and_a_list_have_the_rate_that_is_given(tmp_path):
    for number, frame in enumerate(pictures(12)):
        Image.fromarray(frame).save(tmp_path / f"frame{number}.jpg", quality=95)
    clip = read_clip(tmp_path, SMALL, [10, 11])
    assert clip.numbers == levels(clip.frames) and {10, 11} <= set(clip.numbers)
    assert (clip.total, clip.fps, clip.height, clip.width) == (12, 24.0, 56, 84)
    slow = ClipLimits(VisualBudget(max_frames=8, min_pixels=28 * 28, max_pixels=84 * 56, fps=2.0))
    assert len(read_clip(tmp_path, slow).numbers) == 2  # half a second
    assert len(read_clip(tmp_path, slow, folder_fps=6.0).numbers) == 4  # two seconds
    files = sorted(tmp_path.iterdir(), reverse=True)
    clip = read_clip(files, slow, folder_fps=4.0)
    assert clip.fps == 4.0 and len(clip.numbers) == 6 and clip.total == 12


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_an_image_is_a_clip_of_one_frame(tmp_path, mode):
    path = tmp_path / "image.png"
    Image.fromarray(pictures(4)[3]).convert(mode).save(path)
    for source in (path, Image.open(path)):
        clip = read_clip(source, SMALL, [7])
        assert clip.frames.shape == (1, 3, 56, 84) and clip.numbers == [0] and clip.total == 1
        assert levels(clip.frames) == [3]


def test_arrays_give_the_frames_that_files_give():
    frames = pictures(17)
    expected = read_clip(frames, SMALL, [2])
    assert expected.numbers == levels(expected.frames) and expected.total == 17
    as_qwen_gives_it = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    assert torch.equal(read_clip(as_qwen_gives_it, SMALL, [2]).frames, expected.frames)


def test_height_and_width_are_of_the_upright_frame(tmp_path):
    turned = write_video(tmp_path / "phone.mp4", pictures(3), rotation=90)
    clip = read_clip(turned, ClipLimits(VisualBudget(min_pixels=28 * 28)))
    assert (clip.height, clip.width) == (84, 56) and clip.frames.shape == (3, 3, 84, 56)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pictures(1)[0]).save(tmp_path / "phone.jpg", exif=exif)
    clip = read_clip(tmp_path / "phone.jpg", ClipLimits(VisualBudget(min_pixels=28 * 28)))
    assert (clip.height, clip.width) == (84, 56)


# ----------------------------------------------------------------------------------------------------------------------
# Sizes
# ----------------------------------------------------------------------------------------------------------------------


def test_sizes_follow_the_budget():
    paper = ClipLimits()
    assert paper.frame_size(720, 1280, 32) == (560, 1008)  # 560 * 1008 <= 768 * 28 * 28 < 588 * 1036
    assert paper.frame_size(1080, 1920, 32) == (560, 1008)
    assert paper.frame_size(28, 28, 1) == (336, 336)  # up to 128 * 28 * 28 at least
    assert paper.frame_size(480, 640, 1) == (476, 644)  # within both bounds: the nearest multiples
    assert SMALL.frame_size(56, 84, 1) == (56, 84)
    assert SMALL.frame_size(112, 168, 1) == (56, 84)
    assert replace(SMALL, factor=14).frame_size(56, 84, 1) == (56, 84)
    few = ClipLimits(VisualBudget(min_pixels=28 * 28, max_pixels=768 * 28 * 28, total_pixels=32 * 16 * 28 * 28))
    # of 32 frames each may have total / 32 * 2 pixels, since two frames share a step
    assert few.frame_size(560, 560, 32) == (140, 140) and 140 * 140 <= 32 * 28 * 28 < 168 * 168


@pytest.mark.parametrize(("height", "width"), [(64, 96), (36, 100), (90, 30), (240, 320)])
def test_sizes_and_pixels_are_qwens_own(tmp_path, monkeypatch, height, width):
    monkeypatch.setattr(qwen, "get_video_reader_backend", lambda: "decord")
    # of middle contrast: where bicubic overshoots the range of a byte, bytes and qwen-vl-utils' floats part
    noise = np.random.default_rng(0).integers(80, 176, (6, height // 2, width // 2, 3), dtype=np.uint8)
    path = write_video(tmp_path / "clip.mp4", noise.repeat(2, axis=1).repeat(2, axis=2))
    bounds = [4 * 28 * 28, 40 * 28 * 28, 300 * 28 * 28]
    for fewest, most, total in product(bounds, bounds, [10 * 28 * 28, 200 * 28 * 28, 128000 * 28 * 28]):
        if most < 1.05 * fewest:
            continue  # qwen-vl-utils refuses these, ours takes 1.05 times min_pixels
        limits = {"min_pixels": fewest, "max_pixels": most, "total_pixels": total}
        expected = qwen.fetch_video({"video": str(path), "nframes": 4, **limits})
        assert ClipLimits(VisualBudget(4, **limits)).frame_size(height, width, 4) == tuple(expected.shape[2:])
        with VideoFile(path) as file:
            frames = dict(file.frames([0, 2, 3, 5]))  # those that qwen-vl-utils takes
        found = torch.stack([resize_frame(frames[n], expected.shape[2:]) for n in (0, 2, 3, 5)])
        assert (found - expected).abs().max() <= 2


def test_small_frames_are_resized_with_their_content():
    clip = read_clip(pictures(2, 40, 60), ClipLimits(VisualBudget(min_pixels=56 * 84, max_pixels=56 * 112)))
    assert clip.frames.shape == (2, 3, 56, 84) and clip.frames.dtype == torch.uint8
    assert clip.frames[1, 0, 5, 5] == 22 and clip.frames[1, 0, 5, 80] == 255


@pytest.mark.parametrize(("height", "width"), [(2, 900), (10, 1900)])
def test_an_impossible_shape_is_an_error(tmp_path, height, width):
    Image.fromarray(pictures(1, height, width)[0]).save(tmp_path / "thin.png")
    with pytest.raises(DataError, match=f"thin.png: frame of {height} x {width} pixels: ") as caught:
        read_clip(tmp_path / "thin.png", SMALL)
    assert caught.value.reason == Reason.UNREADABLE


# ----------------------------------------------------------------------------------------------------------------------
# Tokens
# ----------------------------------------------------------------------------------------------------------------------


def tokens(frames: int, size: tuple[int, int], factor: int = 28) -> int:
    return -(-frames // 2) * (size[0] // factor) * (size[1] // factor)


def test_frames_shrink_first_and_become_fewer_then():
    budget = VisualBudget(max_frames=8, min_pixels=4 * 28 * 28, max_pixels=64 * 28 * 28)
    frames = np.zeros((20, 224, 224, 3), np.uint8)
    seen = {}
    for most in (256, 255, 100, 37, 16, 15, 8, 4):
        clip = read_clip(frames, ClipLimits(budget, max_tokens=most), [3, 19])
        assert tokens(len(clip.numbers), clip.frames.shape[2:]) <= most
        assert len(clip.numbers) == 1 or {3, 19} <= set(clip.numbers)
        seen[most] = (len(clip.numbers), clip.frames.shape[2] // 28)
    assert seen == {256: (8, 8), 255: (8, 7), 100: (8, 5), 37: (8, 3), 16: (8, 2), 15: (6, 2), 8: (4, 2), 4: (2, 2)}


def test_an_annotated_frame_is_the_last_to_go():
    budget = VisualBudget(max_frames=8, min_pixels=4 * 28 * 28, max_pixels=64 * 28 * 28)
    clip = read_clip(np.zeros((20, 224, 224, 3), np.uint8), ClipLimits(budget, max_tokens=8), [2, 5, 17])
    assert {2, 5, 17} < set(clip.numbers) and len(clip.numbers) == 4


def test_too_many_tokens_at_the_smallest_size_are_an_error(mp4):
    budget = VisualBudget(min_pixels=4 * 28 * 28)
    # qwen-vl-utils' rule: 56 x 84 down to 1 x 2 cells
    assert len(read_clip(mp4, ClipLimits(budget, max_tokens=2)).numbers) == 2
    for most in (1, 0, -3):
        message = f"clip.mp4: 2 visual tokens at least .*56 x 84, {most} fit; raise max_length"
        with pytest.raises(DataError, match=message) as caught:
            read_clip(mp4, ClipLimits(budget, max_tokens=most))
        assert caught.value.reason == Reason.TOO_LONG


def test_only_frames_that_fit_are_decoded(mp4, monkeypatch):
    asked = []
    true = VideoFile.frames
    monkeypatch.setattr(VideoFile, "frames", lambda self, numbers: asked.append(numbers) or true(self, numbers))
    clip = read_clip(mp4, ClipLimits(VisualBudget(min_pixels=4 * 28 * 28), max_tokens=5))
    assert asked == [clip.numbers] and len(clip.numbers) == 4


@pytest.mark.parametrize("most", [None, 300, 40, 5])
def test_the_header_tells_what_the_clip_will_be(mp4, tmp_path, most):
    turned = write_video(tmp_path / "phone.mp4", pictures(9), rotation=90)
    Image.fromarray(pictures(1)[0]).save(tmp_path / "0.png")
    budget = VisualBudget(max_frames=8, min_pixels=4 * 28 * 28, max_pixels=64 * 28 * 28)
    for source in (mp4, turned, tmp_path, tmp_path / "0.png", pictures(5)):
        header = read_header(source, ClipLimits(budget, max_tokens=most), folder_fps=3.0)
        clip = read_clip(source, ClipLimits(budget, max_tokens=most), folder_fps=3.0)
        assert (header.numbers, header.size) == (clip.numbers, clip.size) and clip.size == clip.frames.shape[2:]
        assert (header.total, header.fps, header.height, header.width) == (
            clip.total,
            clip.fps,
            clip.height,
            clip.width,
        )
    with pytest.raises(DataError, match="clip.mp4: 2 visual tokens at least") as caught:
        read_header(mp4, ClipLimits(budget, max_tokens=1))
    assert caught.value.reason == Reason.TOO_LONG


budgets = st.builds(
    VisualBudget,
    max_frames=st.integers(1, 40),
    min_pixels=st.integers(1, 200).map(lambda cells: cells * 784),
    max_pixels=st.integers(1, 800).map(lambda cells: cells * 784),
    total_pixels=st.integers(1, 20000).map(lambda cells: cells * 784),
)


@given(st.integers(1, 40), st.integers(20, 2000), st.integers(20, 2000), budgets, st.integers(-1, 20000))
def test_what_is_planned_fits(frames, height, width, budget, most):
    assume(max(height, width) <= 50 * min(height, width))
    limits = ClipLimits(budget, max_tokens=most)
    only_small = ClipLimits(VisualBudget(1, budget.min_pixels, 1))
    try:
        count = limits.fitting_frames(frames, height, width)
        size = limits.frame_size(height, width, count)
    except DataError as error:
        assume(error.reason == Reason.TOO_LONG)
        smallest = only_small.frame_size(height, width, 1)
        assert tokens(1, smallest) > most
        return
    assert 1 <= count <= frames and tokens(count, size) <= most
    unbound = ClipLimits(budget).frame_size(height, width, frames)
    if tokens(frames, unbound) <= most:
        assert (count, size) == (frames, unbound)  # nothing changes where everything fits
    elif count < frames:
        assert tokens(count + 2, only_small.frame_size(height, width, 1)) > most


# ----------------------------------------------------------------------------------------------------------------------
# Errors and the limit of time
# ----------------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no such video or image: .*none.mp4") as caught:
        read_clip(tmp_path / "none.mp4", SMALL)
    assert caught.value.reason == Reason.MISSING


@pytest.mark.parametrize("name", ["bad.mp4", "bad.jpg", "bad.PNG", "bad"])
@pytest.mark.parametrize("content", [b"", b"not a video" * 50], ids=["empty", "noise"])
def test_an_unreadable_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"unreadable (video|image) .*{name}") as caught:
        read_clip(tmp_path / name, SMALL)
    assert caught.value.reason == Reason.UNREADABLE


def test_a_cut_off_file_and_one_without_a_picture_are_named(mp4, tmp_path):
    (tmp_path / "cut.mp4").write_bytes(mp4.read_bytes()[:300])
    with pytest.raises(DataError, match="unreadable video .*cut.mp4"):
        read_clip(tmp_path / "cut.mp4", SMALL)
    with pytest.raises(DataError, match="unreadable video .*sound.mp4"):
        read_clip(write_sound(tmp_path / "sound.mp4"), SMALL)


def test_a_broken_frame_of_a_folder_is_named(tmp_path):
    Image.fromarray(pictures(1)[0]).save(tmp_path / "0.jpg")
    (tmp_path / "1.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match="unreadable image .*1.jpg"):
        read_clip(tmp_path, SMALL)


def test_frames_of_different_sizes_are_named(tmp_path):
    for number, width in enumerate((84, 56)):
        Image.fromarray(pictures(1, 56, width)[0]).save(tmp_path / f"{number}.jpg")
    message = f"{tmp_path}: frames of different sizes, 56 x 84 and 56 x 56 .number 1."
    with pytest.raises(DataError, match=message) as caught:
        read_clip(tmp_path, SMALL)
    assert caught.value.reason == Reason.UNREADABLE


def test_what_can_be_no_source_is_a_type_error():
    with pytest.raises(TypeError, match="expected a path"):
        read_clip(None, SMALL)


@pytest.mark.parametrize("name", ["pipe.mp4", "pipe.jpg"])
def test_what_hangs_is_given_up(tmp_path, name):
    path = tmp_path / name
    os.mkfifo(path)  # opening it waits for a writer, inside of a C library
    start = time.monotonic()
    try:
        with pytest.raises(DataError, match=f"{name}: not read after 0.3 s; it hangs") as caught:
            read_clip(path, SMALL, time_limit_s=0.3)
        assert caught.value.reason == Reason.TIMEOUT and time.monotonic() - start < 5
    finally:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # lets the abandoned thread end


def test_what_is_merely_slow_is_given_up_and_ends(mp4, monkeypatch):
    resized = []
    true = clip_module.resize_frame
    monkeypatch.setattr(
        clip_module, "resize_frame", lambda *given: time.sleep(0.1) or resized.append(1) or true(*given)
    )
    with pytest.raises(DataError, match="clip.mp4: not read after 0.25 s") as caught:
        read_clip(mp4, SMALL, time_limit_s=0.25)
    assert caught.value.reason == Reason.TIMEOUT
    time.sleep(0.4)
    assert len(resized) < 5  # of 8: the abandoned thread does not go on to the end


def test_a_time_limit_that_suffices_changes_nothing(mp4):
    assert torch.equal(read_clip(mp4, SMALL, time_limit_s=60).frames, read_clip(mp4, SMALL).frames)


def test_the_thread_of_a_clip_uses_the_callers_number_of_threads(mp4, monkeypatch):
    seen = []
    true = clip_module.resize_frame
    monkeypatch.setattr(clip_module, "resize_frame", lambda *args: seen.append(torch.get_num_threads()) or true(*args))
    read_clip(mp4, SMALL)
    assert set(seen) == {torch.get_num_threads()} == {1}


def test_real_clips(test_data):
    limits = ClipLimits(VisualBudget(max_frames=4, min_pixels=28 * 28, max_pixels=16 * 28 * 28))
    clip = read_clip(test_data / "videorefer_dog" / "dog.mp4", limits, [0, 135])
    assert (clip.total, clip.height, clip.width) == (150, 720, 1280) and clip.fps == pytest.approx(29.97, abs=0.01)
    assert {0, 135} <= set(clip.numbers) and clip.frames.shape == (4, 3, 84, 140)
    frames = read_clip(test_data / "cutie_examples" / "examples" / "images" / "judo", limits, [15])
    assert frames.total == 16 and 15 in frames.numbers and len(frames.numbers) == 4
