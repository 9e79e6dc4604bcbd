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

# Scores with a scale of their own, for the figure; the others are as long as they need.
SCALES = {
    "pointing": (0, 1),
    "pointing_swapped": (0, 1),
    "inside": (0, 1),
    "answers": (0, 1),
    "bench_q": (0, 1),
    "bench_d": (0, 5),
}
CONFIDENCE = 0.95

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
    """For each axis two tables: mean and range over the seeds, and the differences to its reference."""
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
        reference = reference_of(some)
        others = [row for row in some if row is not reference]
        if others:
            lines += ["", f"Less {reference.variant.name}, of the same seeds, with 95 % t intervals:", ""]
            lines += head(["", *columns])
            for row in others:
                lines.append(row_of([row.variant.name, *(_less(row, reference, score) for score in columns)]))
        lines.append("")
    missing = [row for row in rows if len(row.scores) < len(seeds)]
    if missing:
        names = ", ".join(f"{row.variant.axis}: {row.variant.name}" for row in missing)
        lines += [f"Not measured on every seed yet: {names}.", ""]
    return "\n".join(lines)


def plot(rows: Sequence[Row], path: Path):
    """A row of panels for each axis, a panel for each score: a bar for each variant, a dot for each seed."""
    axes = {axis: some for axis, some in by_axis(rows).items() if _columns(some)}
    if not axes:
        return
    columns = _columns(rows)
    figure, panels = plt.subplots(len(axes), len(columns), figsize=(2.1 * len(columns), 2.7 * len(axes)), squeeze=False)
    colours = plt.get_cmap("tab10")
    for line, (axis, some) in zip(panels, axes.items()):
        for panel, score in zip(line, columns):
            for place, row in enumerate(some):
                values = row.values(score)
                if values:
                    panel.bar(place, np.mean(values), color=colours(place % 10), alpha=0.6, width=0.75)
                    panel.plot([place] * len(values), values, "o", color="0.25", markersize=3)
            panel.set_title(f"{axis}: {score}", fontsize=8)
            panel.set_xticks(range(len(some)), [row.variant.name for row in some], rotation=60, ha="right", fontsize=7)
            panel.tick_params("y", labelsize=7)
            panel.spines[["top", "right"]].set_visible(False)
            if score in SCALES:
                panel.set_ylim(*SCALES[score])
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


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
    return f"{mean:+.2f}" if edges is None else f"{mean:+.2f} ({edges[0]:+.2f} to {edges[1]:+.2f})"


def _seeds(row: Row) -> str:
    return ", ".join(map(str, row.scores))
