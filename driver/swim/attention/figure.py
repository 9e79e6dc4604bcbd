"""The figure that compares models: the same clips under the heat of each, as wide as a page of a paper."""

from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from swim.attention.captions import wrap
from swim.attention.pictures import GREY, Page, column_inch, draw_frame, frame_of, spread
from swim.data.sample import Sample
from swim.models.supervision import ON_OBJECT

_PAGE_INCH, _DPI = 7.0, 200  # the width of a page's text
_LEAST_PANEL_INCH = 0.6
_LEFT_INCH, _TOP_INCH, _BOTTOM_INCH = 0.26, 0.24, 0.27  # for the samples' titles, the models' names, the colour bar
_TIGHT_INCH, _LOOSE_INCH, _STRIP_INCH = 0.025, 0.09, 0.17  # between panels, between models, below a line of panels
_NAME_PT, _TITLE_PT, _NOTE_PT = 8, 7, 6


def show_maps(
    path: str | Path, samples: list[Sample], titles: list[str], maps: dict[str, list[torch.Tensor]], most_steps: int = 2
):
    """Writes a line for each sample: its frames, then the same frames under the heat of each entry of `maps`.

    maps: name of a model -> for each sample float32[T, H, W]. Up to `most_steps` temporal steps are shown, evenly spread.
    The colours of a map go from 0 to its own highest cell; that cell's share of the clip's attention stands below it. The
    object is outlined where a frame of the step is annotated. Lines are in the order of `best_first`.
    """
    last = list(maps.values())[-1]
    page = _Page(samples, 1 + len(maps), max(len(spread(len(heat), most_steps)) for heat in last))
    for group, name in enumerate(["clip", *maps]):
        page.write(page.left(group) + page.group / 2, _TOP_INCH / 2, name, _NAME_PT)
    top = _TOP_INCH
    for row in best_first(samples, last):
        tall = page.tall[row]
        title = wrap(titles[row], int(tall / column_inch(_TITLE_PT)), 3)
        page.write(_LEFT_INCH / 2, top + tall / 2, title, _TITLE_PT, rotation=90)
        _draw_line(page, top, row, samples[row], {name: heats[row].numpy() for name, heats in maps.items()}, most_steps)
        top += tall + _STRIP_INCH
    bar = page.left(len(maps))
    page.draw_bar(bar, top + 0.09, page.group)
    said = "share of the clip's attention in a cell: from 0 to each map's maximum"
    page.write(bar - 0.08, top + 0.13, said, _TITLE_PT, ha="right")
    page.save(path, _DPI)


def best_first(samples: list[Sample], maps: list[torch.Tensor]) -> list[int]:
    """The samples by the share of their map, float32[T, H, W], that is on the object; those of one clip, one after
    another in `samples`, stay together, and count as the worst of them.
    """
    share = [_share_on_object(sample, heat) for sample, heat in zip(samples, maps)]
    clips = [list(rows) for _, rows in groupby(range(len(samples)), key=lambda row: str(samples[row].record.path))]
    clips.sort(key=lambda rows: -min(share[row] for row in rows))
    return [row for rows in clips for row in sorted(rows, key=lambda row: -share[row])]


def _share_on_object(sample: Sample, heat: torch.Tensor) -> float:
    """Of the map's mass in the steps with a mask of the first object; 0 without masks."""
    if sample.masks is None:
        return 0.0
    seen, masks = sample.masks.index[0], torch.from_numpy(sample.masks.shares[0])
    finer = masks.shape[-1] // heat.shape[-1]
    on_object = torch.nn.functional.avg_pool2d(masks, finer) >= ON_OBJECT
    return float((heat * on_object)[seen].sum() / heat[seen].sum().clamp_min(1e-30))


class _Page(Page):
    """As wide as a page's text, or wider where panels would be too small to see.

    group: width of the panels of one model.
    panel: width of one of them.
    tall: height of the panels of each sample.
    """

    def __init__(self, samples: list[Sample], groups: int, columns: int):
        fitting = (_PAGE_INCH - _LEFT_INCH) / groups - _LOOSE_INCH
        self.panel = max((fitting - _TIGHT_INCH * (columns - 1)) / columns, _LEAST_PANEL_INCH)
        self.group = self.panel * columns + _TIGHT_INCH * (columns - 1)
        self.tall = [self.panel * sample.clip.frames.shape[2] / sample.clip.frames.shape[3] for sample in samples]
        width = _LEFT_INCH + groups * (self.group + _LOOSE_INCH)
        super().__init__(width, _TOP_INCH + sum(self.tall) + _STRIP_INCH * len(samples) + _BOTTOM_INCH)

    def left(self, group: int, column: int = 0) -> float:
        return _LEFT_INCH + group * (self.group + _LOOSE_INCH) + column * (self.panel + _TIGHT_INCH)


def _draw_line(page: _Page, top: float, row: int, sample: Sample, maps: dict[str, np.ndarray], most_steps: int):
    """The panels of one sample, each map's highest cell and each frame's time below them."""
    below = top + page.tall[row] + 0.45 * _STRIP_INCH
    for group, heat in enumerate([None, *maps.values()]):
        steps = len(next(iter(maps.values())))
        for column, step in enumerate(spread(steps, most_steps)):
            frame, left = frame_of(sample, int(step), steps), page.left(group, column)
            axis = page.axes(left, top, page.panel, page.tall[row])
            shown, highest = (None, 1.0) if heat is None else (heat[step], float(heat.max()) or 1.0)
            draw_frame(axis, sample, frame, shown, highest, range(len(sample.record.instances)), line_pt=0.8)
            if heat is None:
                page.write(left + page.panel / 2, below, f"{frame / sample.clip.fps:.1f} s", _NOTE_PT, color=GREY)
        if heat is not None:
            page.write(page.left(group) + page.group / 2, below, f"max {100 * heat.max():.1f} %", _NOTE_PT, color=GREY)
