"""What the demo shows: the same model before training, after it, and trained on the text alone."""

import ctypes
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from rich.console import Console
from rich.table import Table
from transformers import AutoProcessor

from swim.attention.animation import animate_maps
from swim.attention.figure import show_maps
from swim.attention.grounding import GroundingScores, mean_maps, score_grounding
from swim.data.collator import SwimCollator
from swim.data.records import parse_record
from swim.data.sample import Sample, SampleReader
from swim.data.settings import DataSettings
from swim.data.tags import strip_tags
from swim.demo.inputs import make_demo_inputs
from swim.infer.generate import generate_answers
from swim.lock import alone_in
from swim.models.load import load_weights
from swim.train.config import ConfigError, TrainConfig
from swim.train.report import plot_curves
from swim.train.run import train
from swim.train.run_folder import RunFolder, read_state

PICTURED_CLIPS = 2
PICTURED_AS = {"before": "before training", "after": "supervised"}
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

console = Console(soft_wrap=True)


@dataclass(frozen=True)
class HeldOut:
    """Held-out clips.

    asked: each with its question.
    swapped: the same clips with a question about another object, but the masks of the first.
    other: the swapped question with its own masks.
    answers: the right answers to `asked`.
    """

    asked: list[Sample]
    swapped: list[Sample]
    other: list[Sample]
    answers: list[str]


@dataclass(frozen=True)
class Scores:
    grounding: GroundingScores
    pointing_swapped: float
    accuracy: float
    maps: list[torch.Tensor]


def train_and_report(config: TrainConfig):
    """Trains, beside it the control without the mask loss, and compares them on held-out clips.

    Writes attention.png, overlay.webp, loss.png and summary.json into the run's folder, and the control into text_only/ there.
    Raises ConfigError when the control fails, FolderInUse when another process trains there.
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
    with _beside(control_config(config, control_folder), folder) as control:
        summary = train(config)
        console.print(f"waiting for the text-only control ({folder / 'text_only.log'})")
        if control.wait() != 0:
            raise ConfigError(f"the text-only control failed; its output is in {folder / 'text_only.log'}")

    inputs = make_demo_inputs(config.demo)
    held_out = read_held_out(inputs.held_out_json, config.data_settings)
    models = {"before": Path(config.model), "text only": control_folder, "after": folder}
    scores = {name: evaluate(path, held_out, config.data_settings) for name, path in models.items()}
    pictured = _pictured(held_out)
    maps = {PICTURED_AS.get(name, name): score.maps for name, score in scores.items()}
    show_maps(folder / "attention.png", pictured, [_phrase(sample) for sample in pictured], maps)
    animate_maps(folder / "overlay.webp", pictured, maps)
    runs = {"supervised": read_state(folder).log_history, "text only": read_state(control_folder).log_history}
    plot_curves(folder / "loss.png", runs, ("text_loss", "mask_loss", "pointing"))
    numbers = summarise(scores, summary)
    (folder / "summary.json").write_text(json.dumps(numbers, indent=1) + "\n")
    _print_table(numbers, folder)


def control_config(config: TrainConfig, folder: Path) -> TrainConfig:
    """The same run without the mask loss and without a report."""
    supervision = {**config.attention_supervision, "mask_loss_weight": 0.0}
    changes = {"output_dir": str(folder), "attention_supervision": supervision, "demo_report": False}
    return config.model_copy(update=changes)


@contextmanager
def _beside(config: TrainConfig, folder: Path) -> Iterator[subprocess.Popen]:
    """Another training process, its output in a log file; ended when this one fails."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "text_only.yaml"
    path.write_text(yaml.safe_dump(config.to_flat(), sort_keys=False))
    with (folder / "text_only.log").open("w") as log:
        command = [sys.executable, "-m", "swim", "train", "--config", str(path)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _end_with_parent():
    """Asks Linux to end this process with its parent, also when that is killed: two controls must never train into one folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a polite signal would let it save first


def read_held_out(path: Path, settings: DataSettings) -> HeldOut:
    """Reads the held-out records that the demo wrote; see swim.demo.clips for their keys."""
    reader = SampleReader(settings)
    held_out = HeldOut([], [], [], [])
    for position, raw in enumerate(json.loads(path.read_text())):
        other = raw["swap"]["object"]
        variants = (
            (held_out.asked, raw["conversations"], raw["annotation"]),
            (held_out.swapped, raw["swap"]["conversations"], raw["annotation"]),
            (held_out.other, raw["swap"]["conversations"], [raw["all_objects"][other]["annotation"]]),
        )
        for samples, conversations, annotation in variants:
            record = {**raw, "conversations": conversations, "annotation": annotation}
            samples.append(reader.read(parse_record(record, f"{path}, record {position}", path.parent)))
        held_out.answers.append(strip_tags(raw["conversations"][-1]["value"])[0])
    return held_out


def evaluate(model_path: Path, held_out: HeldOut, settings: DataSettings) -> Scores:
    """Pointing and inside, pointing with swapped questions, answers that are right to the letter, maps to picture."""
    model = load_weights(model_path).eval()
    collator = SwimCollator(AutoProcessor.from_pretrained(model_path), model.config, settings)
    answers = list(generate_answers(model, collator, held_out.asked, max_new_tokens=16))
    right = sum(given == expected for given, expected in zip(answers, held_out.answers))
    return Scores(
        grounding=score_grounding(model, collator, held_out.asked),
        pointing_swapped=score_grounding(model, collator, held_out.swapped).pointing,
        accuracy=right / len(answers),
        maps=mean_maps(model, collator, _pictured(held_out)),
    )


def _pictured(held_out: HeldOut) -> list[Sample]:
    """The first clips, each asked for two of its objects."""
    pairs = list(zip(held_out.asked, held_out.other))[:PICTURED_CLIPS]
    return [sample for pair in pairs for sample in pair]


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
        "text_loss": summary["text_loss"],
        "mask_loss": summary["mask_loss"],
        "train_seconds": summary["train_runtime"],
    }
    counts = {"pairs": after.grounding.pairs, "pairs_left_out": after.grounding.left_out, "steps": summary["steps"]}
    return {**{name: round(value, 4) for name, value in numbers.items()}, **counts}


def _phrase(sample: Sample) -> str:
    return next(span.phrase for turn in sample.record.turns for span in turn.spans)


def _print_table(numbers: dict, folder: Path):
    table = Table(title="held-out clips")
    for column in ("", "before", "text only", "supervised"):
        table.add_column(column)
    for name, suffix in (("pointing", "_after"), ("inside", "_after"), ("accuracy", "")):
        values = (numbers[name + ending] for ending in ("_before", "_text_only", suffix))
        table.add_row(name, *(f"{value:.2f}" for value in values))
    table.add_row("pointing when another object is named", "", "", f"{numbers['pointing_swapped']:.2f}")
    table.add_row("chance", *[f"{numbers['chance']:.2f}"] * 3)
    console.print(table)
    console.print(f"pictures and numbers: {folder}/attention.png, overlay.webp, loss.png, summary.json")
