"""The last page of a run: report.md with its curves, in the output folder."""

import importlib.metadata as metadata
import os
import platform
from pathlib import Path

import matplotlib
import torch
import transformers
from transformers import TrainerState

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from swim.train.card import data_section, read_left, values_section
from swim.train.run_folder import CONFIG_FILE, MIXTURE_FILE, read_state
from swim.train.watch import PARTS, STEP_TIME

REPORT_FILE = "report.md"
PICTURES = "report"  # a folder
_LIBRARIES = ("swim-driver", "transformers", "torch", "trl", "accelerate", "deepspeed", "peft", "datasets")
# Name of a picture -> keys of the log; keys of one picture have an axis each.
_CURVES = {
    "losses": ("loss", "text_loss", "mask_loss"),
    "grounding": ("pointing", "inside", "supervised_share"),
    "speed": ("tokens_per_second", "samples_per_second", "step time in s"),
    "optimisation": ("learning_rate", "grad_norm", "peak_memory_gb"),
}


def write_report(folder: str | Path, result: dict):
    """Writes report.md and its pictures from what a run left in its folder. result: what finished.json will hold."""
    folder = Path(folder)
    (folder / PICTURES).mkdir(exist_ok=True)
    state = read_state(folder)
    lines = [f"# {folder.resolve().name}\n", _outcome(state)]
    for name, keys in _CURVES.items():
        plot_curves(folder / PICTURES / f"{name}.png", {"training": state.log_history}, keys)
        lines.append(f"![{name}]({PICTURES}/{name}.png)\n")
    config = read_left(folder / CONFIG_FILE)
    versions = {name: metadata.version(name) for name in _LIBRARIES} | {"transformers": transformers.__version__}
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    processes = int(os.environ.get("WORLD_SIZE", 1))
    versions |= {"Python": platform.python_version(), "machine": f"{machine}, {processes} process(es)"}
    sections = [
        values_section("Last values", _last_values(state.log_history)),
        values_section("Result", result),
        data_section(read_left(folder / MIXTURE_FILE)),
        values_section("Settings", config),
        values_section("Versions", versions),
    ]
    (folder / REPORT_FILE).write_text("\n".join([*lines, *sections]), encoding="utf-8")


def plot_curves(path: str | Path, runs: dict[str, list[dict]], keys: tuple[str, ...]):
    """Writes a picture of these keys of the log over the steps; what evaluation gave is dashed.

    runs: name -> log history. "step time in s" stands for its parts, one upon the other.
    """
    figure, axes = plt.subplots(1, len(keys), figsize=(4.3 * len(keys), 3.6), layout="constrained")
    for name, history in runs.items():
        for axis, key in zip(axes, keys):
            if key == "step time in s":
                _plot_step_time(axis, history)
                continue
            for logged, style in ((key, "-"), (f"eval_{key}", "--")):
                points = [(entry["step"], entry[logged]) for entry in history if logged in entry]
                if points:
                    marker = "." if len(points) < 3 else None  # a line of one point cannot be seen
                    axis.plot(*zip(*points), style, marker=marker, label=name if logged == key else f"{name}, held out")
    for axis, key in zip(axes, keys):
        axis.set_title(key)
        axis.set_xlabel("optimiser step")
        axis.grid(alpha=0.3)
        if key == "text_loss":
            axis.set_yscale("log")
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plot_step_time(axis, history: list[dict]):
    entries = [entry for entry in history if all(part in entry for part in STEP_TIME)]
    steps = [entry["step"] for entry in entries]
    if len(entries) == 1:  # an area needs two ends
        entries, steps = entries * 2, [steps[0] - 0.5, steps[0] + 0.5]
    parts = [[entry[part] for entry in entries] for part in STEP_TIME]
    axis.stackplot(steps, parts, labels=PARTS)


def _outcome(state: TrainerState) -> str:
    best = state.best_model_checkpoint
    kept = f" Best checkpoint: {Path(best).name}, {state.best_metric:.4g}." if best else ""
    return f"Finished after {state.global_step:,} steps, epoch {state.epoch:.2f}.{kept}\n"


def _last_values(history: list[dict]) -> dict:
    """The last value of each key of the log."""
    values: dict = {}
    for entry in history:
        values |= {key: value for key, value in entry.items() if key not in ("step", "epoch", "total_flos")}
    return values
