"""Pictures of attention maps over frames."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.cells import cell_len

from swim.attention.captions import use_fonts, wrap
from swim.data.masks import decode_mask
from swim.data.sample import Sample

use_fonts()
COLOURS = "inferno"  # perceptually uniform
_OUTLINE = "cyan"
_COLUMN_INCH = 1.75  # a frame
_TITLE_LINES = 6
_LABEL_COLUMNS, _LABEL_LINES = 18, 4  # of a row's label at the left
_TITLE_PT, _LABEL_PT = 10, 9


@dataclass(frozen=True)
class Row:
    """One line of a sheet. heat: float32[T, H, W]. outlined: instances of the record, those whose masks are drawn."""

    title: str
    heat: np.ndarray
    outlined: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scale:
    """What the colours mean: from 0 to `highest`; hotter cells have the last colour. label: stands in the picture."""

    label: str
    highest: float


def draw_sheet(path: str | Path, sample: Sample, rows: list[Row], scale: Scale, title: str = "", most_columns: int = 8):
    """Writes a contact sheet: the frames on top, below them a line for each row, a column for each temporal step.

    A clip of more steps than `most_columns` shows that many, evenly spread.
    """
    steps = len(rows[0].heat)
    shown = np.unique(np.linspace(0, steps - 1, min(steps, most_columns)).round().astype(int))
    height, width = sample.clip.frames.shape[2:]
    cell = _COLUMN_INCH * height / width
    labels = [wrap(row.title, _LABEL_COLUMNS, _LABEL_LINES) for row in rows]
    across = max(cell_len(line) for label in labels for line in label.split("\n")) * _inches(_LABEL_PT)
    wide = _COLUMN_INCH * len(shown) + 1.6 + across
    heading = wrap(title, int(wide / _inches(_TITLE_PT)), _TITLE_LINES)
    tall = cell * (len(rows) + 1) + 0.35 * (len(rows) + 2) + 0.2 * heading.count("\n")
    size = (wide, max(tall, 0.19 * sum(label.count("\n") + 1 for label in labels)))
    figure, axes = plt.subplots(len(rows) + 1, len(shown), figsize=size, squeeze=False, layout="constrained")
    everything = tuple(range(len(sample.record.instances)))
    for column, step in enumerate(shown):
        number = _frame(sample, step, steps)
        _draw(axes[0, column], sample, number, None, scale.highest, everything)
        axes[0, column].set_title(f"frame {number}, {number / sample.clip.fps:.1f} s", fontsize=9)
        for line, row in enumerate(rows, start=1):
            drawn = _draw(axes[line, column], sample, number, row.heat[step], scale.highest, row.outlined)
    for line, label in enumerate(
        labels, start=1
    ):  # beside the row: upright it would be longer than a flat frame is tall
        axes[line, 0].set_ylabel(label, fontsize=_LABEL_PT, rotation=0, ha="right", va="center", parse_math=False)
    if title:
        figure.suptitle(heading, fontsize=_TITLE_PT, parse_math=False)
    figure.colorbar(drawn, ax=axes, shrink=min(1.0, 3 / len(rows)), pad=0.01, label=scale.label)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def show_maps(path: str | Path, samples: list[Sample], titles: list[str], maps: dict[str, list[torch.Tensor]]):
    """Writes a sheet: a row for each sample; for each temporal step its frame, then a column for each entry of `maps`.

    maps: name of a model -> for each sample float32[T, H, W]. The object is outlined where a frame of the step is
    annotated. All heat has one scale, from 0 to the sheet's highest value: the share of the whole clip's attention.
    """
    steps = max(len(per_sample) for per_sample in next(iter(maps.values())))
    highest = max(float(heat.max()) for per_sample in maps.values() for heat in per_sample)
    names = ["frame", *maps]
    columns = steps * len(names)
    figure, axes = plt.subplots(
        len(samples), columns, figsize=(1.75 * columns, 1.9 * len(samples)), squeeze=False, layout="constrained"
    )
    for row, (sample, title) in enumerate(zip(samples, titles)):
        everything = tuple(range(len(sample.record.instances)))
        for column, axis in enumerate(axes[row]):
            step, place = divmod(column, len(names))
            number = _frame(sample, step, steps)
            heat = None if place == 0 else maps[names[place]][row][step].numpy()
            drawn = _draw(axis, sample, number, heat, highest, everything)
            if row == 0:
                axis.set_title(f"frame {number}" if place == 0 else names[place], fontsize=10)
        axes[row, 0].set_ylabel(title, fontsize=10)
    figure.colorbar(drawn, ax=axes, shrink=0.6, pad=0.01, label="share of the clip's attention")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _inches(points: float) -> float:
    """The width of a column of text."""
    return 0.62 * points / 72


def _frame(sample: Sample, step: int, steps: int) -> int:
    """The frame number that stands for a step: its first with a mask, else its first."""
    frames_per_step = -(-len(sample.clip.numbers) // steps)
    numbers = sample.clip.numbers[step * frames_per_step : (step + 1) * frames_per_step]
    annotated = set(sample.record.annotated_frames)
    return next((number for number in numbers if number in annotated), numbers[0])


def opacity(heat: np.ndarray, highest: float) -> np.ndarray:
    """How much of the colour covers the grey frame, from 0.25 to 0.85: cold cells show the frame."""
    return 0.25 + 0.6 * np.sqrt(np.clip(heat / highest, 0, 1))


def _draw(axis, sample: Sample, number: int, heat: np.ndarray | None, highest: float, outlined: tuple[int, ...]):
    """One frame, with heat over its grey copy if there is any, and the objects' outlines. Returns the top image."""
    image = sample.clip.frames[sample.clip.numbers.index(number)].permute(1, 2, 0).numpy()
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    drawn = axis.imshow(image, extent=extent)
    if heat is not None:
        axis.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=extent)
        how = {"cmap": COLOURS, "vmin": 0, "vmax": highest, "alpha": opacity(heat, highest)}
        drawn = axis.imshow(heat, extent=extent, interpolation="nearest", **how)
    for instance in outlined:
        frames = sample.record.instances[instance]
        if number in frames:
            mask = decode_mask(frames[number], sample.clip.height, sample.clip.width)
            x = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1]
            y = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0]
            if mask.any() and not mask.all():
                axis.contour(x, y, mask, levels=[0.5], colors=_OUTLINE, linewidths=1.5)
    axis.set_xticks([])
    axis.set_yticks([])
    return drawn
