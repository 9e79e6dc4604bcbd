"""Pictures of attention maps over frames, and of training curves."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from swim.data.masks import decode_mask
from swim.data.sample import Sample


def show_maps(path: str | Path, samples: list[Sample], titles: list[str], maps: dict[str, list[torch.Tensor]]):
    """Writes a sheet: a row for each sample; for each temporal step its frame, then a column for each entry of `maps`.

    maps: name of a model -> for each sample float32[T, H, W]. The object is outlined where the step's first frame is
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
        for column, axis in enumerate(axes[row]):
            step, place = divmod(column, len(names))
            heat = None if place == 0 else maps[names[place]][row][step].numpy()
            drawn = _draw(axis, sample, step, heat, highest)
            if row == 0:
                axis.set_title(f"frame {_frame(sample, step)}" if place == 0 else names[place], fontsize=10)
        axes[row, 0].set_ylabel(title, fontsize=10)
    figure.colorbar(drawn, ax=axes, shrink=0.6, pad=0.01, label="share of the clip's attention")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _frame(sample: Sample, step: int) -> int:
    """The frame number that stands for a step: its first."""
    frames_per_step = -(-len(sample.clip.numbers) // sample.masks.shape[1])
    return sample.clip.numbers[step * frames_per_step]


def _draw(axis, sample: Sample, step: int, heat: np.ndarray | None, highest: float):
    """One frame, with heat over its grey copy if there is any, and the object's outline. Returns the top image."""
    number = _frame(sample, step)
    image = sample.clip.frames[sample.clip.numbers.index(number)].permute(1, 2, 0).numpy()
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    drawn = axis.imshow(image, extent=extent)
    if heat is not None:
        axis.imshow(image.mean(axis=2), cmap="gray", vmin=0, vmax=255, extent=extent)
        alpha = 0.25 + 0.6 * np.sqrt(heat / highest)  # cold cells show the frame
        drawn = axis.imshow(heat, cmap="inferno", vmin=0, vmax=highest, alpha=alpha, extent=extent, interpolation="nearest")
    for frames in sample.record.instances:
        if number in frames:
            mask = decode_mask(frames[number], sample.clip.height, sample.clip.width)
            x = (np.arange(mask.shape[1]) + 0.5) * width / mask.shape[1]
            y = (np.arange(mask.shape[0]) + 0.5) * height / mask.shape[0]
            axis.contour(x, y, mask, levels=[0.5], colors="cyan", linewidths=1.5)
    axis.set_xticks([])
    axis.set_yticks([])
    return drawn


def plot_training(path: str | Path, runs: dict[str, str | Path]):
    """Writes the curves of text_loss, mask_loss and pointing. runs: name -> output folder with trainer_state.json."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for name, folder in runs.items():
        history = json.loads((Path(folder) / "trainer_state.json").read_text())["log_history"]
        for axis, key in zip(axes, ("text_loss", "mask_loss", "pointing")):
            points = [(entry["step"], entry[key]) for entry in history if key in entry]
            axis.plot(*zip(*points), label=name)
    for axis, key in zip(axes, ("text_loss", "mask_loss", "pointing")):
        axis.set_title(key)
        axis.set_xlabel("optimiser step")
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)
