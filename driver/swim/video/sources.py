"""What a user may hand in as a video or an image: turned into something that yields numbered frames.

Pixels are upright as viewers and annotation tools show them: an image's EXIF orientation is applied, and so is a video's
rotation (decord does that too). A mask belongs to this upright frame. Of a mask made on the stored pixels of a turned
file, a quarter turn shows in its size and is refused (decode_mask); a half turn or a mirror image cannot be told: store
such images upright.
"""

import base64
import binascii
import os
import re
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from swim.errors import DataError, Reason
from swim.video import Reader
from swim.video.archives import member_file, split_member
from swim.video.decoder import VideoFile
from swim.video.fetched import fetched
from swim.video.readers import OtherFile, open_video
from swim.video.remote import download, is_stored, is_url, read_range, stat, without_secrets

IMAGE_ENDINGS = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"}
_ANIMATED = ("WEBP", "PNG", "AVIF")  # GIF is a video anyway; the further pictures of a JPEG or TIFF are no frames
# Frame folders carry no rate of their own; DAVIS, the most common source, is 24.
FOLDER_FPS = 24.0
MAX_DOWNLOAD_BYTES = 2_000_000_000
# Pillow's name for what a download may be besides a video (it also knows some video formats, by name alone).
_IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF")
# What Pillow raises for a broken file.
BROKEN_IMAGE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)
_DATA_URI = re.compile(r"data:([\w.+-]*)[^,]*?(;base64)?,", re.IGNORECASE)


def is_image_source(source) -> bool:
    """Whether `open_source` gives an image, a clip of one frame; what a URL without an ending holds is not known."""
    if isinstance(source, (str, Path)):
        text = str(source)
        if text.lower().startswith("data:"):
            return text.lower().startswith("data:image/")
        return Path(re.split(r"[?#]", text)[0] if is_url(text) else text).suffix.lower() in IMAGE_ENDINGS
    return isinstance(source, Image.Image) or (isinstance(source, (np.ndarray, torch.Tensor)) and source.ndim == 3)


def describe_source(source) -> str:
    """What errors call a source."""
    if isinstance(source, (str, Path)):
        text = str(source)
        if is_url(text):
            return without_secrets(text)
        return text if not text.lower().startswith("data:") else f"{text[:30]}... ({len(text)} characters)"
    if isinstance(source, (list, tuple)):
        first = f", the first {describe_source(source[0])}" if source else ""
        return f"a list of {len(source)} frames{first}"
    return f"{type(source).__name__} {list(source.shape)}" if hasattr(source, "shape") else type(source).__name__


