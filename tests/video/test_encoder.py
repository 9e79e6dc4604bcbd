import random
from hashlib import sha256

import numpy as np
import pytest

from swim.video import encoder
from swim.video.encoder import write_video

from .clips import moving_pictures


def churn(seed: int) -> list[np.ndarray]:
    """Fills memory with changing bytes and frees half of it, so that the next allocations find other contents."""
    draw = random.Random(seed)
    blocks = [np.full(draw.randrange(1_000, 400_000), draw.randrange(256), np.uint8) for _ in range(60)]
    draw.shuffle(blocks)
    return blocks[::2]


def churning(frames, seed: int):
    for number, frame in enumerate(frames):
        kept = churn(1000 * seed + number)
        yield frame
        del kept


@pytest.mark.parametrize("height, width", [(168, 56), (168, 168), (168, 300), (90, 160), (100, 84)])
def test_equal_frames_give_equal_bytes_whatever_lay_in_memory_before(tmp_path, height, width):
    frames = moving_pictures(12, height, width)
    written = set()
    for number in range(20):
        path = tmp_path / f"{number}.mp4"
        write_video(path, churning(frames, number), 8)
        written.add(sha256(path.read_bytes()).hexdigest())
    assert len(written) == 1


def test_equal_frames_give_equal_bytes_on_a_processor_without_vector_instructions(tmp_path, monkeypatch):
    frames = moving_pictures(12, 168, 168)
    write_video(tmp_path / "vector.mp4", frames, 8)
    monkeypatch.setitem(encoder._X264, "x264-params", encoder._X264["x264-params"] + ":asm=0")
    write_video(tmp_path / "plain.mp4", frames, 8)
    assert (tmp_path / "vector.mp4").read_bytes() == (tmp_path / "plain.mp4").read_bytes()
