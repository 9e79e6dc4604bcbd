"""GRPO from the arguments of the command line, what it starts from, and what it changed."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from swim.attention.animation import animate_maps
from swim.attention.figure import show_maps
from swim.cli.runs.comparison import TOLD_RECORDS, control_config, held_out_of
from swim.cli.runs.demo_defaults import DEMO_CONFIG, with_demo_inputs
from swim.cli.runs.held_out import HeldOut, Scores, evaluate, phrase_of
from swim.cli.runs.train import in_one_line, load_training
from swim.markdown import head, row
from swim.train.config import TrainConfig, load_config
from swim.train.grpo_config import GRPOTrainConfig
from swim.train.report import plot_curves
from swim.train.run import train
from swim.train.run_folder import RunFolder, read_state

CURVES = ("reward", "mask_loss", "pointing", "kl")

console = Console(soft_wrap=True)


def run(arguments: list[str]) -> int:
    return in_one_line(lambda: _run(arguments))


def _run(arguments: list[str]):
    config = load_training(arguments, GRPOTrainConfig)
    if config.model_name_or_path is None:
        config = config.model_copy(update={"model_name_or_path": _demo_start(config)})
    config = with_demo_inputs(config)
    # whatever is wrong with them shows before hours of training
    held_out = held_out_of(config) if config.report else None
    train(config)
    if held_out is not None:
        _report(config, held_out)


def _demo_start(config: GRPOTrainConfig) -> str:
    """The demo's model after training on the text alone, which knows the answers' form and does not look: trained once."""
    folder = Path(config.demo.dir) / f"text_only_{config.demo.family}_seed{config.demo.seed}"
    demo: TrainConfig = load_config(DEMO_CONFIG)
    console.print(f"the model to start from, trained on the text alone: {folder}")
    changes = {"demo": config.demo, "cpu_threads": None}  # nothing runs beside it
    demo = with_demo_inputs(demo.model_copy(update=changes))
    train(control_config(demo, folder))
    return str(folder)


def _report(config: GRPOTrainConfig, held_out: HeldOut):
    """Compares start and end on held-out records: a table, pictures, summary.json and comparison.md in the run's folder."""
    folder = Path(config.output_dir)
    if (folder / "summary.json").exists() and not RunFolder(folder).differences(config):
        return
    scores = {
        name: evaluate(path, held_out, config.data_settings)
        for name, path in {"start": config.model, "after GRPO": str(folder)}.items()
    }
    maps = {name: score.maps for name, score in scores.items()}
    show_maps(folder / "attention.png", held_out.pictured, [phrase_of(each.record) for each in held_out.pictured], maps)
    animate_maps(folder / "overlay.webp", held_out.pictured, maps)
    log = read_state(folder).log_history
    plot_curves(folder / "loss.png", {"GRPO": log}, CURVES)
    numbers = {name.replace(" ", "_"): _numbers(score) for name, score in scores.items()}
    last = next((entry for entry in reversed(log) if "reward" in entry), {})
    numbers["last"] = {name: round(last[name], 4) for name in CURVES if last.get(name) is not None}
    (folder / "summary.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (folder / "comparison.md").write_text(_as_markdown(folder.name, numbers, held_out, scores))
    table = Table("", *scores, title="held-out records")
    for texts in _rows(numbers):
        table.add_row(*texts)
    console.print(table)
    console.print(f"pictures, numbers and answers: {folder}/comparison.md, summary.json")


def _numbers(score: Scores) -> dict[str, float]:
    numbers = {
        "answers": score.accuracy,
        "pointing": score.grounding.pointing,
        "pointing_swapped": score.pointing_swapped,
        "inside": score.grounding.inside,
        "perplexity": score.grounding.perplexity,
    }
    return {name: round(value, 4) for name, value in numbers.items() if value is not None}


def _rows(numbers: dict) -> list[tuple[str, ...]]:
    start, after = numbers["start"], numbers["after_GRPO"]
    return [(name.replace("_", ", "), f"{start[name]:.2f}", f"{after[name]:.2f}") for name in start]


def _as_markdown(title: str, numbers: dict, held_out: HeldOut, scores: dict[str, Scores]) -> str:
    lines = [f"# {title}: {len(held_out.asked)} held-out records", "", *head(["", "start", "after GRPO"])]
    lines += [row(texts) for texts in _rows(numbers)]
    lines += ["", "![where the models look](attention.png)", "", "![the same, playing](overlay.webp)", ""]
    lines += ["![reward, mask loss, pointing, KL](loss.png)", "", *head(["answer", "start", "after GRPO"])]
    for number, answer in enumerate(held_out.answers[:TOLD_RECORDS]):
        lines.append(row([answer, *(score.answers[number] for score in scores.values())]))
    return "\n".join(lines) + "\n"
