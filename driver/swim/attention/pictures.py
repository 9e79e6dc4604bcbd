"""Pictures of attention maps over frames."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import Normal, Stroke
from rich.cells import cell_len

from swim.attention.captions import use_fonts, wrap
from swim.attention.paint import OUTLINE, OUTLINE_EDGE, Scale, blend, colour_strip
from swim.data.masks import decode_mask
from swim.data.sample import Sample

use_fonts()
GREY = "0.35"
_PANEL_INCH, _GAP_INCH = 1.75, 0.06  # a frame, and what is between frames
_EDGE_INCH, _TITLED_INCH, _BAR_INCH = 0.12, 0.24, 0.62  # around everything, above the first frames, for the colour bar
_NARROWEST_INCH = 3.2
_LONGEST_BAR_INCH = 3.0
_HEADING_LINES = 6
_LABEL_COLUMNS, _LABEL_LINES = 18, 4  # of a row's label at the left
_HEADING_PT, _LABEL_PT, _NOTE_PT = 10, 9, 8
_DPI = 130


class Page:
    """A figure measured in inches from its top left corner."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = plt.figure(figsize=(width, height))

    def axes(self, left: float, top: float, wide: float, tall: float):
        box = (left / self.width, 1 - (top + tall) / self.height, wide / self.width, tall / self.height)
        return self.figure.add_axes(box)

    def write(self, x: float, y: float, text: str, points: float, **how):
        how = {"ha": "center", "va": "center", "fontsize": points, "parse_math": False, **how}
        self.figure.text(x / self.width, 1 - y / self.height, text, **how)

    def draw_bar(self, left: float, top: float, wide: float, highest: float | None = None):
        """The colours as they look on a light frame; with `highest` their values below."""
        axis = self.axes(left, top, wide, 0.09)
        axis.imshow(colour_strip(8, 256), aspect="auto", extent=(0, highest or 1, 0, 1))
        axis.spines[:].set(linewidth=0.4, color=GREY)
        axis.set_yticks([])
        axis.tick_params(labelsize=_NOTE_PT, length=2, width=0.4)
        axis.locator_params(axis="x", nbins=6)
        if highest is None:
            axis.set_xticks([])

    def save(self, path: str | Path, dpi: int):
        self.figure.savefig(path, dpi=dpi)
        plt.close(self.figure)


@dataclass(frozen=True)
class Row:
    """One line of a sheet. heat: float32[T, H, W]. outlined: instances of the record, those whose masks are drawn."""

    title: str
    heat: np.ndarray
    outlined: tuple[int, ...] = ()


def draw_sheet(path: str | Path, sample: Sample, rows: list[Row], scale: Scale, title: str = "", most_columns: int = 8):
    """Writes a contact sheet: the frames on top, below them a line for each row, a column for each temporal step.

    A clip of more steps than `most_columns` shows that many, evenly spread. Text is wrapped to the space that it has.
    """
    steps = len(rows[0].heat)
    shown = spread(steps, most_columns)
    height, width = sample.clip.frames.shape[2:]
    labels = ["", *(wrap(row.title, _LABEL_COLUMNS, _LABEL_LINES) for row in rows)]
    left = (
        max(cell_len(line) for label in labels for line in label.split("\n")) * column_inch(_LABEL_PT) + 2 * _EDGE_INCH
    )
    wide = max(left + len(shown) * (_PANEL_INCH + _GAP_INCH) + _EDGE_INCH, _NARROWEST_INCH)
    heading, text_width = (
        wrap(title, int((wide - 2 * _EDGE_INCH) / column_inch(_HEADING_PT)), _HEADING_LINES),
        wide - left,
    )
    meaning = wrap(scale.label, int(text_width / column_inch(_NOTE_PT)), 3)
    top = _EDGE_INCH + (heading.count("\n") + 1) * line_inch(_HEADING_PT) * bool(title) + _TITLED_INCH
    # a flat frame may be lower than its label is tall
    tall = max(_PANEL_INCH * height / width, max(label.count("\n") + 1 for label in labels) * line_inch(_LABEL_PT))
    below = top + len(labels) * (tall + _GAP_INCH)
    page = Page(wide, below + _BAR_INCH + meaning.count("\n") * line_inch(_NOTE_PT))
    page.write(wide / 2, _EDGE_INCH, heading, _HEADING_PT, va="top")
    for line, label in enumerate(labels):
        heat = rows[line - 1].heat if line else None
        outlined = rows[line - 1].outlined if line else range(len(sample.record.instances))
        start = top + line * (tall + _GAP_INCH)
        page.write(left - _EDGE_INCH, start + tall / 2, label, _LABEL_PT, ha="right")
        for column, step in enumerate(shown):
            number, across = frame_of(sample, int(step), steps), left + column * (_PANEL_INCH + _GAP_INCH)
            axis = page.axes(across, start, _PANEL_INCH, tall)
            draw_frame(axis, sample, number, None if heat is None else heat[step], scale.highest, outlined)
            if heat is None:
                said = f"frame {number}, {number / sample.clip.fps:.1f} s"
                page.write(across + _PANEL_INCH / 2, start - _TITLED_INCH / 2, said, _NOTE_PT)
    page.draw_bar(left, below + 0.08, min(text_width - 2 * _EDGE_INCH, _LONGEST_BAR_INCH), scale.highest)
    page.write(left, below + 0.4, meaning, _NOTE_PT, ha="left", va="top")
    page.save(path, _DPI)


def line_inch(points: float) -> float:
    """The height of a line of text."""
    return 1.35 * points / 72


def column_inch(points: float) -> float:
    """The width of a column of text."""
    return 0.62 * points / 72


def spread(count: int, most: int) -> np.ndarray:
    """int[N]: up to `most` of `count` steps, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def frame_of(sample: Sample, step: int, steps: int) -> int:
    """The frame number that stands for a step: its first with a mask, else its first."""
    frames_per_step = -(-len(sample.clip.numbers) // steps)
    numbers = sample.clip.numbers[step * frames_per_step : (step + 1) * frames_per_step]
    annotated = set(sample.record.annotated_frames)
    return next((number for number in numbers if number in annotated), numbers[0])


def draw_frame(
    axis, sample: Sample, number: int, heat: np.ndarray | None, highest: float, outlined: Sequence[int], line_pt=1.3
):
    """One frame, under heat if there is any, and the objects' outlines."""
    image = sample.clip.frames[sample.clip.numbers.index(number)].permute(1, 2, 0).numpy()
    height, width = image.shape[:2]
    axis.imshow(image if heat is None else blend(image, heat, highest), extent=(0, width, height, 0))
    for instance in outlined:
        frames = sample.record.instances[instance]
        if number in frames:
            mask = decode_mask(frames[number], sample.clip.height, sample.clip.width)
            x = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1]
            y = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0]
            if mask.any() and not mask.all():
                edge = Stroke(linewidth=2 * line_pt, foreground=_rgb(OUTLINE_EDGE))
                line = axis.contour(x, y, mask, levels=[0.5], colors=[_rgb(OUTLINE)], linewidths=line_pt)
                line.set_path_effects([edge, Normal()])
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)


def _rgb(colour: tuple[int, int, int]) -> tuple[float, ...]:
    return tuple(part / 255 for part in colour)
