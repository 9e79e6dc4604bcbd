"""The whole clip as a video, with the heat of each row of maps over its frames."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image, ImageDraw

from swim.attention.captions import fit
from swim.attention.paint import COLOURS, Scale, blend, paint_outline
from swim.data.masks import decode_mask
from swim.data.sample import Sample
from swim.video.clip import resize_frame
from swim.video.encoder import write_video
from swim.video.frames import sample_frames
from swim.video.sources import FOLDER_FPS, open_source

MOST_FRAMES = 600  # of the overlay; a longer clip is thinned and plays as long as before
_PANEL_PX = 384  # longer side of a panel
_TITLE_PX = 26
_GAP_PX = 4  # right of a panel


@dataclass(frozen=True)
class Panel:
    """The playing clip under one map.

    heat: float32[T, H, W]; None for the clip alone.
    highest: where the colours end.
    outlined: instances of the record, those whose masks are drawn.
    """

    title: str
    heat: np.ndarray | None = None
    highest: float = 1.0
    outlined: tuple[int, ...] = ()


def write_overlay(
    path: str | Path,
    sample: Sample,
    panels: list[Panel],
    columns: int,
    scale: Scale | None = None,
    title_px: int = _TITLE_PX,
):
    """Writes an mp4 of the clip: `columns` panels side by side; with `scale` its colour bar at the right.

    Every frame shows the heat of the temporal step whose sampled frame is nearest. Raises DataError for a source that
    can no longer be read.
    """
    record = sample.record
    with open_source(record.path, record.fps or FOLDER_FPS) as opened:
        numbers = sample_frames(opened.total, MOST_FRAMES)
        frames = (
            paint_panels(frame, number, sample, panels, columns, title_px=title_px)
            for number, frame in opened.frames(numbers)
        )
        write_video(path, _with_bar(frames, scale), opened.fps * len(numbers) / opened.total)


def _with_bar(frames: Iterator[np.ndarray], scale: Scale | None) -> Iterator[np.ndarray]:
    bar = None
    for frame in frames:
        bar = colour_bar(scale, len(frame)) if scale is not None and bar is None else bar
        yield frame if bar is None else np.concatenate([frame, bar], axis=1)


def _step_at(sample: Sample, number: int, steps: int) -> int:
    """The temporal step whose sampled frame is nearest to that frame of the file."""
    sampled = np.array(sample.clip.numbers)
    return int(np.abs(sampled - number).argmin()) // -(-len(sampled) // steps)


def paint_panels(
    frame: np.ndarray,
    number: int,
    sample: Sample,
    panels: list[Panel],
    columns: int,
    panel_px: int = _PANEL_PX,
    title_px: int = _TITLE_PX,
) -> np.ndarray:
    """uint8[h, w, 3]: a frame uint8[H, W, 3] under the heat of each panel, its title above.

    number: the frame's in the file; masks are outlined where it is annotated. panel_px: longer side of a panel.
    title_px: height of the line above it.
    """
    shrink = panel_px / max(frame.shape[:2])
    height, width = (max(2, round(side * shrink)) for side in frame.shape[:2])
    small = resize_frame(frame, (height, width)).permute(1, 2, 0).numpy()
    painted = []
    for panel in panels:
        picture = small.copy()
        if panel.heat is not None:
            picture = blend(small, panel.heat[_step_at(sample, number, len(panel.heat))], panel.highest)
        _outline(picture, sample, panel.outlined, number)
        picture = np.concatenate([_title(panel.title, width, title_px), picture])
        painted.append(np.pad(picture, ((0, 0), (0, _GAP_PX), (0, 0))))
    painted += [np.zeros_like(painted[0])] * (-len(painted) % columns)
    return np.concatenate([np.concatenate(painted[n : n + columns], 1) for n in range(0, len(painted), columns)])


def _outline(panel: np.ndarray, sample: Sample, instances: tuple[int, ...], number: int):
    """Draws the edges of the instances' masks, where the frame is annotated, into uint8[h, w, 3]."""
    for instance in instances:
        segmentation = sample.record.instances[instance].get(number)
        if segmentation is not None:
            mask = decode_mask(segmentation, sample.clip.height, sample.clip.width)
            paint_outline(panel, mask)


def _title(text: str, width: int, height: int = _TITLE_PX) -> np.ndarray:
    """uint8[height, width, 3]: white on black."""
    image = Image.new("RGB", (width, height))
    fitting, font = fit(text, width - 8, round(0.65 * height))
    ImageDraw.Draw(image).text((4, height // 2), fitting, fill="white", font=font, anchor="lm")
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
