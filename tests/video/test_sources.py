"""What can be handed in as a video or image, and what each of them turns into."""

import base64
import errno
import io
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from swim.errors import DataError, Reason
from swim.video import sources
from swim.video.sources import describe_source, is_image_source, open_source

from .clips import pictures, write_video


def read(source, **settings) -> list[np.ndarray]:
    with open_source(source, **settings) as opened:
        frames = dict(opened.frames(list(range(opened.total))))
        assert sorted(frames) == list(range(opened.total))
        assert (opened.height, opened.width) in (frames[0].shape[:2], frames[0].shape[1::-1])
        return [frames[number] for number in range(opened.total)]


def png(image: Image.Image, **settings) -> bytes:
    content = io.BytesIO()
    image.save(content, "png", **settings)
    return content.getvalue()


@pytest.fixture(scope="module")
def mp4(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", pictures(6))


# ----------------------------------------------------------------------------------------------------------------------
# Local sources
# ----------------------------------------------------------------------------------------------------------------------


def test_a_folder_in_natural_order_with_its_own_rate(tmp_path):
    for number, frame in enumerate(pictures(12)):
        Image.fromarray(frame).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    assert np.array_equal(read(tmp_path), pictures(12))
    with open_source(str(tmp_path)) as opened:
        assert (opened.total, opened.fps, opened.height, opened.width) == (12, 24.0, 56, 84)
    with open_source(tmp_path, folder_fps=6.0) as opened:
        assert opened.fps == 6.0


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_frames_of_every_kind(tmp_path, kind):
    frames = pictures(6)
    Image.fromarray(frames[0]).save(tmp_path / "0.png")
    Image.fromarray(frames[1]).save(tmp_path / "1.png")
    data = "data:image/png;base64," + base64.b64encode(png(Image.fromarray(frames[2]))).decode()
    given = [tmp_path / "0.png", str(tmp_path / "1.png"), data]
    given += [Image.fromarray(frames[3]), frames[4], torch.tensor(frames[5])]
    assert np.array_equal(read(kind(given), folder_fps=3.0), frames)


def test_arrays_and_tensors():
    frames = pictures(3)
    planar = torch.from_numpy(frames).permute(0, 3, 1, 2)
    floats = frames.astype(np.float64)
    for video in (frames, floats, torch.from_numpy(frames), planar, planar.contiguous(), planar.float()):
        assert np.array_equal(read(video), frames)
    for image in (frames[1], torch.from_numpy(frames[1]), planar[1], Image.fromarray(frames[1])):
        assert np.array_equal(read(image), frames[1:2])
    narrow = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(
        2, 3, 5, 3
    )  # 3 in both places: the last one is the colour
    assert np.array_equal(read(narrow), narrow)


def test_a_file_url(mp4):
    assert len(read(f"file://{mp4}")) == 6


def test_what_is_an_image():
    assert is_image_source("a/b.JPG") and is_image_source(Path("b.webp"))
    assert is_image_source("http://x.org/a.png?size=3#top")
    assert is_image_source("data:image/png;base64,AAAA") and is_image_source(Image.new("RGB", (4, 4)))
    assert is_image_source(np.zeros((4, 4, 3), np.uint8)) and is_image_source(torch.zeros(3, 4, 4))
    videos = [
        "a.mp4",
        "a.gif",
        "folder",
        Path("x"),
        "http://x.org/a.mp4",
        "data:video/mp4;base64,AAAA",
        ["a.jpg"],
        None,
    ]
    assert not any(is_image_source(source) for source in videos)
    assert not is_image_source(np.zeros((2, 4, 4, 3), np.uint8))


def test_names_in_errors_stay_short(mp4):
    assert describe_source(mp4) == str(mp4)
    assert (
        describe_source("data:image/png;base64," + "A" * 5000) == "data:image/png;base64,AAAAAAAA... (5022 characters)"
    )
    assert describe_source([mp4, 3]) == f"a list of 2 frames, the first {mp4}"
    assert describe_source(np.zeros((2, 4, 4, 3))) == "ndarray [2, 4, 4, 3]"
    assert describe_source(None) == "NoneType"


# ----------------------------------------------------------------------------------------------------------------------
# Pixels of images
# ----------------------------------------------------------------------------------------------------------------------

RAMP = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "webp"])
def test_grey_becomes_three_equal_colours(tmp_path, ending):
    Image.fromarray(RAMP).save(tmp_path / f"grey.{ending}", **({"lossless": True} if ending == "webp" else {}))
    (found,) = read(tmp_path / f"grey.{ending}")
    assert np.array_equal(found, np.stack([RAMP] * 3, axis=2))


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_sixteen_bits_keep_their_high_byte(tmp_path, ending):
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / f"deep.{ending}")
    (found,) = read(tmp_path / f"deep.{ending}")
    assert np.array_equal(found[:, :, 0], RAMP)
    assert np.array_equal(read(Image.fromarray(RAMP.astype(np.int32) * 257))[0][:, :, 0], RAMP)


