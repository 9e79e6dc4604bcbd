"""Masks as annotation tools store them, read without changing a pixel: palette PNGs, PNGs per object, COCO RLE, SA-V.

Every reader returns {instance name: {frame number: COCO RLE}}, instances in their natural order. A number in a file is
turned into a frame number of the video by `frame_step`: number * frame_step.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from swim.data.masks import decode_mask
from swim.errors import DataError, Reason
from swim.files import decode_text

Masks = dict[str, dict[int, dict]]
_FRAME = re.compile(r"(\d+)")
_FRAME_AND_OBJECT = re.compile(r"(\d+)_mask_(\w+)")


class Layout(StrEnum):
    """How masks lie on the disk."""

    PALETTE = "palette"  # FOLDER/00000.png, the pixel's index is the instance, 0 is background (DAVIS)
    OBJECT_FILES = "object_files"  # FOLDER/00000_mask_1.png, not 0 is the object
    OBJECT_FOLDERS = "object_folders"  # FOLDER/1/00000.png, not 0 is the object (SA-V val and test)
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
    names = [file.stem for file in path.glob("*.png")]
    if names and all(_FRAME_AND_OBJECT.fullmatch(name) for name in names):
        return Layout.OBJECT_FILES
    if names and all(_FRAME.fullmatch(name) for name in names):
        return Layout.PALETTE
    if not names and any(path.glob("*/*.png")):
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
    for path in sorted(folder.glob("*.png")):
        indices = _pixels(path, video, palette=True)
        for index in np.unique(indices[indices > 0]).tolist():
            yield str(path), str(index), _number(path), encode(indices == index)


def _object_files(folder: Path, video: VideoFacts, frame_step: int) -> Entries:
    for path in sorted(folder.glob("*.png")):
        match = _FRAME_AND_OBJECT.fullmatch(path.stem)
        if match is None:
            raise DataError("expected a name such as 00000_mask_1.png", str(path))
        yield str(path), match.group(2), int(match.group(1)), encode(_pixels(path, video) > 0)


def _object_folders(folder: Path, video: VideoFacts, frame_step: int) -> Entries:
    for path in sorted(folder.glob("*/*.png")):
        yield str(path), path.parent.name, _number(path), encode(_pixels(path, video) > 0)


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
    masklet = found["masklet"]
    names = [str(name) for name in found.get("masklet_id") or range(len(masklet[0]) if masklet else 0)]
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


def _pixels(path: Path, video: VideoFacts, palette: bool = False) -> np.ndarray:
    """uint8[H, W] of a PNG of one channel. Raises DataError for colours, which name no instance, and another size."""
    try:
        with Image.open(path) as image:
            if palette and image.mode not in ("P", "L", "1"):
                raise DataError(f"a palette PNG is expected, found mode {image.mode}", str(path), Reason.BAD_MASK)
            pixels = np.asarray(image if image.mode in ("P", "L") else image.convert("L"))
    except OSError as error:
        raise DataError(f"unreadable PNG: {error}", str(path), Reason.UNREADABLE) from None
    height, width = pixels.shape
    if max(abs(height - video.height), abs(width - video.width)) > 1:  # that of an empty one too
        problem = f"expected a mask of {video.height} x {video.width} as its frame, found {height} x {width}"
        raise DataError(problem, str(path), Reason.BAD_MASK)
    return pixels


def _number(path: Path) -> int:
    match = _FRAME.fullmatch(path.stem)
    if match is None:
        raise DataError("expected a frame number as its name, such as 00015.png", str(path))
    return int(match.group(1))


def _load(path: Path):
    try:
        return json.loads(decode_text(path.read_bytes(), str(path)))
    except ValueError as error:
        raise DataError(f"malformed JSON: {error}", str(path)) from None
