"""What training changed: the same model before it, after it, and trained on the text alone, on held-out records."""

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table

from swim.attention.animation import animate_maps
from swim.attention.figure import show_maps
from swim.cli.runs.demo_defaults import is_demo_data
from swim.cli.runs.held_out import HeldOut, Scores, evaluate, phrase_of, read_annotated, read_held_out
from swim.cli.runs.yardsticks import yardsticks
from swim.concurrently import killed_with_parent
from swim.demo.inputs import make_demo_inputs
from swim.lock import alone_in
from swim.markdown import head, row
from swim.train.config import ConfigError, TrainConfig
from swim.train.report import plot_curves
from swim.train.run import train
from swim.train.run_folder import RunFolder, read_state

TOLD_RECORDS = 8  # with the models' answers, in comparison.md
PICTURED_AS = {"before": "before training", "after": "supervised"}

console = Console(soft_wrap=True)


def train_and_report(config: TrainConfig):
    """Trains, beside it the control without the mask loss, and compares them on held-out clips.

    The clips are those of eval_grounding, its first 64 records, or else the demo's. Writes attention.png,
    overlay.webp, loss.png, comparison.md and summary.json into the run's folder, and the control into text_only/ there.

    Raises ConfigError when the control fails, or for data of one's own without eval_grounding; DataError for a held-out
    record that cannot be read, FolderInUse when another process trains there.
    """
    with alone_in(config.output_dir):
        _train_and_report(config)


def _train_and_report(config: TrainConfig):
    folder = Path(config.output_dir)
    changed = RunFolder(folder).differences(config)
    if (folder / "summary.json").exists() and not changed:
        train(config)  # says that it is finished
        return
    control_folder = folder / "text_only"
    if config.eval_grounding is not None or not is_demo_data(config):
        held_out_of(config)  # whatever is wrong with it shows before hours of training, which need its memory
    summary = _train_both(config, control_folder)
    held_out = held_out_of(config)
    models = {"before": config.model, "text only": str(control_folder), "after": str(folder)}
    scores = {name: evaluate(path, held_out, config.data_settings) for name, path in models.items()}
    pictured = held_out.pictured
    maps = {PICTURED_AS.get(name, name): score.maps for name, score in scores.items()}
    show_maps(folder / "attention.png", pictured, [phrase_of(sample.record) for sample in pictured], maps)
    animate_maps(folder / "overlay.webp", pictured, maps)
    runs = {"supervised": read_state(folder).log_history, "text only": read_state(control_folder).log_history}
    plot_curves(folder / "loss.png", runs, ("text_loss", "mask_loss", "pointing"))
    numbers: dict = summarise(scores, summary)
    if config.demo.language_model is not None and is_demo_data(config):
        named = dict(zip(("before", "text_only", "supervised"), models.values()))
        numbers |= yardsticks(named, config, folder)
    (folder / "comparison.md").write_text(as_markdown(numbers, held_out, scores, folder))
    (folder / "summary.json").write_text(json.dumps(numbers, indent=1) + "\n")
    _print_table(numbers, folder)


def held_out_of(config: TrainConfig) -> HeldOut:
    """Of eval_grounding, or else of the demo. Raises ConfigError where there is neither."""
    if config.eval_grounding is not None:
        return read_annotated(config)
    if is_demo_data(config):
        return read_held_out(make_demo_inputs(config.demo).held_out_json, config.data_settings, config.model)
    raise ConfigError(
        "report: it compares models on held-out records; name an annotated file that is not trained on with "
        "eval_grounding, or leave report out"
    )


def _train_both(config: TrainConfig, control_folder: Path) -> dict:
    """Trains the model and its control, side by side where they do not share a GPU; the summary of the former."""
    folder = Path(config.output_dir)
    control, threads = control_config(config, control_folder), torch.get_num_threads()
    summary = None
    if torch.cuda.is_available():
        summary = train(config)
        gc.collect()
        torch.cuda.empty_cache()
    with _beside(control, folder) as process:
        summary = summary or train(config)
        console.print(f"waiting for the text-only control ({folder / 'text_only.log'})")
        if process.wait() != 0:
            raise ConfigError(f"the text-only control failed; its output is in {folder / 'text_only.log'}")
    torch.set_num_threads(threads)  # cpu_threads left the other cores to the control
    return summary