def test_what_is_transparent_lies_on_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (200, 100, 50, 255)
    pixels[0, 1] = (200, 100, 50, 0)
    pixels[1, 0] = (0, 0, 0, 51)  # a fifth
    (found,) = read(Image.fromarray(pixels))
    assert found[0, 0].tolist() == [200, 100, 50]
    assert found[0, 1].tolist() == [255] * 3 and found[1, 0].tolist() == [204] * 3
    (found,) = read(Image.fromarray(pixels).convert("LA"))
    assert found[0, 1].tolist() == [255] * 3


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8), mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    (tmp_path / "p.png").write_bytes(png(image, transparency=1))
    assert read(tmp_path / "p.png")[0].tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    (found,) = read(tmp_path / "print.jpg")
    assert found.shape == (16, 16, 3) and np.abs(found.astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.repeat(RAMP[:, :, None], 3, axis=2)
    as_stored = {  # what the camera wrote, so that a viewer shows `upright`
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(as_stored[orientation])).save(tmp_path / "phone.png", exif=exif)
    assert np.array_equal(read(tmp_path / "phone.png")[0], upright)


def test_floating_point_pixels_are_refused(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "float.tiff")
    for source in (tmp_path / "float.tiff", Image.fromarray(RAMP.astype(np.float32))):
        with pytest.raises(DataError, match="unreadable image .*expected 8 or 16 bits"):
            read(source)


# ----------------------------------------------------------------------------------------------------------------------
# What cannot be read
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason", "message"),
    [
        ("/no/such/clip.mp4", Reason.MISSING, "no such video or image: /no/such/clip.mp4"),
        ("x" * 5000, Reason.MISSING, "no such video or image: xxx"),
        ([], Reason.MISSING, "no image in a list of 0 frames"),
        (np.zeros((0, 4, 4, 3), np.uint8), Reason.MISSING, "no image in ndarray"),
        (["/no/frame.jpg"], Reason.MISSING, "no such video or image: /no/frame.jpg"),
        (np.zeros((4, 4), np.uint8), Reason.UNREADABLE, "expected an image .*found uint8 .4, 4."),
        (np.zeros((2, 4, 4, 4), np.uint8), Reason.UNREADABLE, "expected an image .*found uint8 .2, 4, 4, 4."),
        (np.zeros((4, 0, 3), np.uint8), Reason.UNREADABLE, "expected an image"),
        (np.zeros((4, 4, 3), np.int64), Reason.UNREADABLE, "expected uint8, .*found int64"),
        (torch.rand(2, 3, 4, 4), Reason.UNREADABLE, "from 0 to 255, found torch.float32"),
        (torch.rand(2, 3, 4, 4) * 300 - 20, Reason.UNREADABLE, "from 0 to 255"),
        (torch.full((2, 3, 4, 4), float("nan")), Reason.UNREADABLE, "from 0 to 255"),
        ("data:image/png,abc", Reason.UNREADABLE, "data:image/png,abc.*: expected base64"),
        ("data:image/png;base64,a?b", Reason.UNREADABLE, "not base64"),
        ("data:image/png;base64,QUJD", Reason.UNREADABLE, "unreadable video data:image/png;base64,QUJD"),
    ],
    ids=lambda value: describe_source(value)[:40],
)
def test_what_cannot_be_read_is_named(source, reason, message):
    with pytest.raises(DataError, match=message) as caught:
        read(source)
    assert caught.value.reason == reason


@pytest.mark.parametrize("source", [None, 7, {"a.mp4"}, [None], [3]], ids=str)
def test_what_can_be_no_source(source):
    with pytest.raises(TypeError, match="expected a path, URL, data URI, PIL image"):
        read(source)


