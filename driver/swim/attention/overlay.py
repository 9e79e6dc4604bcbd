"""The whole clip as a video, with the heat of each row of maps over its frames."""

import io
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image, ImageDraw

from swim.attention.captions import fit
from swim.attention.pictures import COLOURS, Row, Scale, opacity
from swim.data.masks import decode_mask, outline_of
from swim.data.sample import Sample
from swim.video.clip import resize_frame
from swim.video.encoder import write_video
from swim.video.frames import sample_frames
from swim.video.sources import FOLDER_FPS, open_source

MOST_FRAMES = 600  # of the overlay; a longer clip is thinned and plays as long as before
_PANEL_PX = 384  # longer side of a panel
_TITLE_PX = 22
_LINE_PX = 5
OUTLINE = (0, 255, 255)


def write_overlay(path: str | Path, sample: Sample, rows: list[Row], scale: Scale, columns: int):
    """Writes an mp4 of the clip: a panel for each row, `columns` side by side, the colour bar at the right.

    Every frame shows the heat of the temporal step whose sampled frame is nearest. Raises DataError for a source that
    can no longer be read.
    """
    record = sample.record
    with open_source(record.path, record.fps or FOLDER_FPS) as opened:
        numbers = sample_frames(opened.total, MOST_FRAMES)
        frames = _frames(opened.frames(numbers), sample, rows, scale, columns)
        write_video(path, frames, opened.fps * len(numbers) / opened.total)


def blend(frame: np.ndarray, heat: np.ndarray, highest: float) -> np.ndarray:
    """uint8[h, w, 3]: heat float[H, W], smoothly enlarged, over the grey copy of a frame uint8[h, w, 3]."""
    size = frame.shape[:2]
    cells = torch.from_numpy(heat)[None, None].float()
    heat = torch.nn.functional.interpolate(cells, size=size, mode="bilinear")[0, 0].numpy()
    alpha = opacity(heat, highest)[..., None]
    colour = colormaps[COLOURS](np.clip(heat / highest, 0, 1))[..., :3] * 255
    return (frame.mean(axis=2, keepdims=True) * (1 - alpha) + colour * alpha).round().astype(np.uint8)


def _frames(frames, sample: Sample, rows: list[Row], scale: Scale, columns: int) -> Iterator[np.ndarray]:
    height, width = sample.clip.frames.shape[2:]
    shrink = _PANEL_PX / max(height, width)
    size = (max(2, round(height * shrink)), max(2, round(width * shrink)))
    titles = [_title(row.title, size[1]) for row in rows]
    lines = -(-len(rows) // columns)
    bar = colour_bar(scale, lines * (size[0] + _TITLE_PX))
    sampled, steps = np.array(sample.clip.numbers), len(rows[0].heat)
    per_step = -(-len(sampled) // steps)
    empty = np.zeros((size[0] + _TITLE_PX, size[1], 3), np.uint8)
    for number, frame in frames:
        step = int(np.abs(sampled - number).argmin()) // per_step
        small = resize_frame(frame, size).permute(1, 2, 0).numpy()
        heats = [blend(small, row.heat[step], scale.highest) for row in rows]
        for heat, row in zip(heats, rows):
            _outline(heat, sample, row.outlined, number)
        panels = [np.concatenate(pair) for pair in zip(titles, heats)]
        panels += [empty] * (lines * columns - len(panels))
        grid = [np.concatenate(panels[n : n + columns], axis=1) for n in range(0, len(panels), columns)]
        yield np.concatenate([np.concatenate(grid), bar], axis=1)


def _outline(panel: np.ndarray, sample: Sample, instances: tuple[int, ...], number: int):
    """Draws the edges of the instances' masks, where the frame is annotated, into uint8[h, w, 3]."""
    height, width = panel.shape[:2]
    for instance in instances:
        segmentation = sample.record.instances[instance].get(number)
        if segmentation is not None:
            mask = decode_mask(segmentation, sample.clip.height, sample.clip.width)
            panel[outline_of(mask, height, width, _LINE_PX)] = OUTLINE


def _title(text: str, width: int) -> np.ndarray:
    """uint8[_TITLE_PX, width, 3]: white on black."""
    image = Image.new("RGB", (width, _TITLE_PX))
    fitting, font = fit(text, width - 8, _TITLE_PX - 8)
    ImageDraw.Draw(image).text((4, _TITLE_PX // 2), fitting, fill="white", font=font, anchor="lm")
    return np.asarray(image)


def colour_bar(scale: Scale, height: int) -> np.ndarray:
    """uint8[height, w, 3]: the colours with their values and what they mean."""
    figure = plt.figure(figsize=(0.95, height / 100), dpi=100)
    axis = figure.add_axes((0.06, 0.06, 0.16, 0.88))
    figure.colorbar(ScalarMappable(Normalize(0, scale.highest), COLOURS), cax=axis).set_label(scale.label, fontsize=8)
    axis.tick_params(labelsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return np.asarray(Image.open(buffer).convert("RGB").resize((95, height)))
