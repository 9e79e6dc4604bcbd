"""Frames to an mp4 file, a picture to a data URI."""

import base64
import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation
from PIL import Image

# The vector code of x264's macroblock tree reads past the end of a row of macroblocks, into whatever lay in memory
# before, whenever a row is no multiple of its registers: the same frames then gave other pixels, now and then.
_X264 = {"crf": "16", "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0:cpu-independent=1"}
_CONVERSION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float):
    """Writes uint8[H, W, 3] frames, all of one even size, as h264. Equal frames give equal bytes, on any x86 processor.

    An odd row or column at the end is left out. Raises ValueError without frames.
    """
    with av.open(str(path), "w") as container:
        stream = None
        for frame in frames:
            frame = np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=_X264)
                stream.height, stream.width, stream.pix_fmt = *frame.shape[:2], "yuv420p"
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = picture.reformat(format="yuv420p", interpolation=_CONVERSION)
            container.mux(stream.encode(picture))
        if stream is None:
            raise ValueError(f"{path}: no frames to write")
        container.mux(stream.encode())


def jpeg_uri(picture: Image.Image, quality: int = 90) -> str:
    """The picture as a JPEG data URI."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
