"""What the supervision does: models that differ in it alone, on the yardsticks of the paper, over several seeds.

    python driver/benchmarks/effect.py                                      # the demo's tiny model, an hour on two cores
    python driver/benchmarks/effect.py --config run_scripts/configs/sft_talking.yaml --output output/effect_talking

Every seed draws clips and initial weights of its own (of the talking model: the vision tower's), on which all its models are
trained with the same number of steps of the same records, in the same order:

before        the model that the others start from
text only     no mask loss
supervised    the configuration's weights
other weight  the text loss at the paper's weight of 0.05, or at 1.0 where the configuration has the paper's
10 %, 30 %    supervised, but only so many of the records have masks; the others are still learnt as text

Then, on clips that none has seen: *pointing* and *inside* of the object's name, *answers* right to the letter, *patterns*
(Bench-Q's basic questions) and *Bench-D* (0 to 5, by a judge that knows the scenes). For a model that can talk also *synonyms*:
Bench-D with the objects named by words that the training never used.

An interrupted study resumes. Writes effect.json, effect.md and effect.png into `--output`; the last line of output is one
JSON object.
"""

import argparse
import json
import platform
import random
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import transformers
import yaml
from tqdm import tqdm

from swim.cli.runs.demo_defaults import demo_benches
from swim.cli.runs.held_out import evaluate, read_held_out
from swim.data.bench import parse_bench_d, parse_bench_q
from swim.data.tags import strip_tags
from swim.demo.facts import Track
from swim.demo.inputs import DemoInputs, make_demo_inputs
from swim.demo.judge import scores as judge_scores
from swim.eval import bench_d, bench_q
from swim.eval.items import read_items
from swim.infer.answering import Answering
from swim.model_name import weights_digest
from swim.train.config import TrainConfig, load_config

PAPER_TEXT_WEIGHT = 0.05
DESCRIPTION_TOKENS, BATCH = 48, 16
# Words of one meaning with those that the demo draws; none of them is in a training record.
SYNONYMS = {"circle": "disc", "square": "box", "triangle": "wedge", "diamond": "rhombus", "purple": "violet"}
SCORES = {
    "pointing": (0, 1),
    "inside": (0, 1),
    "answers": (0, 1),
    "patterns": (0, 1),
    "bench_d": (0, 5),
    "synonyms": (0, 5),
}


@dataclass(frozen=True)
class Arm:
    """How one model of a seed is trained. weights: over the configuration's. masks: share of the records that keep theirs."""

    weights: dict[str, float]
    masks: float = 1.0


def arms_of(config: TrainConfig) -> dict[str, Arm]:
    own = config.attention_supervision.get("text_loss_weight")
    other = 1.0 if own == PAPER_TEXT_WEIGHT else PAPER_TEXT_WEIGHT
    return {
        "text only": Arm({"mask_loss_weight": 0.0}),
        "supervised": Arm({}),
        "10 %": Arm({}, masks=0.1),
        "30 %": Arm({}, masks=0.3),
        f"text weight {other:g}": Arm({"text_loss_weight": other}),
    }


# ----------------------------------------------------------------------------------------------------------------------
# Training
# ----------------------------------------------------------------------------------------------------------------------


def mixture_with(share: float, train_config: Path) -> Path:
    """The mixture with the masks of a share of its records, drawn by lot, and the text of all. Keeps order and videos."""
    if share == 1:
        return train_config
    name = f"{train_config.stem}_masks_{round(100 * share)}"
    records = json.loads(train_config.with_suffix(".json").read_text())
    kept = set(random.Random(0).sample(range(len(records)), round(share * len(records))))
    for number, record in enumerate(records):
        if number not in kept:
            del record["annotation"]
            record.pop("mentions", None)
    train_config.with_name(f"{name}.json").write_text(json.dumps(records))
    path = train_config.with_name(f"{name}.yaml")
    path.write_text(yaml.safe_dump({"datasets": [{"json_path": f"{name}.json", "data_root": "."}]}))
    return path


def train(config: TrainConfig, inputs: DemoInputs, arm: Arm, seed: int, folder: Path):
    """A process of its own, which resumes where an earlier one was stopped; its output goes to train.log."""
    changes = {
        "output_dir": str(folder),
        "model_name_or_path": str(inputs.model),
        "data_config": str(mixture_with(arm.masks, inputs.train_config)),
        "attention_supervision": {**config.attention_supervision, **arm.weights},
        "report": False,
        "arguments": {**config.arguments, "seed": seed},
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trial.yaml"
    path.write_text(yaml.safe_dump(config.model_copy(update=changes).to_flat()))
    with (folder / "train.log").open("a") as log:
        command = [sys.executable, "-m", "swim", "train", "--config", str(path)]
        if subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode:
            raise SystemExit(f"a trial failed; its output is in {log.name}")


# ----------------------------------------------------------------------------------------------------------------------
# Yardsticks
# ----------------------------------------------------------------------------------------------------------------------


def measure(config: TrainConfig, inputs: DemoInputs, model: str, folder: Path) -> dict[str, float]:
    """The scores of one model, written to scores.json in `folder`, or read from there where they are of these weights."""
    path, weights = folder / "scores.json", weights_digest(model)
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("weights") == weights:
        return known["scores"]
    held_out = read_held_out(inputs.held_out_json, config.data_settings, model)
    seen = evaluate(model, held_out, config.data_settings)
    benches = demo_benches(config.demo)
    settings = replace(config.data_settings, keep_annotated_frames=False, cache_gb=0.0)
    how = Answering(DESCRIPTION_TOKENS, batch_size=BATCH)
    questions = read_items(benches.bench_q, None, parse_bench_q)
    questions = replace(
        questions, items={key: item for key, item in questions.items.items() if item.type == "Basic Questions"}
    )
    [answered] = bench_q.evaluate(how, {folder / "bench_q": model}, settings, questions).values()
    described = partial(describe, how, model, settings, inputs.held_out_json)
    scores = {
        "pointing": seen.grounding.pointing,
        "inside": seen.grounding.inside,
        "answers": seen.accuracy,
        "patterns": answered["micro"] / 100,
        "bench_d": described(benches.bench_d, folder / "bench_d", {}),
    }
    if config.demo.language_model is not None:
        scores["synonyms"] = described(benches.bench_d, folder / "synonyms", SYNONYMS)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"weights": weights, "scores": scores}))
    return scores


