"""Objects that words or clicks name, tracked through a video by SAM 3 or SAM 2."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoProcessor

from swim.construct.mask_files import encode
from swim.data.root import Source
from swim.errors import DataError, Reason
from swim.model_name import NoModel, check_model_name
from swim.video.frames import frame_limit, sample_frames
from swim.video.sources import FOLDER_FPS, open_source

WORDS, CLICKS = ("sam3_video",), ("sam2_video", "sam3_tracker_video")  # model types, by what they are asked with
_CHUNK = 8  # frames that are resized together


@dataclass(frozen=True)
class Clicks:
    """Where an object is in one frame. frame: its number. points: (x, y) px, upright; labels: 1 on the object, 0 beside it.

    box: (left, top, right, bottom) px, or None.
    """

    frame: int
    points: list[list[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    box: list[float] | None = None


@dataclass(frozen=True)
class Frames:
    """Frames of a video as they are stored. pixels: uint8[H, W, 3] of each. total: frames of the whole video."""

    numbers: list[int]
    pixels: list[np.ndarray]
    total: int

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels[0].shape[0], self.pixels[0].shape[1]


@dataclass
class Track:
    """One object. masks: COCO RLE by frame number; confidence: of each, from 0 to 1. Frames without a pixel are left out."""

    masks: dict[int, dict] = field(default_factory=dict)
    confidence: dict[int, float] = field(default_factory=dict)

    def add(self, number: int, mask: np.ndarray, confidence: float):
        if mask.any():
            self.masks[number], self.confidence[number] = encode(mask), round(confidence, 4)

    def in_order(self) -> "Track":
        """By frame number."""
        return Track(dict(sorted(self.masks.items())), dict(sorted(self.confidence.items())))

    def above(self, confidence: float) -> "Track":
        """The frames that are at least as sure."""
        kept = [number for number, value in self.confidence.items() if value >= confidence]
        return Track({n: self.masks[n] for n in kept}, {n: self.confidence[n] for n in kept})


def read_frames(source: Source, max_frames: int, fps: float | None, kept: Sequence[int] = ()) -> Frames:
    """At most `max_frames` frames, evenly spread, at most `fps` a second; those of `kept` among them.

    Raises DataError for a source that cannot be read, and for a kept frame that it does not have.
    """
    with open_source(source, FOLDER_FPS) as opened:
        beyond = [number for number in kept if not 0 <= number < opened.total]
        if beyond:
            raise DataError(f"a click in frame {beyond[0]}; there are {opened.total}, from 0", reason=Reason.UNREADABLE)
        count = max(frame_limit(opened.total, opened.fps, max_frames, fps), len(set(kept)))
        numbers = sample_frames(opened.total, count, kept)
        return Frames(numbers, [pixels for _, pixels in opened.frames(numbers)], opened.total)


class Tracker:
    """A SAM checkpoint.

    by_words: whether it is asked with phrases; otherwise with clicks.
    """

    def __init__(self, name: str, device: str | None = None):
        """Raises NoModel for what is no checkpoint of SAM 2 or SAM 3 for videos."""
        check_model_name(name)
        try:
            kind = AutoConfig.from_pretrained(name).model_type
        except (OSError, ValueError) as error:
            raise NoModel(f"cannot load {name}: {str(error).splitlines()[0]}") from None
        if kind not in WORDS + CLICKS:
            raise NoModel(f"cannot track with {name}, a {kind}; expected SAM 3 (words) or SAM 2 (clicks) for videos")
        self.name, self.by_words = name, kind in WORDS
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.model = AutoModel.from_pretrained(name, dtype=dtype).to(self.device).eval()
        self.processor = AutoProcessor.from_pretrained(name)

    @torch.inference_mode()
    def by_phrases(self, frames: Frames, phrases: Sequence[str]) -> list[list[Track]]:
        """For each of the different phrases, the objects that it names. Only of a model that `by_words`."""
        session = self._session(frames)
        self.processor.add_text_prompt(session, list(phrases))
        found: dict[str, dict[int, Track]] = {phrase: {} for phrase in phrases}
        for output in self.model.propagate_in_video_iterator(session):
            seen = self.processor.postprocess_outputs(session, output)
            objects = seen["object_ids"].tolist()
            for phrase, named in seen["prompt_to_obj_ids"].items():
                for number in named:
                    place = objects.index(number)
                    mask, score = seen["masks"][place].cpu().numpy(), float(seen["scores"][place])
                    found[phrase].setdefault(number, Track()).add(frames.numbers[output.frame_idx], mask, score)
        removed = session.hotstart_removed_obj_ids  # taken back after their first frames had been given out
        kept = {
            phrase: [track for number, track in some.items() if number not in removed] for phrase, some in found.items()
        }
        return [[track for track in kept[phrase] if track.masks] for phrase in phrases]

    @torch.inference_mode()
    def by_clicks(self, frames: Frames, clicked: Sequence[Clicks]) -> list[Track]:
        """The object at each of the clicks, followed to both ends. Only of a model that is not `by_words`."""
        session, tracks = self._session(frames), []
        for clicks in clicked:
            place, track = frames.numbers.index(clicks.frame), Track()
            given: dict[str, Any] = {}
            if clicks.points:
                given = {"input_points": [[clicks.points]], "input_labels": [[clicks.labels]]}
            if clicks.box is not None:
                given["input_boxes"] = [[clicks.box]]
            self.processor.add_inputs_to_inference_session(session, frame_idx=place, obj_ids=1, **given)
            self.model(inference_session=session, frame_idx=place)
            for output in self._both_ways(session, place):
                (masks,) = self.processor.post_process_masks([output.pred_masks], [frames.size], binarize=True)
                confidence = float(output.object_score_logits.float().sigmoid().flatten()[0])
                track.add(frames.numbers[output.frame_idx], masks[0, 0].cpu().numpy(), confidence)
            session.reset_inference_session()
            tracks.append(track.in_order())
        return tracks

    def _both_ways(self, session, place: int) -> Iterator[Any]:
        yield from self.model.propagate_in_video_iterator(session, start_frame_idx=place)
        back = self.model.propagate_in_video_iterator(session, start_frame_idx=place, reverse=True)
        yield from (output for output in back if output.frame_idx != place)

    def _session(self, frames: Frames):
        """Frames stay in host memory; what the model makes of them goes to its device."""
        session = self.processor.init_video_session(
            inference_device=self.device, video_storage_device="cpu", dtype=self.model.dtype
        )
        for first in range(0, len(frames.pixels), _CHUNK):
            chunk = torch.from_numpy(np.stack(frames.pixels[first : first + _CHUNK])).permute(0, 3, 1, 2)
            for pixels in self.processor.video_processor(videos=chunk, return_tensors="pt").pixel_values_videos[0]:
                session.add_new_frame(pixels)
        session.video_height, session.video_width = frames.size
        return session
