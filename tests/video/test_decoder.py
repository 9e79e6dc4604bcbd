"""Video files: a frame's number means the same as when everything is decoded, and nothing broken passes for whole."""

from fractions import Fraction
from pathlib import Path

import av
import decord
import numpy as np
import pytest

from swim.errors import DataError, Reason
from swim.video.decoder import VideoFile

from .clips import decode_all, moving_pictures, write_sound, write_video

X264 = {"g": "12", "bf": "3"}
X265 = "log-level=none:keyint=12:bframes=3"
IRREGULAR = (np.cumsum(np.random.default_rng(0).integers(20, 300, 40)) + 5000).tolist()  # the first one is not 0
# name: container, codec, options, other arguments of write_video
FILES = {
    "b-frames": ("mp4", "libx264", X264, {}),
    "no-b-frames": ("mp4", "libx264", {"g": "12", "bf": "0"}, {}),
    "one-key-frame": ("mp4", "libx264", {"g": "250"}, {}),
    "all-key-frames": ("mp4", "libx264", {"g": "1"}, {}),
    "ten-bits": ("mp4", "libx264", X264, {"pix_fmt": "yuv420p10le"}),
    "fragments": ("mp4", "libx264", X264, {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "variable-rate-mp4": ("mp4", "libx264", X264, {"milliseconds": IRREGULAR}),
    "variable-rate-mkv": ("mkv", "libx264", X264, {"milliseconds": IRREGULAR}),
    "open-groups": ("mkv", "libx264", X264 | {"x264-params": "open-gop=1"}, {}),
    "no-fresh-start": ("mkv", "libx264", {"g": "12", "x264-params": "intra-refresh=1"}, {}),
    "hevc": ("mp4", "libx265", {"x265-params": X265 + ":open-gop=1"}, {}),
    "hevc-layers": ("mkv", "libx265", {"x265-params": X265 + ":temporal-layers=1"}, {}),
    "vp8": ("webm", "libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16", "b": "200k"}, {}),
    "vp9": ("webm", "libvpx-vp9", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16"}, {}),
    "av1-mp4": ("mp4", "libsvtav1", {"g": "12", "preset": "12"}, {}),
    "av1-webm": ("webm", "libsvtav1", {"g": "12", "preset": "12"}, {}),
    "transport-stream": ("ts", "libx264", X264, {}),
    "program-stream": ("mpg", "mpeg1video", {"g": "12", "bf": "2"}, {"fps": 25}),
    "avi": ("avi", "mpeg4", {"g": "12", "bf": "2"}, {}),
    "avi-without-times": ("avi", "libx264", X264, {}),
    "flash": ("flv", "libx264", X264, {}),
    "gif": ("gif", "gif", {}, {"pix_fmt": "rgb8"}),
    "no-container": ("h264", "libx264", X264, {}),
}


@pytest.fixture(scope="module")
def make_file(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("files"), {}

    def make(name: str):
        if name not in made:
            ending, codec, options, others = FILES[name]
            path = folder / f"{name}.{ending}"
            made[name] = write_video(path, moving_pictures(40), codec=codec, options=options, **others)
        return made[name]

    return make


def read(path, numbers) -> dict[int, np.ndarray]:
    with VideoFile(path) as file:
        return dict(file.frames(numbers))


@pytest.mark.parametrize("name", FILES)
def test_any_choice_gives_the_frames_of_a_full_decode(make_file, name):
    path = make_file(name)
    expected = decode_all(path)
    with VideoFile(path) as file:
        assert file.total == len(expected) == 40
        assert (file.height, file.width) == expected[0].shape[:2]
    random = np.random.default_rng(0)
    choices = [[0], [39], [13], [11, 12, 13], list(range(40))]
    choices += [sorted(random.choice(40, size, replace=False).tolist()) for size in (2, 5, 9)]
    for numbers in choices:
        found = read(path, numbers)
        assert sorted(found) == numbers
        assert all(np.array_equal(found[number], expected[number]) for number in numbers)


@pytest.mark.parametrize("name", ["b-frames", "no-b-frames", "fragments", "variable-rate-mp4", "vp8", "vp9", "flash"])
def test_numbers_and_pixels_are_decords_where_decord_is_right(make_file, name):
    reader = decord.VideoReader(str(make_file(name)), num_threads=1)
    numbers = [0, 1, 11, 12, 30, 39]
    found = read(make_file(name), numbers)
    assert len(reader) == 40
    for number, frame in zip(numbers, reader.get_batch(numbers).asnumpy()):
        assert np.abs(found[number].astype(int) - frame).max() <= 3  # rounding of yuv to rgb


@pytest.mark.parametrize("name", ["b-frames", "flash", "transport-stream", "av1-webm", "avi"])
def test_the_rate_of_an_even_file(make_file, name):
    with VideoFile(make_file(name)) as file:
        assert file.fps == pytest.approx(5.0, abs=1e-9)


@pytest.mark.parametrize("name", ["variable-rate-mp4", "variable-rate-mkv"])
def test_the_mean_rate_of_an_uneven_file(make_file, name):
    with VideoFile(make_file(name)) as file:
        assert file.fps == pytest.approx(39 / (IRREGULAR[-1] - IRREGULAR[0]) * 1000)


def test_only_the_needed_groups_are_decoded(make_file, monkeypatch):
    decoded = []
    true = VideoFile._forward

    def counting(self, key, wanted):
        decoded.append((key, len(wanted)))
        yield from true(self, key, wanted)

    monkeypatch.setattr(VideoFile, "_forward", counting)
    read(make_file("b-frames"), [13, 14, 38])
    assert [count for _, count in decoded] == [2, 1]  # two groups, and no second run from the start


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_upright_as_with_decord(tmp_path, degrees):
    path = write_video(tmp_path / "phone.mp4", moving_pictures(4, 64, 96), rotation=degrees)
    expected = decord.VideoReader(str(path), num_threads=1)[2].asnumpy()
    found = read(path, [2])[2]
    assert found.shape == expected.shape and np.abs(found.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_what_comes_before_the_first_key_frame_does_not_count(tmp_path, codec):
    options = {"libx265": {"x265-params": X265}}.get(codec, {"g": "12", "bf": "2"})
    whole = write_video(tmp_path / "whole.ts", moving_pictures(40), fps=25, codec=codec, options=options)
    content = whole.read_bytes()
    late = tmp_path / "late.ts"
    late.write_bytes(content[len(content) // 5 // 188 * 188 :])
    expected = decode_all(late)
    with VideoFile(late) as file:
        assert file.total == len(expected) < 40
        numbers = [0, 1, 2, file.total - 1]
        found = dict(file.frames(numbers))
    assert all(np.array_equal(found[number], expected[number]) for number in numbers)


def test_what_an_edit_list_hides_does_not_count(tmp_path):
    """As in clips that were cut out of a longer video without encoding them again."""
    whole = write_video(tmp_path / "whole.mp4", moving_pictures(40), options=X264)
    path = tmp_path / "clipped.mp4"
    with av.open(str(whole)) as source, av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        copied = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts -= round(3 / 5 / packet.time_base)  # three frames before time 0
                packet.dts -= round(3 / 5 / packet.time_base)
                packet.stream = copied
                container.mux(packet)
    expected = decode_all(whole)[3:]
    with VideoFile(path) as file:
        assert file.total == len(decode_all(path)) == 37 and file.fps == 5.0
        assert all(np.array_equal(frame, expected[number]) for number, frame in file.frames([0, 1, 12, 36]))


def test_a_name_with_a_colon_is_a_file(tmp_path):
    path = write_video(tmp_path / "http:clip.mp4", moving_pictures(3))
    assert sorted(read(path, [0, 2])) == [0, 2]


def test_a_cover_picture_is_no_video(tmp_path):
    sound = write_sound(tmp_path / "sound.mp4")
    with av.open(str(sound)) as source, av.open(str(tmp_path / "cover.mp4"), "w") as container:
        copied = container.add_stream_from_template(source.streams.audio[0])
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 72, 128, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(moving_pictures(1)[0], format="rgb24")))
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = copied
                container.mux(packet)
    with pytest.raises(DataError, match="unreadable video .*cover.mp4: it has no video stream"):
        VideoFile(tmp_path / "cover.mp4")


# ----------------------------------------------------------------------------------------------------------------------
# Broken files
# ----------------------------------------------------------------------------------------------------------------------


def refused(path) -> str:
    """The error that reading the whole file ends with; never fewer, black or repeated frames."""
    with pytest.raises(DataError, match=f"unreadable video .*{path.name}: ") as caught:
        with VideoFile(path) as file:
            list(file.frames(list(range(file.total))))
    assert caught.value.reason == Reason.UNREADABLE
    return str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a video" * 50], ids=["empty", "text"])
def test_what_is_no_video(tmp_path, content):
    (tmp_path / "bad.mp4").write_bytes(content)
    refused(tmp_path / "bad.mp4")


def test_sound_alone(tmp_path):
    assert "no video stream" in refused(write_sound(tmp_path / "sound.mp4"))


@pytest.mark.parametrize("name", ["b-frames", "open-groups", "vp9", "av1-webm", "av1-mp4", "avi", "faststart"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_file(make_file, tmp_path, name, share):
    if name == "faststart":  # its header is whole
        options = {"movflags": "faststart"}
        whole = write_video(tmp_path / "whole.mp4", moving_pictures(40), options=X264, container_options=options)
    else:
        whole = make_file(name)
    path = tmp_path / f"cut{whole.suffix}"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    refused(path)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_of_cut_fragments_only_true_frames_are_read(make_file, tmp_path, share):
    """Nothing in such a file tells whether whole fragments are missing behind its end."""
    whole, path = make_file("fragments"), tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    try:
        with VideoFile(path) as file:
            found = dict(file.frames(list(range(file.total))))
    except DataError as error:
        assert error.reason == Reason.UNREADABLE
    else:
        expected = decode_all(whole)
        assert 0 < len(found) < 40 and all(np.array_equal(frame, expected[number]) for number, frame in found.items())


@pytest.mark.parametrize("name", ["one-key-frame", "b-frames", "av1-mp4", "avi"])
def test_a_file_with_noise_in_it(make_file, tmp_path, name):
    content = bytearray(make_file(name).read_bytes())
    with av.open(str(make_file(name))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size and not packet.is_keyframe]
    largest = max(packets, key=lambda packet: packet.size)  # others refer to it
    position, size = largest.pos, largest.size
    start = position + min(size // 4, 40)
    content[start : position + size] = np.random.default_rng(0).bytes(position + size - start)
    path = tmp_path / f"noise{make_file(name).suffix}"
    path.write_bytes(content)
    refused(path)


def test_damage_that_no_wanted_frame_needs_does_not_matter(make_file, tmp_path):
    content = bytearray(make_file("b-frames").read_bytes())
    with av.open(str(make_file("b-frames"))) as container:
        packets = sorted((packet.pts, packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)
    _, position, size = packets[3]
    content[position + 5 : position + size] = bytes(size - 5)
    (tmp_path / "noise.mp4").write_bytes(content)
    expected = decode_all(make_file("b-frames"))
    found = read(tmp_path / "noise.mp4", [24, 30])
    assert all(np.array_equal(found[number], expected[number]) for number in (24, 30))
    refused(tmp_path / "noise.mp4")


def remux_in_storing_order(source: Path, target: Path) -> Path:
    """The packets of a file with their place as the time of showing: what `-c copy` makes of a raw stream."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        number = 0
        for packet in given.demux(given.streams.video[0]):
            if packet.size:
                packet.pts = packet.dts = number * 512
                packet.duration, packet.time_base, packet.stream = 512, Fraction(1, 2560), stream
                made.mux(packet)
                number += 1
    return target


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libx265"])
def test_times_in_the_order_of_storing_are_not_believed(tmp_path, codec, ending):
    options = {"libx264": X264, "mpeg4": {"bf": "2", "g": "12", "qscale": "2"}, "libx265": {"x265-params": X265}}[codec]
    source = write_video(tmp_path / "right.mkv", moving_pictures(40), codec=codec, options=options)
    wrong = remux_in_storing_order(source, tmp_path / f"wrong.{ending}")
    expected = decode_all(wrong)
    with VideoFile(wrong) as file:
        assert file.total == len(expected) >= 38
    for numbers in ([3, 5, 7, 25], list(range(len(expected)))):
        found = read(wrong, numbers)
        assert all(np.array_equal(found[number], expected[number]) for number in numbers)


def test_a_file_that_could_reorder_and_does_not_keeps_its_times(make_file, tmp_path):
    """Frames may be stored in another order by its header, but none is: seeking stays possible."""
    path = write_video(
        tmp_path / "still.mp4",
        moving_pictures(40),
        options={"g": "12", "bf": "3", "b_strategy": "0", "weightp": "0", "ref": "1", "x264-params": "bframes=0"},
    )
    with VideoFile(path) as file:
        assert file._timestamps is not None and file.total == 40
    with VideoFile(make_file("b-frames")) as file:
        assert file._timestamps is not None


def write_two_streams(path: Path, first: np.ndarray, second: np.ndarray, default: int | None) -> Path:
    """A file with two video streams; `default`, if any, is marked so."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, frames in enumerate((first, second)):
            stream = container.add_stream("libx264", rate=5, options={"threads": "1", "crf": "8"})
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            stream.disposition = av.stream.Disposition.default if number == default else av.stream.Disposition(0)
            streams.append(stream)
        for stream, frames in zip(streams, (first, second)):
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
            container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("sizes", "default", "chosen"),
    [
        (((56, 84), (112, 168)), None, 1),
        (((112, 168), (56, 84)), None, 0),
        (((112, 168), (56, 84)), 1, 1),
        (((56, 84), (112, 168)), 0, 0),
        (((56, 84), (56, 84)), None, 0),
    ],
)
def test_the_stream_is_the_one_that_ffmpeg_takes(tmp_path, sizes, default, chosen):
    frames = [moving_pictures(count, *size) for count, size in zip((1, 12), sizes)]
    path = write_two_streams(tmp_path / "two.mkv", *frames, default)
    with VideoFile(path) as file:
        assert (file.height, file.width) == sizes[chosen] and file.total == (1, 12)[chosen]


def not_opened(path: Path) -> str:
    with pytest.raises(DataError) as error:
        VideoFile(path)
    assert error.value.reason == Reason.UNREADABLE
    return str(error.value)


def test_playlists_and_scripts_open_no_other_file(tmp_path):
    """Each names a video of this machine by its absolute path, or is a text that FFmpeg would draw."""
    secret = write_video(tmp_path / "secret.mp4", moving_pictures(12))
    texts = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{secret}\n#EXT-X-ENDLIST\n",
        "list.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{secret}\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "list.txt": f"ffconcat version 1.0\nfile '{secret}'\n",
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "manifest.mpd": f"<?xml version='1.0'?><MPD><Period><BaseURL>{secret}</BaseURL></Period></MPD>",
        "art.txt": "an ordinary text file\n" * 100,
        "art.ans": "\x1b[31mred\x1b[0m\n" * 100,
        "subtitles.srt": "1\n00:00:00,000 --> 00:00:02,000\nHello\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert f"unreadable video {tmp_path / name}: " in not_opened(tmp_path / name), name
    assert "it is in no container that may be opened (mp4, mov," in not_opened(tmp_path / "list.m3u8")


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_a_picture_in_a_videos_container_is_not_read_as_its_first_tile(tmp_path, brand):
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
    assert "a picture in HEIF (HEIC or AVIF), of which one tile would be read; save it as JPEG or PNG" in not_opened(
        tmp_path / "photo.heic"
    )


def test_a_real_photograph_of_a_phone_is_refused(test_data):
    path = test_data / "cases" / "heic-grid" / "grid.heic"
    if not path.exists():
        pytest.skip("no cases in the test data")
    assert "a picture in HEIF" in not_opened(path)
