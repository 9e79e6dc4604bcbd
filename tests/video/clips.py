"""Real video files for the tests, whose frames show which ones they are."""

import os
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch


def pictures(count: int, height: int = 56, width: int = 84) -> np.ndarray:
    """uint8[count, H, W, 3]: frame n is flat, of grey 10 + 12 * n, with a white right half."""
    frames = np.full((count, height, width, 3), 255, np.uint8)
    frames[:, :, : width // 2] = (10 + 12 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    return frames


def levels(frames: torch.Tensor) -> list[int]:
    """Which picture each frame of uint8[F, 3, h, w] shows, by its grey."""
    return [round((float(frame[:, 8:-8, 8:24].float().mean()) - 10) / 12) for frame in frames]


def moving_pictures(count: int, height: int = 72, width: int = 128) -> np.ndarray:
    """uint8[count, H, W, 3]: coarse noise that moves to the left, so that frames refer to each other."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 4 + count, 3), dtype=np.uint8)
    panorama = noise.repeat(8, axis=0).repeat(4, axis=1)
    return np.stack([panorama[:, 3 * number : 3 * number + width] for number in range(count)])


@contextmanager
def _own_priority():
    """Undoes what SVT-AV1 does as root: it makes the calling process a real-time one, which starves its own children."""
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, priority)


def write_video(
    path: Path,
    frames: np.ndarray,
    fps: int = 5,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    milliseconds: list[int] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Encodes uint8[F, H, W, 3]; the path's ending says the container. milliseconds: each frame's time, default even."""
    options = {"crf": "8", "g": "5"} if options is None else options
    with _own_priority(), av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options={"threads": "1", **options})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> list[np.ndarray]:
    """Every frame of a video, by plain decoding: the slow reference."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