class Pictures:
    """Frames that are pictures of their own. The same interface as VideoFile.

    items: paths, URLs, data URIs, PIL images, arrays or tensors uint8[H, W, 3]. total, fps, height, width: as there.
    """

    def __init__(self, items: Sequence | np.ndarray, name: str, fps: float, limit_s: float):
        if not len(items):
            raise DataError(f"no image in {name}", reason=Reason.MISSING)
        self.items, self.name, self.total, self.fps, self._limit_s = items, name, len(items), fps, limit_s

    @property
    def height(self) -> int:
        return self._first_size[0]

    @property
    def width(self) -> int:
        return self._first_size[1]

    def frames(self, numbers: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (frame number, uint8[H, W, 3]). Raises DataError naming a picture that is missing or does not decode."""
        for number in numbers:
            yield number, self._read(self.items[number])

    def _read(self, item) -> np.ndarray:
        if isinstance(item, (np.ndarray, torch.Tensor)):
            return _as_frames(item)[0]
        with self._opened(item) as image:
            return _rgb(image)

    @cached_property
    def _first_size(self) -> tuple[int, int]:
        if isinstance(self.items[0], (np.ndarray, torch.Tensor)):
            return _as_frames(self.items[0])[0].shape[:2]
        with self._opened(self.items[0]) as image:
            return image.height, image.width

    @contextmanager
    def _opened(self, item) -> Iterator[Image.Image]:
        try:
            if isinstance(item, Image.Image):
                yield item
            else:
                with local_file(item, self._limit_s) as path, Image.open(path) as image:
                    yield image
        except BROKEN_IMAGE as error:
            problem = "it is no image" if isinstance(error, UnidentifiedImageError) else error
            raise DataError(
                f"unreadable image {describe_source(item)}: {problem}", reason=Reason.of(error, Reason.UNREADABLE)
            ) from None


class Animation:
    """The frames of an animated WebP, PNG or AVIF, each as it is shown. The same interface as VideoFile."""

    def __init__(self, path: Path, name: str):
        self.name, self._path = name, path
        with self._opened() as image:
            self._first = int(bool(image.info.get("default_image")))  # what a PNG shows where nothing moves
            self.total = getattr(image, "n_frames", 1) - self._first
            self.width, self.height = image.size
            self.fps = self.total / (sum(map(_duration_s, self._walk(image))) or self.total / FOLDER_FPS)

    def frames(self, numbers: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (frame number, uint8[H, W, 3]) for each of the sorted `numbers`. Raises DataError (UNREADABLE)."""
        wanted = set(numbers)
        with self._opened() as image:
            for number, shown in enumerate(self._walk(image)):
                if number in wanted:
                    yield number, _rgb(shown)

    def _walk(self, image: Image.Image) -> Iterator[Image.Image]:
        for number in range(self._first, self._first + self.total):
            image.seek(number)
            image.load()
            yield image

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        try:
            with Image.open(self._path) as image:
                yield image
        except (*BROKEN_IMAGE, EOFError) as error:
            raise DataError(
                f"unreadable animation {self.name}: {error}", reason=Reason.of(error, Reason.UNREADABLE)
            ) from None


def is_animation(source) -> bool:
    """Whether a path is that of an animated picture; False for whatever cannot be opened as one."""
    try:
        with Image.open(source, formats=_ANIMATED) as image:
            return getattr(image, "n_frames", 1) > 1
    except (*BROKEN_IMAGE, EOFError, TypeError, AttributeError):
        return False


def _duration_s(image: Image.Image) -> float:
    return float(image.info.get("duration") or 0) / 1000


Opened = VideoFile | OtherFile | Animation | Pictures


@contextmanager
def open_source(
    source, folder_fps: float = FOLDER_FPS, limit_s: float = 60.0, reader: Reader = "pyav"
) -> Iterator[Opened]:
    """The frames of a video file, frame folder, list of frames, image, URL, data URI, PIL image, array or tensor.

    folder_fps: the rate of frames that are pictures of their own. limit_s: for each fetch of a URL. reader: of video files.
    Raises DataError (MISSING, UNREADABLE, TIMEOUT) naming the source, TypeError for what can be no source.
    """
    name = describe_source(source)
    if isinstance(source, (list, tuple)):
        yield Pictures(source, name, folder_fps, limit_s)
    elif isinstance(source, Image.Image):
        yield Pictures([source], name, folder_fps, limit_s)
    elif isinstance(source, (np.ndarray, torch.Tensor)):
        yield Pictures(_as_frames(source), name, folder_fps, limit_s)
    elif isinstance(source, (str, Path)):
        with local_file(source, limit_s) as path:
            fetched = path != Path(source)
            if path.is_dir():
                yield Pictures(_images_in(path), f"the frame folder {name}", folder_fps, limit_s)
            elif _holds_image(path) if fetched else is_image_source(path):
                yield Animation(path, name) if is_animation(path) else Pictures([path], name, folder_fps, limit_s)
            else:
                with open_video(path, name, reader) as video:
                    yield video
    else:
        raise TypeError(
            f"expected a path, URL, data URI, PIL image, uint8 array or tensor, or a list of frames, found {name}"
        )


@contextmanager
def local_file(source: str | Path, limit_s: float) -> Iterator[Path]:
    """The path of a source that has one. What comes from a URL, an archive or a data URI lies there for as long as it is needed."""
    if not isinstance(source, (str, Path)):
        raise TypeError(f"expected a path, URL, data URI, PIL image, array or tensor, found {type(source).__name__}")
    text = str(source)
    data_uri = _DATA_URI.match(text)
    if packed := None if data_uri else split_member(text):
        with member_file(*packed, limit_s) as path:
            yield path
        return
    if is_stored(text):
        with stored_file(text, limit_s) as path:
            yield path
        return
    if is_url(text) or data_uri:
        with tempfile.NamedTemporaryFile(prefix="swim_") as file:
            if data_uri:
                file.write(_decode_data_uri(text, data_uri))
            else:
                download(text, file, limit_s, MAX_DOWNLOAD_BYTES)
            file.flush()
            yield Path(file.name)
        return
    path = path_of_url(text) or Path(text)
    try:
        os.stat(path)
    except (OSError, ValueError) as error:  # also a name that is too long, or in a folder that may not be read
        if Reason.of(error, Reason.MISSING) == Reason.NOT_READ:
            raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}", reason=Reason.NOT_READ) from None
        raise DataError(f"no such video or image: {path}", reason=Reason.MISSING) from None
    yield path


