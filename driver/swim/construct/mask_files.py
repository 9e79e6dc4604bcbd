"""Masks as annotation tools store them, read without changing a pixel: palette PNGs, PNGs per object, COCO RLE, SA-V.

Every reader returns {instance name: {frame number: COCO RLE}}, instances in their natural order. A number in a file is
turned into a frame number of the video by `frame_step`: number * frame_step.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from pycocotools import mask as coco

from swim.data.masks import decode_mask
from swim.errors import DataError, Reason
from swim.files import cannot_read, check_file, parse_json, read_file
from swim.video.sources import BROKEN_IMAGE

Masks = dict[str, dict[int, dict]]
_FRAME = re.compile(r"(\d+)")
_FRAME_AND_OBJECT = re.compile(r"(\d+)_mask_(\w+)")
# By how much Pillow multiplies grey values of two and four bits, by its name for them.
_GREY_SCALES = {"L;2": 85, "L;4": 17}


class Layout(StrEnum):
    """How masks lie on the disk."""

    PALETTE = "palette"  # FOLDER/00000.png, the pixel's index is the instance, 0 is background (DAVIS)
    OBJECT_FILES = "object_files"  # FOLDER/00000_mask_1.png, neither black nor transparent is the object
    OBJECT_FOLDERS = "object_folders"  # FOLDER/1/00000.png, likewise (SA-V val and test)
    COCO = "coco"  # FILE.json: {"instance": {"frame number": RLE}}, or a list of {"instance", "frame", "segmentation"}
    SA_V = "sa_v"  # FILE.json: {"masklet": for each annotated frame [RLE of each object], "masklet_id": [...]}


@dataclass(frozen=True)
class VideoFacts:
    """What masks must fit. frames: in the video; height, width: of one, in pixels."""

    frames: int
    height: int
    width: int


def encode(mask: np.ndarray) -> dict:
    """bool[H, W] as a COCO RLE whose counts are text."""
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def layout_of(path: Path) -> Layout:
    """The layout of a folder or JSON file, from its names and keys. Raises DataError where none fits."""
    if path.is_file() and path.suffix.lower() == ".json":
        return Layout.SA_V if isinstance(found := _load(path), dict) and "masklet" in found else Layout.COCO
    if not path.is_dir():
        raise DataError("expected a folder of PNGs or a .json file", str(path), Reason.MISSING)
    names = [file.stem for file in _pngs(path)]
    if names and all(_FRAME_AND_OBJECT.fullmatch(name) for name in names):
        return Layout.OBJECT_FILES
    if names and all(_FRAME.fullmatch(name) for name in names):
        return Layout.PALETTE
    if not names and _pngs(path, "*/*.png"):
        return Layout.OBJECT_FOLDERS
    raise DataError("no masks here: expected 00000.png, 00000_mask_1.png or 1/00000.png", str(path), Reason.MISSING)


def read_masks(path: Path, video: VideoFacts, frame_step: int = 1) -> Masks:
    """The masks of every instance that has a pixel. Empty masks are left out.

    A mask may be one pixel off its frame, see `swim.data.masks.decode_mask`. Raises DataError naming the file for a mask
    of another size, a frame that the video does not have, and where nothing is annotated.
    """
    readers = {
        Layout.PALETTE: _palette,
        Layout.OBJECT_FILES: _object_files,
        Layout.OBJECT_FOLDERS: _object_folders,
        Layout.COCO: _coco,
        Layout.SA_V: _sa_v,
    }
    found: Masks = {}
    for file, instance, number, rle in readers[layout_of(path)](path, video, frame_step):
        frame = number * frame_step
        if frame >= video.frames:
            raise DataError(
                f"annotates frame {number} * frame_step {frame_step} = {frame}, the video has {video.frames} frames; "
                "give the right --frame_step",
                file,
            )
        try:
            if not decode_mask(rle, video.height, video.width).any():
                continue
        except DataError as error:
            raise error.at(file) from None
        if frame in found.setdefault(instance, {}):
            raise DataError(f"frame {frame} of instance {instance} is given twice", file)
        found[instance][frame] = rle
    if not any(found.values()):
        raise DataError("no mask with a pixel in it", str(path), Reason.NO_MASK)
    ordered = sorted(found, key=lambda name: (0, int(name), name) if name.isdigit() else (1, 0, name))
    return {name: dict(sorted(found[name].items())) for name in ordered if found[name]}


Entries = Iterator[tuple[str, str, int, dict]]  # file, instance, number, RLE


def _palette(folder: Path, video: VideoFacts, frame_step: int) -> Entries:
    for path in _pngs(folder):
        indices = _pixels(path, video, _indices)
        for index in np.unique(indices[indices > 0]).tolist():
            yield str(path), str(index), _number(path), encode(indices == index)


def _object_files(folder: Path, video: VideoFacts, frame_step: int) -> Entries:
    for path in _pngs(folder):
        match = _FRAME_AND_OBJECT.fullmatch(path.stem)
        if match is None:
            raise DataError("expected a name such as 00000_mask_1.png", str(path))
        yield str(path), match.group(2), int(match.group(1)), encode(_pixels(path, video, _painted))


def _object_folders(folder: Path, video: VideoFacts, frame_step: int) -> Entries:
    for path in _pngs(folder, "*/*.png"):
        yield str(path), path.parent.name, _number(path), encode(_pixels(path, video, _painted))


def _coco(path: Path, video: VideoFacts, frame_step: int) -> Entries:
    found = _load(path)
    try:
        if isinstance(found, dict):
            triples = [(name, n, rle) for name, frames in found.items() for n, rle in frames.items()]
        else:
            triples = [(entry["instance"], entry["frame"], entry["segmentation"]) for entry in found]
        for instance, number, rle in triples:
            rle = rle.get("segmentation", rle) if isinstance(rle, dict) else rle
            yield str(path), str(instance), int(number), rle
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f'expected {{"instance": {{"frame": RLE}}}} or a list of {{"instance", "frame", "segmentation"}} ({error!r})',
            str(path),
        ) from None


def _sa_v(path: Path, video: VideoFacts, frame_step: int) -> Entries:
    found = _load(path)
    masklet, known = found["masklet"], found.get("masklet_id") or []
    if not all(isinstance(part, list) for part in (masklet, known)) or not all(isinstance(o, list) for o in masklet):
        raise DataError('expected {"masklet": [[RLE of each object], ...], "masklet_id": [...]}', str(path))
    names = [str(name) for name in known or range(len(masklet[0]) if masklet else 0)]
    if -(-video.frames // frame_step) != len(masklet):
        raise DataError(
            f"{len(masklet)} annotated frames, one for every {frame_step} of {video.frames} would be "
            f"{-(-video.frames // frame_step)}; SA-V annotates at 6 fps what plays at 24: give --frame_step 4",
            str(path),
        )
    for number, objects in enumerate(masklet):
        if len(objects) != len(names):
            raise DataError(f"{len(objects)} masks in annotated frame {number}, {len(names)} in masklet_id", str(path))
        for name, rle in zip(names, objects):
            yield str(path), name, number, rle


def _pngs(folder: Path, pattern: str = "*.png") -> list[Path]:
    """Sorted; without those that begin with a dot, as macOS leaves them beside every file of a disk that is not its own."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def _pixels(path: Path, video: VideoFacts, read: Callable[[ImageFile.ImageFile], np.ndarray]) -> np.ndarray:
    """What `read` makes of a PNG, upright: [H, W]. Raises DataError naming the file for a broken one or another size."""
    try:
        check_file(path)
        with warnings.catch_warnings(), _open_png(path) as image:
            if image.width * image.height > (video.width + 1) * (
                video.height + 1
            ):  # what is far too large is not decoded
                raise _misfit(image.height, image.width, video)
            pixels = read(image)
    except DataError as error:
        raise error.at(str(path)) from None
    except BROKEN_IMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise cannot_read(path, error, "fix --masks") from None
        problem = "it is no PNG" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"unreadable PNG: {problem}; save it again", str(path), Reason.UNREADABLE) from None
    height, width = pixels.shape
    if max(abs(height - video.height), abs(width - video.width)) > 1:  # that of an empty one too
        raise _misfit(height, width, video).at(str(path))
    return pixels


