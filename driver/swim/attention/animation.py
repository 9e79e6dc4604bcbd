"""An animated picture that compares models: clip after clip, playing under the heat of each."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from swim.attention.captions import fit
from swim.attention.figure import best_first
from swim.attention.overlay import Panel, paint_panels
from swim.data.sample import Sample
from swim.video.frames import sample_frames
from swim.video.sources import FOLDER_FPS, open_source

MOST_FRAMES = 32  # of a clip; a longer one is thinned and plays as long as before
_STILL_S = 2.0  # how long an image is shown
_PANEL_PX = 280
_QUESTION_PX, _QUESTION_TEXT_PX = 46, 20
_NAMED = "#f0f921"  # the colour of the named object's words: the hottest one of the heat
_QUALITY = 80


def animate_maps(path: str | Path, samples: list[Sample], maps: dict[str, list[torch.Tensor]]):
    """Writes a WebP that repeats: every sample's question, and below it the clip under the heat of each entry of `maps`.

    maps: name of a model -> for each sample float32[T, H, W]. Every map has its own colours, from 0 to the highest cell of
    its whole clip, whose share of the clip's attention stands above it. Samples come in the order of `best_first`.
    Raises DataError for a source that can no longer be read.
    """
    pictures, durations = [], []
    for number in best_first(samples, list(maps.values())[-1]):
        panels = [_panel(name, heats[number].numpy()) for name, heats in maps.items()]
        for picture, seconds in _play(samples[number], panels):
            pictures.append(Image.fromarray(picture))
            durations.append(round(1000 * seconds))
    how = {"save_all": True, "loop": 0, "quality": _QUALITY, "method": 6, "minimize_size": True}
    pictures[0].save(path, "WEBP", append_images=pictures[1:], duration=durations, **how)


def _panel(name: str, heat: np.ndarray) -> Panel:
    return Panel(f"{name}, max {100 * heat.max():.1f} %", heat, float(heat.max()) or 1.0)


def _play(sample: Sample, panels: list[Panel]) -> Iterator[tuple[np.ndarray, float]]:
    """(picture, seconds that it is shown) for the frames of a clip."""
    record = sample.record
    with open_source(record.path, record.fps or FOLDER_FPS) as opened:
        numbers = sample_frames(opened.total, MOST_FRAMES)
        seconds = opened.total / len(numbers) / opened.fps if opened.total > 1 else _STILL_S
        for number, frame in opened.frames(numbers):
            grid = paint_panels(frame, number, sample, panels, len(panels), _PANEL_PX)
            yield np.concatenate([_question(sample, grid.shape[1]), grid]), seconds


def _question(sample: Sample, width: int) -> np.ndarray:
    """uint8[_QUESTION_PX, width, 3]: the question, its tagged nouns in their own colour, on black."""
    turn = next(turn for turn in sample.record.turns if turn.role == "user")
    text, font = fit(turn.text.replace("\n", " "), width - 24, _QUESTION_TEXT_PX)
    image = Image.new("RGB", (width, _QUESTION_PX))
    draw = ImageDraw.Draw(image)
    left = (width - font.getlength(text)) / 2
    draw.text((left, _QUESTION_PX / 2), text, fill="white", font=font, anchor="lm")
    for span in turn.spans:
        at = left + font.getlength(text[: span.start])
        draw.text((at, _QUESTION_PX / 2), text[span.start : span.end], fill=_NAMED, font=font, anchor="lm")
    return np.asarray(image)