def path_of_url(text: str) -> Path | None:
    """The path that a file URL names, None for any other text. Example: "file:///a%20b.mp4" -> Path("/a b.mp4").

    Raises DataError for the file of another machine.
    """
    if not text.lower().startswith("file:/"):
        return None
    parts = urlsplit(text)
    if parts.netloc.lower() not in ("", "localhost"):
        raise DataError(f"{text}: a file of another machine; expected file:///PATH", reason=Reason.MISSING)
    return Path(unquote(parts.path))


@contextmanager
def stored_file(url: str, limit_s: float) -> Iterator[Path]:
    """A file of an object store, from the cache of fetched ones if it is there. Raises DataError naming the URL."""
    found = stat(url, limit_s)
    if found.size > MAX_DOWNLOAD_BYTES:
        raise DataError(f"{url}: larger than {MAX_DOWNLOAD_BYTES} bytes", reason=Reason.UNREADABLE)
    key = f"{url} {found.size} {found.version}"
    with fetched(key, found.size, lambda: read_range(url, 0, found.size, limit_s)) as path:
        yield path


def _decode_data_uri(text: str, match: re.Match) -> bytes:
    if not match.group(2):
        raise DataError(f"{describe_source(text)}: expected base64", reason=Reason.UNREADABLE)
    try:
        return base64.b64decode(text[match.end() :], validate=True)
    except binascii.Error as error:
        raise DataError(f"{describe_source(text)}: not base64 ({error})", reason=Reason.UNREADABLE) from None


def _holds_image(path: Path) -> bool:
    try:
        with Image.open(path, formats=_IMAGE_FORMATS):
            return True
    except BROKEN_IMAGE:
        return False


def _images_in(folder: Path) -> list[Path]:
    """The images of a folder; frame10 comes after frame9."""
    try:
        files = [path for path in folder.iterdir() if _is_frame(path)]
    except OSError as error:
        reason = Reason.of(error, Reason.UNREADABLE)
        raise DataError(f"unreadable folder {folder}: {error.strerror}", reason=reason) from None
    return sorted(files, key=lambda path: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", path.name)])


def _is_frame(path: Path) -> bool:
    """Whether a file of a folder is one of its frames: not those that begin with a dot, as macOS leaves them beside every
    file of a disk that is not its own, and not empty ones."""
    named = path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")
    return named and path.is_file() and path.stat().st_size > 0


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8[H, W, 3] of an image of any mode: upright, 16 bits a channel divided by 256, what is transparent on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; expected 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _as_frames(array: np.ndarray | torch.Tensor) -> np.ndarray:
    """uint8[F, H, W, 3] of an image [H, W, 3] or video [F, H, W, 3], or with the channels first as torch has them.

    Floating-point frames, as qwen-vl-utils gives them, must range to 255: those that end at 1 would turn out black.
    """
    found = f"found {array.dtype} {list(array.shape)}"
    array = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    array = array[None] if array.ndim == 3 else array
    if array.ndim == 4 and array.shape[3] != 3 and array.shape[1] == 3:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] != 3 or 0 in array.shape[1:3]:
        raise DataError(f"expected an image [H, W, 3] or video [F, H, W, 3], {found}", reason=Reason.UNREADABLE)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f" or not array.size or not (array.min() >= 0 and 1 < array.max() <= 255):
        raise DataError(f"expected uint8, or floating-point numbers from 0 to 255, {found}", reason=Reason.UNREADABLE)
    return array.round().astype(np.uint8)