def describe(how, model, settings, held_out_json: Path, bench: Path, folder: Path, words: dict[str, str]) -> float:
    """Bench-D's mean, the questions in other words. Those of the descriptions are turned back before they are graded."""
    file = read_items(bench, None, parse_bench_d)
    items = {key: replace(item, question=reworded(item.question, words)) for key, item in file.items.items()}
    [cases] = bench_d.describe(how, {folder: model}, settings, replace(file, items=items)).values()
    scenes = json.loads(held_out_json.read_text())
    back, means = {new: old for old, new in words.items()}, []
    for case, item, scene in zip(cases, file.items.values(), scenes):
        tracks = [Track(**thing) for thing in scene["all_objects"]]
        asked = next(track for track in tracks if track.phrase in strip_tags(item.question)[0])
        means.append(statistics.mean(judge_scores(reworded(case.prediction, back), asked, tracks).values()))
    return statistics.mean(means)


def reworded(text: str, words: dict[str, str]) -> str:
    """Example: reworded("the red circle", {"circle": "disc"}) -> "the red disc"."""
    return re.sub(r"\w+", lambda found: words.get(found[0], found[0]), text)


# ----------------------------------------------------------------------------------------------------------------------
# Table and figure
# ----------------------------------------------------------------------------------------------------------------------


def values_of(results: list[dict], arm: str, score: str) -> list[float]:
    return [result["scores"][score] for result in results if result["arm"] == arm and score in result["scores"]]


def as_table(results: list[dict], arms: list[str]) -> str:
    """Markdown: a row per arm, a column per score, mean and range over the seeds."""
    columns = [score for score in SCORES if any(score in result["scores"] for result in results)]
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for arm in arms:
        found = [values_of(results, arm, score) for score in columns]
        if all(found):
            cells = (f"{statistics.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" for values in found)
            lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(results: list[dict], arms: list[str], path: Path):
    """A panel per score, a bar per arm, a dot per seed."""
    columns = [score for score in SCORES if any(score in result["scores"] for result in results)]
    shown = [arm for arm in arms if values_of(results, arm, columns[0])]
    figure, axes = plt.subplots(1, len(columns), figsize=(1.9 * len(columns), 2.9), squeeze=False)
    colours = plt.get_cmap("tab10").colors
    for axis, score in zip(axes[0], columns):
        for place, arm in enumerate(shown):
            values = values_of(results, arm, score)
            axis.bar(place, statistics.mean(values), color=colours[place], alpha=0.6, width=0.75)
            axis.plot([place] * len(values), values, "o", color=colours[place], markersize=3)
        axis.set(title=score.replace("bench_d", "Bench-D"), ylim=SCORES[score])
        axis.set_xticks(range(len(shown)), shown, rotation=60, ha="right", fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params("y", labelsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--config", default="run_scripts/configs/sft_demo.yaml", help="of a demo: what every model shares"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", help="some of them alone (default: all)")
    parser.add_argument("--workers", type=int, default=2, help="models trained side by side")
    parser.add_argument("--output", default="output/effect", help="folder of models, table, figure and JSON")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="over the configuration: max_steps=5")
    options = parser.parse_args()
    output = Path(options.output)
    base = load_config(options.config, [f"--{pair}" for pair in options.set])
    arms = {name: arm for name, arm in arms_of(base).items() if not options.arms or name in options.arms}
    results = []
    for seed in options.seeds:
        config = base.model_copy(update={"demo": base.demo.model_copy(update={"seed": seed})})
        inputs = make_demo_inputs(config.demo)
        folders = {name: output / f"seed{seed}" / name.replace(" ", "_").replace("%", "percent") for name in arms}
        with ThreadPoolExecutor(options.workers) as pool:
            jobs = [pool.submit(train, config, inputs, arms[name], seed, folders[name]) for name in arms]
            for job in tqdm(jobs, desc=f"seed {seed}: training", unit="model"):
                job.result()
        models = {"before": str(inputs.model), **{name: str(folder) for name, folder in folders.items()}}
        for name, model in tqdm(models.items(), desc=f"seed {seed}: measuring", unit="model"):
            scores = measure(
                config, inputs, model, output / f"seed{seed}" / "scores" / Path(folders.get(name, "before")).name
            )
            results.append({"seed": seed, "arm": name, "scores": scores})
        write(results, ["before", *arms], options, output)
    print(json.dumps({"models": len(results), "output": str(output)}))


def write(results: list[dict], arms: list[str], options: argparse.Namespace, output: Path):
    summary = {
        "config": options.config,
        "set": options.set,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hardware": platform.processor() or platform.machine(),
        "results": results,
    }
    (output / "effect.json").write_text(json.dumps(summary, indent=1) + "\n")
    table = as_table(results, arms)
    (output / "effect.md").write_text(table)
    plot(results, arms, output / "effect.png")
    print(table)


if __name__ == "__main__":
    main()
