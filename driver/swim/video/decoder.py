"""Video files: which frames they have, and the wanted ones decoded.

PyAV does it alone. decord 0.6, which others use, was measured beside it: it takes half as long again, reads no AV1, GIF
or raw H.264, can hang, and of many files gives other frames than it is asked for, without a word. Asked for 0, 1, 11, 12,
30, 39 it gave 0, 1, 12, 13, 30, 39 of an HEVC file, 0, 1, 1, 2, 30, 37 of H.264 with open groups, 12, 13, 23, 24, 39, 30
of a transport stream. Where decord is right, tests/video/test_decoder.py finds the same numbers and pixels with both.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import av
import numpy as np

from swim.errors import DataError, Reason

# What a broken file makes PyAV raise; some of its own errors are also one of the others.
_UNREADABLE = (av.FFmpegError, OSError, ValueError, IndexError, ArithmeticError)
# Headers may round, or count a last frame in another way: only what ends earlier than this before its header's end is
# taken for cut off.
_END_TOLERANCE_S, _END_TOLERANCE = 0.5, 0.02
# Containers that may be opened. Others are scripts, playlists and sequences, which open further files, or text that
# FFmpeg would draw.
_CONTAINERS = "mp4, mov, mkv, webm, avi, gif, flv, mpg, ts, ogg, wmv and the like"
# Containers whose index finds a key frame exactly; elsewhere (MPEG streams) the packets found may carry false timestamps.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,live_flv,mpegts,mpegtsraw,mpeg,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,"
    "ogg,asf,rm,mxf,dv,nut,wtv,gif,vc1,h263,h261,yuv4mpegpipe,nsv,swf,film_cpk,roq,smk,bink"
)
# Pictures in the container of an mp4: FFmpeg would show the first tile of a phone's photograph.
_PICTURE_BRANDS = {
    b"heic",
    b"heix",
    b"heim",
    b"heis",
    b"hevc",
    b"hevx",
    b"mif1",
    b"mif2",
    b"msf1",
    b"miaf",
    b"avif",
    b"avis",
}
# Codecs whose frames may be stored in another order than they are shown.
_REORDER_UNSEEN = ("mpeg4", "msmpeg4v3", "vc1", "wmv3", "mpeg2video", "mpeg1video")
_DEFAULT_BONUS_PX = 5_000_000  # what FFmpeg's own choice of a stream gives to the default one
_READ_BYTES = 1 << 20
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")


class VideoFile:
    """An open video file. A frame's number is its place among the frames that decoding the whole file shows.

    name: what errors call it. total: number of frames. fps: their mean rate. height, width: of a frame as stored, which
    `frames` may turn. Raises DataError (UNREADABLE) for a file that is no video, has no frame or is cut off.
    """

    def __init__(self, path: Path, name: str | None = None):
        self.path, self.name = path, name or str(path)
        self._keys: list[int] = []
        self._timestamps: list[int] | None = None  # None: they tell nothing, frames are counted
        with self._naming():
            self._open()
            try:
                self._read_index()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._container.close()

    def frames(self, numbers: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (frame number, uint8[H, W, 3]) for each of the sorted `numbers`, upright, in any order.

        Little more than these is decoded. Raises DataError (UNREADABLE) where a frame would be damaged or is missing.
        """
        with self._naming():
            times = self._timestamps
            for number, frame in self._counted(numbers) if times is None else self._sought(numbers, times):
                pixels = frame.to_ndarray(format="rgb24")
                yield number, np.rot90(pixels, frame.rotation // 90)  # the player turns phone videos so, and decord too

    @contextmanager
    def _naming(self):
        try:
            yield
        except _UNREADABLE as error:
            reason, problem = _why(self.path, error)
            raise DataError(f"unreadable video {self.name}: {problem}", reason=reason) from None

    def _open(self):
        refuse_picture(self.path)
        # with "file:" a name such as "a:b.mp4" is no protocol's
        options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
        try:
            self._container = av.open(f"file:{self.path}", options=options, metadata_errors="ignore")
        except av.ArgumentError:  # what FFmpeg says of a format that is not on the list
            raise ValueError(f"it is in no container that may be opened ({_CONTAINERS})") from None
        cover = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams:
            self.close()
            raise ValueError("it has no video stream")
        self._stream = max(streams, key=_preference)
        self._stream.codec_context.thread_count = 1
        self.height, self.width = self._stream.codec_context.height, self._stream.codec_context.width

    def _read_index(self):
        """Finds the timestamps of frames and key frames in the packets: nothing is decoded."""
        timestamps: list[int | None] = []
        keys: list[int | None] = []
        ends_s = [0.0]
        for packet in self._container.demux():  # sound too: the longest stream tells whether the file is whole
            if not packet.size:
                continue
            if packet.pts is not None and packet.time_base is not None:
                ends_s.append(float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != self._stream.index:
                continue
            if packet.is_corrupt:
                raise ValueError("it is cut off or damaged")
            if packet.is_keyframe:
                keys.append(packet.pts)
            if keys and not packet.is_discard:  # what comes before the first key frame cannot be decoded
                timestamps.append(packet.pts)
        self._refuse_a_cut_file(max(ends_s))
        unordered = self._container.format.name == "avi"  # it has no place for the order in which frames are shown
        times = [time for time in timestamps if time is not None]
        if unordered or len(set(times)) < len(timestamps):  # some are missing or doubled: count the decoded frames
            self.total = sum(1 for _ in self._counted(None))
        else:
            self._keys = sorted(key for key in keys if key is not None)
            self._timestamps = sorted(time for time in times if time >= self._keys[0])
            self.total = len(self._timestamps)
            if times == sorted(times) and self._may_reorder():
                self._count_if_times_run_backwards()
        if not self.total:
            raise ValueError("it has no frame")
        self.fps = self._mean_rate()

    def _may_reorder(self) -> bool:
        codec = self._stream.codec_context
        return bool(codec.has_b_frames) or codec.name in _REORDER_UNSEEN

    def _count_if_times_run_backwards(self):
        """Remuxed raw streams carry the order of storing as the time of showing: the decoder then shows frames whose
        times run backwards, and only their count tells which is which."""
        last, total = None, 0
        for _, frame in self._counted(None):
            if last is not None and frame.pts is not None and frame.pts < last:
                self._timestamps = None
            last, total = frame.pts, total + 1
        if self._timestamps is None:
            self.total = total

    def _refuse_a_cut_file(self, end_s: float):
        header_s = (self._container.duration or 0) / av.time_base
        if end_s and header_s - end_s > _END_TOLERANCE_S + _END_TOLERANCE * header_s:
            raise ValueError(f"it is cut off: {header_s:.1f} s by its header, {end_s:.1f} s found")

    def _mean_rate(self) -> float:
        """Frames a second by the timestamps: of variable rates headers often tell another one."""
        if self._timestamps is None or self.total == 1 or self._stream.time_base is None:
            return float(self._stream.average_rate or self._stream.guessed_rate or 1)
        return float((self.total - 1) / ((self._timestamps[-1] - self._timestamps[0]) * self._stream.time_base))

    def _counted(self, numbers: list[int] | None) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames with these numbers (None: all), for files without usable timestamps: decodes from the start."""
        self.close()
        self._open()
        wanted = None if numbers is None else set(numbers)
        last = None if numbers is None else numbers[-1]
        for number, frame in enumerate(self._container.decode(self._stream)):
            _refuse_damage(frame)
            if wanted is None or number in wanted:
                yield number, frame
            if last is not None and number >= last:
                return

    def _sought(self, numbers: list[int], timestamps: list[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames with these numbers, each decoded from the key frame before it.

        Not every key frame starts afresh: what is not found in this way, whole, is looked for from the file's start.
        """
        number_of = {timestamps[number]: number for number in numbers}
        missing = set(number_of)
        sought = number_of if self._container.format.name in _SEEKABLE else {}
        for key, times in groupby(sought, lambda time: self._keys[bisect_right(self._keys, time) - 1]):
            try:
                self._container.seek(key, stream=self._stream)
                for time, frame in self._forward(key, set(times)):
                    missing.discard(time)
                    yield number_of[time], frame
            except (av.FFmpegError, ValueError):
                pass
        if missing:
            self.close()
            self._open()
            for time, frame in self._forward(self._keys[0], set(missing)):
                missing.discard(time)
                yield number_of[time], frame
        if missing:
            raise ValueError(f"frame {number_of[min(missing)]} is missing from it")

    def _forward(self, key: int, wanted: set[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """(timestamp, frame) for the wanted timestamps, decoded from the key frame with timestamp `key` on."""
        codec, started = self._stream.codec_context, False
        may_skip = codec.name == "h264"  # only there "not for reference" is a promise that no other frame needs it
        for packet in self._container.demux(self._stream):
            if not started and packet.size:
                if not packet.is_keyframe:
                    continue
                if packet.pts is None or packet.pts > key:
                    return
                started = True
            if may_skip:
                codec.skip_frame = "NONREF" if packet.size and packet.pts not in wanted else "DEFAULT"
            for frame in codec.decode(packet if packet.size else None):
                if frame.pts is None or frame.pts < key:  # of the group before: it lacks what it refers to
                    continue
                _refuse_damage(frame)
                if frame.pts in wanted:
                    wanted.discard(frame.pts)
                    yield frame.pts, frame
            if not wanted:
                return


def _why(path: Path, error: Exception) -> tuple[Reason, object]:
    """(reason, what is said of it): FFmpeg calls many a damaged file an I/O error, and takes many an I/O error for the
    file's end, so the file is read once more to learn whether the disk gives it."""
    problem = getattr(error, "strerror", None) or error  # without the name of a temporary file
    try:
        with path.open("rb") as file:
            while file.read(_READ_BYTES):
                pass
    except OSError as failure:
        return Reason.of(failure, Reason.UNREADABLE), failure.strerror or failure
    return Reason.UNREADABLE, problem


def _preference(stream) -> int:
    """FFmpeg's own order: the largest picture, with a bonus for the stream that is marked default."""
    codec = stream.codec_context
    return codec.width * codec.height + _DEFAULT_BONUS_PX * bool(stream.disposition & av.stream.Disposition.default)


def refuse_picture(path: Path):
    """Raises ValueError for a HEIF picture, which passes for an mp4."""
    with path.open("rb") as file:
        beginning = file.read(12)
    if beginning[4:8] == b"ftyp" and beginning[8:12] in _PICTURE_BRANDS:
        raise ValueError(
            "it is a picture in HEIF (HEIC or AVIF), of which one tile would be read; save it as JPEG or PNG"
        )


def _refuse_damage(frame: av.VideoFrame):
    if frame.is_corrupt:
        raise ValueError(f"it is damaged at {frame.time:.2f} s")
