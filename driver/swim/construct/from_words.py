"""NL-Refer records from videos and words or clicks: SAM finds the masks, the words name them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from swim.construct.describing import Described
from swim.construct.from_masks import check_phrases, name_by_hand, split_article, tagged, videorefer_records
from swim.construct.mask_files import encode
from swim.construct.tracking import Clicks, Track, Tracker, read_frames
from swim.data.masks import decode_mask
from swim.data.records import RawItem, Video, check_layout
from swim.data.root import DataRoot, Source
from swim.data.tags import strip_tags
from swim.errors import DataError
from swim.files import parse_json, read_file

_Point = Annotated[list[float], Field(min_length=2, max_length=2)]


class Several(StrEnum):
    """What becomes of a phrase that fits several objects."""

    REFUSE = "refuse"
    BEST = "best"
    ALL = "all"


@dataclass(frozen=True)
class Wanted:
    """An object that is to be found. phrase: with its noun tagged. clicks: None where the words must do."""

    phrase: str
    clicks: Clicks | None = None

    @property
    def prompt(self) -> str:
        """What SAM 3 is asked: the phrase without tags and leading article."""
        return split_article(strip_tags(self.phrase)[0])[1]


@dataclass(frozen=True)
class Job:
    """One video and what is to be found in it. name: the video as the records will name it."""

    name: str
    source: Source
    wanted: tuple[Wanted, ...]

    @property
    def key(self) -> str:
        """The same for the same objects of the same video."""
        content = json.dumps([asdict(each) for each in self.wanted], sort_keys=True)
        return f"{self.name}#{hashlib.sha256(content.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class Search:
    """How objects are looked for.

    max_frames, fps: at most so many frames, and so many a second. confidence: below it a mask is not written. several: see there.
    """

    max_frames: int = 128
    fps: float | None = 4.0
    confidence: float = 0.5
    several: Several = Several.REFUSE

    def __post_init__(self):
        if self.max_frames < 1 or (self.fps is not None and not self.fps > 0) or not 0 <= self.confidence <= 1:
            raise ValueError(
                f"expected max_frames of 1 or more, fps above 0 and a confidence from 0 to 1, found {self}"
            )


class _RawWanted(RawItem):
    video: Video
    phrase: str = Field(min_length=1)
    frame: Annotated[int, Field(strict=True, ge=0)] | None = None
    points: list[_Point] = []
    labels: list[Annotated[int, Field(ge=0, le=1)]] | None = None
    box: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None

    @model_validator(mode="after")
    def _whole_clicks(self):
        clicked = bool(self.points) or self.box is not None
        if clicked != (self.frame is not None):
            raise ValueError('expected "frame" with "points" or "box", or none of them')
        if self.labels is not None and len(self.labels) != len(self.points):
            raise ValueError(f"labels: expected one for each point, found {len(self.labels)} for {len(self.points)}")
        return self


def read_jobs(path: Path, root: DataRoot) -> list[Job]:
    """The jobs of a JSON list of {"video", "phrase"}, with clicks {"frame", "points": [[x, y], ...], "labels"?, "box"?}.

    Raises DataError for a file that is none, naming the item that does not fit.
    """
    raws = parse_json(read_file(path, "fix --objects"), str(path))
    if not isinstance(raws, list) or not raws:
        raise DataError(f"expected a JSON list of objects to find, found {type(raws).__name__}", str(path))
    sources: dict[str, Source] = {}
    wanted: dict[str, list[Wanted]] = {}
    for position, raw in enumerate(raws):
        where = f"{path}, item {position}"
        item = check_layout(_RawWanted, raw, where)
        if not isinstance(item.video, str):
            raise DataError("video: expected a path, found a list", where)
        try:
            sources[item.video] = root.locate_video(item.video)
            phrase = tagged(item.phrase)
        except (DataError, ValueError) as error:
            raise DataError(getattr(error, "message", str(error)), where) from None
        clicks = None
        if item.frame is not None:
            clicks = Clicks(item.frame, item.points, item.labels or [1] * len(item.points), item.box)
        wanted.setdefault(item.video, []).append(Wanted(phrase, clicks))
    return [Job(name, sources[name], tuple(some)) for name, some in wanted.items()]


def check_jobs(jobs: Sequence[Job], by_words: bool):
    """Raises ValueError for clicks where words are asked for, or the other way round, and for two objects of one name."""
    for job in jobs:
        for each in job.wanted:
            if by_words != (each.clicks is None):
                told = "asks for words: leave the clicks out" if by_words else "asks for clicks: give frame and points"
                raise ValueError(f"{job.name}, {each.phrase!r}: the model {told}, or take another --model")
        try:
            check_phrases(
                {str(n): each.phrase for n, each in enumerate(job.wanted)}, list(map(str, range(len(job.wanted))))
            )
        except ValueError as error:
            raise ValueError(f"{job.name}: {error}") from None


def find(tracker: Tracker, job: Job, search: Search) -> list[dict]:
    """For each wanted object {"phrase"} with {"masks", "confidence"} by frame number, or with {"refused", "message"}.

    Raises DataError for a video that cannot be read, or a click outside of it.
    """
    kept = [each.clicks.frame for each in job.wanted if each.clicks is not None]
    frames = read_frames(job.source, search.max_frames, search.fps, sorted(set(kept)))
    clicked = [each.clicks for each in job.wanted if each.clicks is not None]
    if tracker.by_words:
        found = tracker.by_phrases(frames, [each.prompt for each in job.wanted])
    else:
        _check_inside(clicked, frames.size)
        found = [[track] for track in tracker.by_clicks(frames, clicked)]
    return [{"phrase": each.phrase, **_outcome(tracks, search)} for each, tracks in zip(job.wanted, found)]


def _check_inside(clicked: Sequence[Clicks], size: tuple[int, int]):
    height, width = size
    for clicks in clicked:
        corners = [] if clicks.box is None else [clicks.box[:2], clicks.box[2:]]
        for x, y in clicks.points + corners:
            if not (0 <= x <= width and 0 <= y <= height):
                raise DataError(f"a click at ({x:g}, {y:g}) px; frames are {width} x {height}")


def _outcome(tracks: list[Track], search: Search) -> dict[str, Any]:
    best = max((value for track in tracks for value in track.confidence.values()), default=None)
    sure = [track for track in (each.above(search.confidence) for each in tracks) if track.masks]
    if not sure:
        found = "nothing" if best is None else f"nothing above {search.confidence:g}; the best is {best:.2f}"
        return {"refused": "not found", "message": f"{found} was found"}
    if len(sure) > 1 and search.several is Several.REFUSE:
        told = f"{len(sure)} objects fit; name one of them alone, or choose --several best or all"
        return {"refused": "several", "message": told}
    track = _union(sure) if search.several is Several.ALL else max(sure, key=lambda each: sum(each.confidence.values()))
    return {"masks": track.masks, "confidence": track.confidence}


def _union(tracks: list[Track]) -> Track:
    """All objects as one; as sure as the least sure of them."""
    if len(tracks) == 1:
        return tracks[0]
    whole = Track()
    for number in sorted({number for track in tracks for number in track.masks}):
        there = [track for track in tracks if number in track.masks]
        masks = [decode_mask(track.masks[number], *track.masks[number]["size"]) for track in there]
        whole.masks[number] = encode(np.any(masks, axis=0))
        whole.confidence[number] = min(track.confidence[number] for track in there)
    return whole


def described(job: Job, found: list[dict]) -> list[Described]:
    """What was found, as it is given to be described."""
    return [
        Described(job.name, job.source, entry["phrase"], _by_number(entry["masks"]))
        for entry in found
        if "refused" not in entry
    ]


def _by_number(values: dict) -> dict[int, Any]:
    """By frame number, which JSON has made a text."""
    return {int(number): value for number, value in values.items()}


def records_of(job: Job, found: list[dict], captions: dict[str, str] | None = None) -> list[dict]:
    """The records of what was found: one that names all objects; with captions, by phrase, one for each of these instead."""
    kept = [entry for entry in found if "refused" not in entry and (captions is None or entry["phrase"] in captions)]
    if not kept:
        return []
    texts = {str(n): captions[entry["phrase"]] for n, entry in enumerate(kept)} if captions is not None else {}
    masks = {str(n): _by_number(entry["masks"]) for n, entry in enumerate(kept)}
    raws = videorefer_records(masks, texts, job.name, Path(job.name).stem)
    records = []
    for names, raw in raws:
        entries = [kept[int(name)] for name in names]
        for frames, entry in zip(raw["annotation"], entries):
            for number, value in _by_number(entry["confidence"]).items():
                frames[str(number)]["confidence"] = value
        records.append(name_by_hand(raw, [entry["phrase"] for entry in entries], job.name, Path()))
    return records


def refusals_of(job: Job, found: list[dict]) -> Iterator[dict]:
    """What was not found, in the layout of rejected.jsonl."""
    for position, entry in enumerate(found):
        if "refused" in entry:
            where = {"file": job.name, "position": position, "id": entry["phrase"]}
            yield {**where, "reason": entry["refused"], "message": entry["message"]}


def mean_confidence(found: list[dict]) -> float | None:
    """Over all masks of what was found."""
    values = [value for entry in found if "refused" not in entry for value in entry["confidence"].values()]
    return round(mean(values), 4) if values else None