def test_a_folder_without_images(tmp_path):
    with pytest.raises(DataError, match=f"no image in the frame folder {tmp_path}") as caught:
        read(tmp_path)
    assert caught.value.reason == Reason.MISSING


@pytest.mark.parametrize("cut", [0, 4, 20, 50, 1000])
def test_a_broken_image(tmp_path, cut):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (tmp_path / "cut.png").write_bytes(png(Image.fromarray(noise))[:cut])
    with pytest.raises(DataError, match="unreadable image .*cut.png: ") as caught:
        read(tmp_path / "cut.png")
    assert caught.value.reason == Reason.UNREADABLE


# ----------------------------------------------------------------------------------------------------------------------
# URLs
# ----------------------------------------------------------------------------------------------------------------------


class _Pages(BaseHTTPRequestHandler):
    pages: dict[str, bytes] = {}

    def do_GET(self):
        name = self.path.split("?")[0]
        if name == "/slow.mp4":
            time.sleep(5)
        if name not in self.pages:
            self.send_error(503 if name == "/busy.mp4" else 404)
            return
        content = self.pages[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) + (100 if name == "/broken.mp4" else 0)))
        self.end_headers()
        if name == "/stall.mp4":
            self.wfile.write(content[:200])
            time.sleep(2)
        elif name == "/drip.mp4":
            for start in range(0, len(content), 200):
                self.wfile.write(content[start : start + 200])
                time.sleep(0.05)
        else:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(mp4):
    """The address of a real HTTP server."""
    video, image = mp4.read_bytes(), png(Image.fromarray(pictures(1)[0]))
    _Pages.pages = {"/clip.mp4": video, "/clip": video, "/a.png": image, "/image": image}
    _Pages.pages |= {
        "/page.mp4": b"<html>sign in</html>",
        "/broken.mp4": video,
        "/slow.mp4": video,
        "/stall.mp4": video,
        "/drip.mp4": video * 20,
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch):
    """The folder of temporary files, which must be empty again afterwards; and no proxy before the local server."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(sources.tempfile, "tempdir", str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield folder
    assert not list(folder.iterdir())


def test_videos_and_images_behind_urls(site, mp4, temporary_files):
    assert np.array_equal(read(f"{site}/clip.mp4?key=1"), read(mp4))
    assert np.array_equal(read(f"{site}/clip"), read(mp4))
    for name in ("a.png", "image"):
        assert np.array_equal(read(f"{site}/{name}"), pictures(1))
    assert np.array_equal(read([f"{site}/a.png", f"{site}/image"]), np.concatenate([pictures(1)] * 2))
    with open_source(f"{site}/clip.mp4") as opened:
        next(opened.frames([0]))
        assert len(list(temporary_files.iterdir())) == 1  # gone when the source is closed, as the fixture checks


def test_data_uris(mp4):
    video = "data:video/mp4;base64," + base64.b64encode(mp4.read_bytes()).decode()
    assert np.array_equal(read(video), read(mp4))
    image = "data:image/png;charset=x;base64," + base64.b64encode(png(Image.fromarray(pictures(1)[0]))).decode()
    assert np.array_equal(read(image), pictures(1))


@pytest.mark.parametrize(
    ("name", "reason", "message"),
    [
        ("none.mp4", Reason.MISSING, "cannot be fetched .404"),
        ("page.mp4", Reason.UNREADABLE, "unreadable video http://127.*page.mp4: "),
        ("broken.mp4", Reason.NOT_READ, "the transfer broke off"),
        ("busy.mp4", Reason.NOT_READ, "cannot be fetched .503"),
        ("slow.mp4", Reason.TIMEOUT, "timed out"),
        ("stall.mp4", Reason.TIMEOUT, "timed out"),
        ("drip.mp4", Reason.TIMEOUT, "not there after 0.5 s"),
    ],
)
def test_a_url_that_fails_is_named(site, name, reason, message):
    with pytest.raises(DataError, match=message) as caught:
        read(f"{site}/{name}", limit_s=0.5)
    assert caught.value.reason == reason and f"{site}/{name}" in str(caught.value)


def test_nobody_listens():
    with pytest.raises(DataError, match="cannot be fetched") as caught:
        read("http://127.0.0.1:1/clip.mp4")
    assert caught.value.reason == Reason.NOT_READ


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png", "clip.webp"])
def test_an_error_of_the_disk_is_none_of_the_file(tmp_path, name):
    (tmp_path / name).symlink_to("/proc/self/mem")  # whose first byte is an I/O error
    with pytest.raises(DataError, match=f"{name}: .*Input/output error") as caught:
        read(tmp_path / name)
    assert caught.value.reason == Reason.NOT_READ


def test_a_stale_handle_of_a_shared_disk_is_no_missing_file(mp4, monkeypatch):
    stale = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    monkeypatch.setattr(sources.os, "stat", lambda path: (_ for _ in ()).throw(stale))
    with pytest.raises(DataError, match="Stale file handle") as caught:
        read(mp4)
    assert caught.value.reason == Reason.NOT_READ


def test_a_download_has_a_greatest_size(site, monkeypatch):
    monkeypatch.setattr(sources, "MAX_DOWNLOAD_BYTES", 1000)
    with pytest.raises(DataError, match="clip.mp4: larger than 1000 bytes") as caught:
        read(f"{site}/clip.mp4")
    assert caught.value.reason == Reason.UNREADABLE


def write_animation(path: Path, count: int = 6, **options) -> Path:
    frames = [Image.fromarray(pixels) for pixels in pictures(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=200, **options)
    return path


@pytest.mark.parametrize("name", ["anim.webp", "anim.png", "anim.avif", "anim.gif"])
def test_an_animated_picture_is_a_video(tmp_path, name):
    """All its frames, at its own rate, from a file as from a URL's."""
    path = write_animation(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    uri = f"data:image/{name[5:]};base64,{base64.b64encode(path.read_bytes()).decode()}"
    for source in (path, uri):
        with open_source(source) as opened:
            assert (opened.total, opened.height, opened.width) == (6, 56, 84)
            assert opened.fps == pytest.approx(5, rel=0.01)
            found = dict(opened.frames([0, 2, 5]))
        assert [round((float(found[n][8:-8, 8:24].mean()) - 10) / 12) for n in (0, 2, 5)] == [0, 2, 5]


def test_what_a_png_shows_where_nothing_moves_is_no_frame(tmp_path):
    path = write_animation(tmp_path / "anim.png", default_image=True)
    with open_source(path) as opened:
        assert opened.total == 5
        ((_, first),) = opened.frames([0])
    assert round((float(first[8:-8, 8:24].mean()) - 10) / 12) == 1


@pytest.mark.parametrize("ending", ["png", "webp", "jpg", "tif"])
def test_a_picture_alone_and_further_pictures_of_a_file_are_no_animation(tmp_path, ending):
    frames = [Image.fromarray(pixels) for pixels in pictures(2)]
    frames[0].save(tmp_path / f"one.{ending}")
    if ending in ("tif", "jpg"):  # pages; a phone's second view
        extra = {"format": "MPO"} if ending == "jpg" else {}
        frames[0].save(tmp_path / f"one.{ending}", save_all=True, append_images=frames[1:], **extra)
    with open_source(tmp_path / f"one.{ending}") as opened:
        assert opened.total == 1


def test_a_broken_animation_is_named(tmp_path):
    path = write_animation(tmp_path / "anim.webp")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="anim.webp"):
        with open_source(path) as opened:
            list(opened.frames(list(range(opened.total))))


def test_hidden_and_empty_files_are_no_frames(tmp_path):
    for number, pixels in enumerate(pictures(4)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        (tmp_path / f"._{number}.png").write_bytes(b"\0\5\26\7Mac OS X")
    (tmp_path / ".hidden.png").write_bytes(b"x")
    (tmp_path / "5.png").touch()
    (tmp_path / "6.png").mkdir()
    with open_source(tmp_path) as opened:
        assert opened.total == 4


@pytest.mark.parametrize("prefix", ["file://", "file://localhost", "FILE://", "file:"])
def test_a_file_url_is_decoded(tmp_path, prefix):
    folder = tmp_path / "with space"
    folder.mkdir()
    write_video(folder / "100% #1?.mp4", pictures(3))
    with open_source(f"{prefix}{tmp_path}/with%20space/100%25%20%231%3F.mp4") as opened:
        assert opened.total == 3


def test_the_file_of_another_machine_is_refused():
    with pytest.raises(DataError, match="a file of another machine"):
        with open_source("file://server/clip.mp4"):
            pass