def _open_png(path: Path) -> ImageFile.ImageFile:
    """Whatever the file's name says, of another format the pixels may not be exact. Pillow's warning of a large picture is
    left out: its size is compared with the video's."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    return Image.open(path, formats=("PNG",))


def _misfit(height: int, width: int, video: VideoFacts) -> DataError:
    problem = f"expected a mask of {video.height} x {video.width} as its frame, found {height} x {width}"
    return DataError(problem, reason=Reason.BAD_MASK)


def _indices(image: ImageFile.ImageFile) -> np.ndarray:
    """The number that is stored for each pixel. Raises DataError for colours, which name no instance."""
    if image.mode not in ("P", "L", "1", "I;16"):
        raise DataError(f"a palette PNG is expected, found mode {image.mode}", reason=Reason.BAD_MASK)
    stored = image.tile[0].args
    scale = _GREY_SCALES.get(stored, 1) if isinstance(stored, str) else 1
    return np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16) // scale


def _painted(image: Image.Image) -> np.ndarray:
    """bool: where a pixel is neither black nor transparent; where its index is not 0 if all colours of a palette are black,
    as some tools leave them."""
    image = ImageOps.exif_transpose(image)
    if image.mode == "I;16" or (image.mode == "P" and not any(image.getpalette() or ())):
        return np.asarray(image) > 0
    pixels = np.asarray(image.convert("RGBA"))
    return pixels[..., :3].any(axis=2) & (pixels[..., 3] > 0)


def _number(path: Path) -> int:
    match = _FRAME.fullmatch(path.stem)
    if match is None:
        raise DataError("expected a frame number as its name, such as 00015.png", str(path))
    return int(match.group(1))


def _load(path: Path):
    return parse_json(read_file(path, "fix --masks"), str(path))
