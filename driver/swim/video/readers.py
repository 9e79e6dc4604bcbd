"""Other libraries' readers of video files, for those who want frames as others read them; ours is `VideoFile`.

decord is what the paper's code reads with; torchcodec needs FFmpeg's libraries on the machine. tests/video/test_readers.py
lists the files of which they give other frames than they are asked for, without a word, or none.
"""

from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from swim.errors import DataError, Reason
from swim.video import Reader
from swim.video.decoder import VideoFile, refuse_picture


class NoReader(ValueError):
    """A reader that is not installed, or does not load here; `str(error)` says which and why."""


class OtherFile:
    """A video file through another library. The same interface as VideoFile; frames are numbered as the library does."""

    total: int
    fps: float
    _file: Any  # of the library

    def __init__(self, path: Path, name: str | None = None):
        self.path, self.name = path, name or str(path)
        try:
            refuse_picture(path)
            self._open()
        except NoReader:
            raise
        except Exception as error:  # each library has errors of its own, decord's are plain Exceptions
            raise self._unreadable(error) from None
        if not self.total:
            raise self._unreadable("it has no frame")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        del self._file

    @property
    def height(self) -> int:
        return self._first_size[0]

    @property
    def width(self) -> int:
        return self._first_size[1]

    def frames(self, numbers: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (frame number, uint8[H, W, 3]) for each of the sorted `numbers`. Raises DataError (UNREADABLE)."""
        for number in numbers:
            try:
                frame = self._frame(number)
            except Exception as error:
                raise self._unreadable(f"frame {number}: {error}") from None
            yield number, frame

    @cached_property
    def _first_size(self) -> tuple[int, ...]:  # decodes a frame, so not before somebody asks
        return next(self.frames([0]))[1].shape[:2]

    def _open(self):
        raise NotImplementedError

    def _frame(self, number: int) -> np.ndarray:
        raise NotImplementedError

    def _unreadable(self, problem) -> DataError:
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        return DataError(f"unreadable video {self.name} ({type(self).__name__}): {lines[0]}", reason=Reason.UNREADABLE)


class DecordFile(OtherFile):
    """decord 0.6, in one thread."""

    def _open(self):
        import decord

        self._file = decord.VideoReader(str(self.path), num_threads=1)
        self.total, self.fps = len(self._file), float(self._file.get_avg_fps())

    def _frame(self, number: int) -> np.ndarray:
        return self._file[number].asnumpy()


class TorchcodecFile(OtherFile):
    """torchcodec, in one thread, with an index of the whole file: `seek_mode="exact"`."""

    def _open(self):
        decoder = _torchcodec()
        self._file = decoder(str(self.path), seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
        self.total, self.fps = len(self._file), float(self._file.metadata.average_fps)

    def _frame(self, number: int) -> np.ndarray:
        return self._file[number].numpy()


_FILES: dict[Reader, type[VideoFile] | type[OtherFile]] = {
    "pyav": VideoFile,
    "decord": DecordFile,
    "torchcodec": TorchcodecFile,
}


def check_reader(reader: Reader):
    """Raises NoReader for one that does not work on this machine."""
    if reader == "decord" and find_spec("decord") is None:
        raise NoReader("decord is not installed; pip install decord, or use pyav")
    if reader == "torchcodec":
        _torchcodec()


def open_video(path: Path, name: str, reader: Reader = "pyav") -> VideoFile | OtherFile:
    """An open video file, to be closed. Raises DataError (UNREADABLE), NoReader."""
    return _FILES[reader](path, name)


def _torchcodec():
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError:
        raise NoReader("torchcodec is not installed; pip install torchcodec, or use pyav") from None
    except (OSError, RuntimeError):
        raise NoReader(
            "torchcodec finds no FFmpeg of version 4 to 8; install it (apt install ffmpeg), or use pyav"
        ) from None
    return VideoDecoder
