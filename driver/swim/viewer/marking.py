"""Marking objects by hand: clicks become masks, masks become records."""

import json
import shutil
import threading
from dataclasses import dataclass, field
from filecmp import cmp
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image, ImageDraw

from swim.construct.from_masks import name_by_hand, tagged, videorefer_records
from swim.construct.mask_files import encode
from swim.construct.tracking import Clicks, Frames, Tracker, read_frames
from swim.data.masks import decode_mask
from swim.errors import DataError
from swim.files import read_file, write_atomically
from swim.video.sources import open_source

ON, BESIDE = "on the object", "beside it"
TRACKED_FRAMES = 64
_MASK_RGB, _ON_RGB, _BESIDE_RGB = (245, 158, 11), (34, 197, 94), (220, 38, 38)


@dataclass
class Marks:
    """Clicks in the frames of one clip. points: by frame number, (x, y, 1 on the object or 0 beside it) in px."""

    points: dict[int, list[tuple[float, float, int]]] = field(default_factory=dict)

    def with_point(self, frame: int, x: float, y: float, on_it: bool) -> "Marks":
        return Marks({**self.points, frame: [*self.points.get(frame, []), (x, y, int(on_it))]})

    def clicks(self, frame: int) -> Clicks:
        points = self.points[frame]
        return Clicks(frame, [[x, y] for x, y, _ in points], [label for *_, label in points])


class Marking:
    """Puts marked objects into a file of records.

    file: JSON list of NL-Refer records, made when missing; clips are copied beside it. tracker: follows what is clicked in
    one frame through the clip; None: the clicks in a frame are the corners of the object's outline there.
    """

    def __init__(self, file: str | Path, tracker: Tracker | None = None):
        """Raises DataError for a file that is no list of records, ValueError for a tracker that wants words."""
        self.file, self.tracker = Path(file), tracker
        if tracker is not None and tracker.by_words:
            raise ValueError(f"{tracker.name} is asked with words; a click needs SAM 2")
        self._records()
        self._alone = threading.Lock()

    def frame_count(self, clip: str) -> int:
        """Raises DataError for a clip that cannot be read."""
        with open_source(clip) as opened:
            return opened.total

    def frame(self, clip: str, number: int) -> np.ndarray:
        """uint8[H, W, 3]. Raises DataError."""
        with open_source(clip) as opened:
            return next(opened.frames([number]))[1]

    def picture(self, clip: str, number: int, marks: Marks) -> np.ndarray:
        """uint8[H, W, 3]: the frame with its clicks, and the object as far as they tell it. Raises DataError."""
        pixels = self.frame(clip, number)
        mask = self._mask(pixels, number, marks)
        if mask is not None:
            pixels = np.where(mask[:, :, None], 0.5 * pixels + 0.5 * np.array(_MASK_RGB), pixels).astype(np.uint8)
        picture = Image.fromarray(pixels)
        radius = max(3, max(picture.size) // 120)
        for x, y, label in marks.points.get(number, []):
            box = (x - radius, y - radius, x + radius, y + radius)
            ImageDraw.Draw(picture).ellipse(box, fill=_ON_RGB if label else _BESIDE_RGB, outline="white")
        return np.asarray(picture)

    def add(self, clip: str, phrase: str, marks: Marks) -> str:
        """Adds the record of the marked object; what was done, in a sentence.

        Raises DataError, and ValueError for a phrase or marks that make no object.
        """
        if not phrase.strip():
            raise ValueError("What is it called? For example: the <ins>dog</ins> on the bed")
        named = tagged(phrase)
        masks = self._masks(clip, marks)
        with self._alone, FileLock(f"{self.file}.lock"):
            records = self._records()
            video = self._keep(Path(clip))
            [(_, raw)] = videorefer_records({"0": masks}, {}, str(video.relative_to(self.file.parent)), video.stem)
            raw["index"] += f"_{len(records)}"
            records.append(name_by_hand(raw, [named], str(video), self.file.parent))
            write_atomically(self.file, json.dumps(records, ensure_ascii=False, indent=1) + "\n")
        return f"added with masks in {len(masks)} frame(s): {self.file} now has {len(records)} record(s)"

    def _masks(self, clip: str, marks: Marks) -> dict[int, dict]:
        clicked = sorted(number for number, points in marks.points.items() if points)
        if not clicked:
            raise ValueError("Click the object first.")
        if self.tracker is None:
            found = {number: self._mask(self.frame(clip, number), number, marks) for number in clicked}
            short = [number for number, mask in found.items() if mask is None]
            if short:
                raise ValueError(f"An outline has three corners at least; frame {short[0]} has fewer.")
            return {number: encode(mask) for number, mask in found.items() if mask is not None}
        if len(clicked) > 1:
            raise ValueError(f"Click in one frame alone, it is followed from there; there are clicks in {clicked}.")
        frames = read_frames(clip, TRACKED_FRAMES, None, clicked)
        (track,) = self.tracker.by_clicks(frames, [marks.clicks(clicked[0])])
        if not track.masks:
            raise ValueError("Nothing was found there; click elsewhere on it.")
        return track.masks

    def _mask(self, pixels: np.ndarray, number: int, marks: Marks) -> np.ndarray | None:
        """bool[H, W] of the object in a frame, None while the clicks do not tell it."""
        points = marks.points.get(number, [])
        if not points:
            return None
        if self.tracker is not None:
            alone = Frames([number], [pixels], number + 1)
            (track,) = self.tracker.by_clicks(alone, [marks.clicks(number)])
            return decode_mask(track.masks[number], *pixels.shape[:2]).astype(bool) if track.masks else None
        if len(points) < 3:
            return None
        canvas = Image.new("L", (pixels.shape[1], pixels.shape[0]))
        ImageDraw.Draw(canvas).polygon([(x, y) for x, y, _ in points], fill=1)
        return np.asarray(canvas, dtype=bool)

    def _records(self) -> list[dict]:
        if not self.file.exists():
            return []
        try:
            records = json.loads(read_file(self.file, "choose another --marks"))
        except ValueError as error:
            raise DataError(f"malformed JSON: {error}; choose another --marks", str(self.file)) from None
        if not isinstance(records, list):
            raise DataError("expected a JSON list of records; choose another --marks", str(self.file))
        return records

    def _keep(self, clip: Path) -> Path:
        """A copy of the clip beside the file, where a page's uploads do not last; one that is there already is taken."""
        folder = self.file.parent / "clips"
        folder.mkdir(parents=True, exist_ok=True)
        numbered = (folder / f"{clip.stem}{f'_{n}' if n else ''}{clip.suffix}" for n in range(10**6))
        kept = next(path for path in numbered if not path.exists() or cmp(path, clip, shallow=False))
        if not kept.exists():
            shutil.copyfile(clip, kept)
        return kept
