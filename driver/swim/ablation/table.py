"""What an ablation found: a table for each axis, the differences to the base, and a figure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from swim.ablation.plan import Variant
from swim.markdown import head
from swim.markdown import row as row_of

# Of the figure: a score's name and its scale; None is as long as it needs to be.
PANELS: dict[str, tuple[str, tuple[float, float] | None]] = {
    "pointing": ("pointing", (0, 1)),
    "pointing_swapped": ("pointing, another\nobject named", (0, 1)),
    "inside": ("attention inside", (0, 1)),
    "answers": ("answers right", (0, 1)),
    "perplexity": ("perplexity", None),
    "bench_q": ("Bench-Q, right", (0, 1)),
    "bench_d": ("Bench-D, 0 to 5", (0, 5)),
}
CONFIDENCE = 0.95
INK, ACCENT, PALE = "#333333", "#c2410c", "#9ca3af"

Scores = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One variant. scores: by seed; of those that are measured."""

    variant: Variant
    scores: dict[int, Scores]

    def values(self, score: str) -> list[float]:
        return [scores[score] for scores in self.scores.values() if score in scores]


def by_axis(rows: Sequence[Row]) -> dict[str, list[Row]]:
    axes: dict[str, list[Row]] = {}
    for row in rows:
        axes.setdefault(row.variant.axis, []).append(row)
    return axes


def reference_of(rows: Sequence[Row]) -> Row:
    """What the others of an axis are compared with: the base, else the first that was trained."""
    trained = [row for row in rows if row.variant.changes is not None] or list(rows)
    return next((row for row in trained if row.variant.is_base), trained[0])


def paired_difference(row: Row, reference: Row, score: str) -> tuple[float, tuple[float, float] | None] | None:
    """(mean difference over the seeds that both have, its t interval); None without such a seed, no interval of one."""
    seeds = [seed for seed in row.scores if seed in reference.scores]
    pairs = [(row.scores[seed], reference.scores[seed]) for seed in seeds]
    differences = [one[score] - other[score] for one, other in pairs if score in one and score in other]
    if not differences:
        return None
    mean = statistics.mean(differences)
    if len(differences) < 2:
        return mean, None
    error = statistics.stdev(differences) / len(differences) ** 0.5
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * error
    return mean, (mean - reach, mean + reach)


def as_markdown(rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """For each axis two tables: mean and range over the seeds; differences to its reference, and to what a row names."""
    lines: list[str] = []
    for axis, some in by_axis(rows).items():
        columns = _columns(some)
        if not columns:
            lines += [f"## {axis}", "", "nothing measured yet", ""]
            continue
        lines += [f"## {axis}", "", *head(["", *columns, "seeds"])]
        lines += [
            row_of([row.variant.name, *(_mean(row.values(score)) for score in columns), _seeds(row)]) for row in some
        ]
        reference, named = reference_of(some), {row.variant.name: row for row in some}
        pairs = [(row, reference, row.variant.name) for row in some if row is not reference]
        pairs += [
            (row, named[row.variant.against], f"{row.variant.name}, less {row.variant.against}")
            for row in some
            if row.variant.against is not None
        ]
        if pairs:
            lines += ["", f"Less {reference.variant.name}, of the same seeds, with 95 % t intervals:", ""]
            lines += head(["", *columns])
            for row, other, text in pairs:
                lines.append(row_of([text, *(_less(row, other, score) for score in columns)]))
        lines.append("")
    missing = [row for row in rows if len(row.scores) < len(seeds)]
    if missing:
        names = ", ".join(f"{row.variant.axis}: {row.variant.name}" for row in missing)
        lines += [f"Not measured on every seed yet: {names}.", ""]
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path):
    """A panel for each score; in it a line for each variant: its mean over the seeds, its range, and a ring for each seed.

    Variants stand in groups, one for each axis. What the others of a group are compared with is in colour.
    """
    axes = {axis: some for axis, some in by_axis(rows).items() if _columns(some)}
    if not axes:
        return
    columns = _columns(rows)
    lines: list[tuple[str, Row | None, str]] = []  # (text, row or None for the name of an axis, colour)
    for axis, some in axes.items():
        reference = reference_of(some)
        lines.append((axis, None, INK))
        lines += [(row.variant.name, row, ACCENT if row is reference else INK) for row in some]
    size = (2.0 + 1.2 * len(columns), 0.9 + 0.24 * len(lines))
    figure, panels = plt.subplots(1, len(columns), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for panel, score in zip(panels[0], columns):
        for place, (_, row, colour) in enumerate(lines):
            _draw(panel, place, row.values(score) if row is not None else [], colour)
        title, scale = PANELS.get(score, (score, None))
        panel.set_title(title, fontsize=8)
        panel.tick_params("x", labelsize=7)
        panel.tick_params("y", length=0)
        panel.grid(axis="x", color="0.9", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
        low, high = panel.get_xlim()
        if scale is not None:
            panel.set_xlim(scale[0] - 0.03 * scale[1], 1.03 * scale[1])
        elif high > 10 * max(low, 1):
            panel.set_xscale("log")
            panel.xaxis.set_minor_formatter("")
        panel.xaxis.set_major_formatter("{x:g}")
    first = panels[0][0]
    first.set_yticks(range(len(lines)), [text for text, _, _ in lines], fontsize=8)
    for label, (_, row, _) in zip(first.get_yticklabels(), lines):
        label.set_fontweight("bold" if row is None else "normal")
    first.set_ylim(len(lines) - 0.4, -0.6)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def _draw(panel, place: int, values: list[float], colour: str):
    if values:
        panel.plot([min(values), max(values)], [place, place], color=colour, linewidth=1.2)
        panel.plot(values, [place] * len(values), "o", markersize=3.5, markerfacecolor="none", markeredgecolor=PALE)
        panel.plot([np.mean(values)], [place], "|", color=colour, markersize=9, markeredgewidth=2)


def _columns(rows: Sequence[Row]) -> list[str]:
    """The scores that any of them has, in the order in which they were measured."""
    return list(dict.fromkeys(score for row in rows for scores in row.scores.values() for score in scores))


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else ""
    return f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _less(row: Row, reference: Row, score: str) -> str:
    found = paired_difference(row, reference, score)
    if found is None:
        return ""
    mean, edges = found
    return _signed(mean) if edges is None else f"{_signed(mean)} ({_signed(edges[0])} to {_signed(edges[1])})"


def _signed(value: float) -> str:
    text = f"{value:+.2f}"
    return text if text[1:].strip("0.") else text[1:]


def _seeds(row: Row) -> str:
    return ", ".join(map(str, row.scores))