def control_config(config: TrainConfig, folder: Path) -> TrainConfig:
    """The same run without the mask loss and without a report."""
    supervision = {**config.attention_supervision, "mask_loss_weight": 0.0}
    changes = {"output_dir": str(folder), "attention_supervision": supervision, "report": False}
    return config.model_copy(update=changes)


@contextmanager
def _beside(config: TrainConfig, folder: Path) -> Iterator[subprocess.Popen]:
    """Another training process, its output in a log file; ended when this one fails."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "text_only.yaml"
    path.write_text(yaml.safe_dump(config.to_flat(), sort_keys=False))
    with (folder / "text_only.log").open("w") as log:
        command = [sys.executable, "-m", "swim", "train", "--config", str(path)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=killed_with_parent)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def summarise(scores: dict[str, Scores], summary: dict) -> dict[str, float]:
    """The numbers of summary.json; losses and seconds are those of the supervised run."""
    before, control, after = scores["before"], scores["text only"], scores["after"]
    numbers = {
        "pointing_before": before.grounding.pointing,
        "pointing_after": after.grounding.pointing,
        "pointing_text_only": control.grounding.pointing,
        "pointing_swapped": after.pointing_swapped,
        "inside_before": before.grounding.inside,
        "inside_after": after.grounding.inside,
        "inside_text_only": control.grounding.inside,
        "chance": after.grounding.chance,
        "accuracy_before": before.accuracy,
        "accuracy": after.accuracy,
        "accuracy_text_only": control.accuracy,
        "perplexity_before": before.grounding.perplexity,
        "perplexity": after.grounding.perplexity,
        "perplexity_text_only": control.grounding.perplexity,
        "text_loss": summary["text_loss"],
        "mask_loss": summary["mask_loss"],
        "train_seconds": summary["train_runtime"],
    }
    counts = {"pairs": after.grounding.pairs, "pairs_left_out": after.grounding.left_out, "steps": summary["steps"]}
    return {**{name: round(value, 4) for name, value in numbers.items() if value is not None}, **counts}


def _rows(numbers: dict) -> Iterator[tuple[str, ...]]:
    """Of the tables: a score's name, and its value before training, of the control, and after."""
    for name, suffix in (("pointing", "_after"), ("inside", "_after"), ("accuracy", ""), ("perplexity", "")):
        told = {"accuracy": "answers right to the letter", "perplexity": "perplexity of the answers"}.get(name, name)
        yield told, *(f"{numbers[name + ending]:.2f}" for ending in ("_before", "_text_only", suffix))
    if "pointing_swapped" in numbers:
        yield "pointing when another object is named", "", "", f"{numbers['pointing_swapped']:.2f}"
    yield "pointing by chance", *[f"{numbers['chance']:.2f}"] * 3


def as_markdown(numbers: dict, held_out: HeldOut, scores: dict[str, Scores], folder: Path) -> str:
    """comparison.md: the table, the pictures and the first records with what the models answer."""
    lines = [f"# {folder.name}: {len(held_out.asked)} held-out records", ""]
    lines += head(["", "before", "text only", "supervised"])
    lines += [row(texts) for texts in _rows(numbers)]
    lines += ["", "![where the models look](attention.png)", "", "![the same, playing](overlay.webp)", ""]
    lines += ["![losses](loss.png)", "", *head(["question", "answer", "before", "text only", "supervised"])]
    for number, sample in enumerate(held_out.asked[:TOLD_RECORDS]):
        question = [turn.text for turn in sample.record.turns if turn.role == "user"][-1]
        texts = [question, held_out.answers[number], *(score.answers[number] for score in scores.values())]
        lines.append(row(texts))
    return "\n".join(lines) + "\n"


def _print_table(numbers: dict, folder: Path):
    table = Table(title="held-out records")
    for column in ("", "before", "text only", "supervised"):
        table.add_column(column)
    for texts in _rows(numbers):
        table.add_row(*texts)
    console.print(table)
    console.print(f"pictures, numbers and answers: {folder}/comparison.md, summary.json")
