"""Which eps, which fusion? A tiny Qwen2.5-VL learns from scratch under each rule, at several sizes of the visual block.

    python driver/benchmarks/recipe_study.py                                     # all trials, about 40 CPU minutes
    python driver/benchmarks/recipe_study.py --studies 64 --rules paper --seeds 0    # one of them
    python driver/benchmarks/recipe_study.py --steps_factor 2.5 --studies 64 256 answers

A trial trains the demo's model, with five layers of which four are supervised, on demo clips with three objects and one
question about each, and measures on clips that it has never seen: *pointing* (does the noun's map peak on its object?),
*inside* (share of the map's mass there) and *answers* (is the object's pattern the likeliest next word?). The vision
tower is frozen, so its output is computed once for all trials of a study. Trials of a study differ in nothing but the
rule and the seed, which draws initial weights and the order of the batches.

With a the map that sums to 1 over the sample's K visual tokens, p = (a - min) / (max - min + eps) per temporal step:

text only     no mask loss
exact         mean of the layers, eps = 0
release       product of the layers, eps = 1e-6, as released (rows and softmax as in `paper`, so that only these differ)
0.1/K, 10/K   mean of the layers, eps = 0.1/K and 10/K
paper         mean of the layers, eps = 1/K: the default
product 1/K   product of the layers in log space, eps = 1/K

Three studies compare pointing after few steps at K = 64, 256 and 1,024, the last two with a model of half the width; a
fourth, `answers`, goes on until the answers are learnt. Writes recipe_study.json, recipe_study.md and recipe_study.png
into `--output`; the last line of output is one JSON object.
"""

import argparse
import json
import math
import multiprocessing
import platform
import random
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import transformers
from tqdm import tqdm
from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from swim.data.collator import SwimCollator
from swim.data.records import parse_record
from swim.data.settings import DataSettings
from swim.demo.clips import ClipSettings, make_demo_data
from swim.demo.model import DEMO_SYSTEM_PROMPT, build_tiny_model
from swim.video.clip import VisualBudget

LAYERS, SUPERVISED = 5, [1, 2, 3, 4]
BATCH, HELD_OUT = 8, 80
LEARNING_RATE, WARMUP_STEPS, DECAY, BETAS, MAX_NORM = 3e-3, 20, 0.3, (0.9, 0.95), 1.0
EVALUATIONS = 5
DATA_SEED = 11


@dataclass(frozen=True)
class Study:
    """Trials of one size, K = (size_px / 28)^2 * frames / 2. width: the language model's hidden size.

    The paper's text weight of 0.05 starts from a model that can already talk; here words have to be learnt as well.
    """

    title: str
    size_px: int
    frames: int
    clips: int
    width: int
    steps: int
    text_loss_weight: float
    rules: tuple[str, ...]

    @property
    def cells(self) -> int:
        return (self.size_px // 28) ** 2 * self.frames // 2


FEW = ("exact", "release", "paper")
STUDIES = {
    "64": Study("K = 64", 224, 2, 640, 128, 110, 0.2, ("text only", *FEW, "product 1/K", "0.1/K", "10/K")),
    "256": Study("K = 256", 224, 8, 640, 64, 100, 0.2, (*FEW, "product 1/K")),
    "1024": Study("K = 1,024", 448, 8, 480, 64, 55, 0.2, FEW),
    "answers": Study("answers, K = 64", 224, 2, 640, 128, 350, 1.5, ("text only", "paper")),
}


def scaled(factor: float, cells: int) -> float:
    """The number e whose effect is eps = factor / K: `fused / (sum + e)` shrinks the map, so e * (1 + e) is its eps."""
    return (math.sqrt(1 + 4 * factor / cells) - 1) / 2


RULES = {
    "text only": lambda cells: {"mask_loss_weight": 0.0},
    "exact": lambda cells: {"eps": 0.0},
    "release": lambda cells: {"fusion": "product", "eps": 1e-6},
    "0.1/K": lambda cells: {"eps": scaled(0.1, cells)},
    "10/K": lambda cells: {"eps": scaled(10, cells)},
    "paper": lambda cells: {},
    "product 1/K": lambda cells: {"fusion": "product"},
}


# ----------------------------------------------------------------------------------------------------------------------
# Data: collated batches with the vision tower's output, once for all trials of a size
# ----------------------------------------------------------------------------------------------------------------------


def prepare(name: str, folder: Path) -> Path:
    """Makes a study's clips and saves {"train", "held_out"}: lists of batches ready for `forward`."""
    study, target = STUDIES[name], folder / f"batches_{name}.pt"
    torch.set_num_threads(1)
    settings = ClipSettings(size_px=study.size_px, frames=study.frames)
    data = make_demo_data(folder / f"clips_{name}", study.clips + HELD_OUT, 0, DATA_SEED, settings, workers=1)
    shell = build_tiny_model(folder / f"model_{name}")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(shell).eval()
    budget = VisualBudget(max_frames=study.frames, min_pixels=784, max_pixels=study.size_px**2)
    settings = DataSettings(budget=budget, system_prompt=DEMO_SYSTEM_PROMPT)
    collator = SwimCollator(AutoProcessor.from_pretrained(shell), model.config, settings)

    # A narrower language model sees the tower's features through a fixed random projection that keeps their length.
    width = model.config.text_config.hidden_size
    random_projection = torch.randn(width, study.width, generator=torch.Generator().manual_seed(0)) / study.width**0.5
    projection = torch.eye(width) if study.width == width else random_projection
    records = whole_conversations(data.train_json)
    samples = (collator.reader.read(parse_record(raw, raw["video"], data.data_root)) for raw in records)
    batches = []
    for _ in tqdm(range(len(records) // BATCH), desc=f"{study.title}: batches", unit="batch"):
        batch = collator([next(samples) for _ in range(BATCH)])
        with torch.no_grad():
            pixels, grids = batch.pop("pixel_values_videos"), batch["video_grid_thw"]
            features = model.model.get_video_features(pixels, grids, return_dict=True).pooler_output
        assert all(len(feature) == study.cells for feature in features)
        batch["vision"] = tuple(feature @ projection for feature in features)
        batches.append(batch)
    held_out = HELD_OUT // BATCH
    torch.save({"train": batches[held_out:], "held_out": batches[:held_out], "shell": str(shell)}, target)
    return target


def whole_conversations(path: Path) -> list[dict]:
    """One record per clip: the questions about its objects as one conversation."""
    by_video = {}
    for raw in json.loads(path.read_text()):
        merged = by_video.setdefault(raw["video"], {**raw, "conversations": [], "annotation": []})
        question, answer = raw["conversations"]
        if merged["conversations"]:
            question = {**question, "value": question["value"].removeprefix("<video>\n")}
        merged["conversations"] += [question, answer]
        merged["annotation"] += raw["annotation"]
    return list(by_video.values())


# ----------------------------------------------------------------------------------------------------------------------
# One trial
# ----------------------------------------------------------------------------------------------------------------------


def make_model(shell: str, study: Study, rule: str, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """The demo's model with LAYERS layers of the study's width, heads as they are, initial weights from `seed`."""
    config = AutoConfig.from_pretrained(shell)
    text = config.text_config
    head_size = text.hidden_size // text.num_attention_heads
    text.hidden_size, text.intermediate_size = study.width, 2 * study.width
    text.num_attention_heads = text.num_key_value_heads = study.width // head_size
    text.num_hidden_layers, text.layer_types = LAYERS, ["full_attention"] * LAYERS
    config.attention_supervision = {
        "preset": "paper",
        "layers": SUPERVISED,
        "text_loss_weight": study.text_loss_weight,
        **RULES[rule](study.cells),
    }
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.model.visual.requires_grad_(False)
    return model


def forward(model, batch: dict):
    inputs = {name: value for name, value in batch.items() if name != "vision"}
    return model(**inputs, mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=batch["vision"])})


@torch.no_grad()
def evaluate(model, batches: list[dict]) -> dict[str, float]:
    """Pointing, inside and answers on the held-out clips."""
    sums, right, asked = torch.zeros(5), 0, 0
    model.eval()
    for batch in batches:
        sums += forward(model, batch).grounding
        names = ("input_ids", "attention_mask", "position_ids", "video_grid_thw")
        vision = {"video": BaseModelOutputWithPooling(pooler_output=batch["vision"])}
        hidden = model.model(**{name: batch[name] for name in names}, mm_encoder_outputs=vision).last_hidden_state
        # The pattern is the last word of an answer: the label before the full stop and the end of the turn.
        labels = batch["labels"]
        row, end = (labels == model.config.text_config.eos_token_id).nonzero(as_tuple=True)
        predicted = model.lm_head(hidden[row, end - 3]).argmax(-1)
        right += int((predicted == labels[row, end - 2]).sum())
        asked += len(row)
    model.train()
    points, inside, _, scored, _ = sums.tolist()
    return {"pointing": points / scored, "inside": inside / scored, "answers": right / asked}


def run_trial(job: tuple[str, str, int], files: dict[str, Path], steps_factor: float) -> dict:
    """Trains one model; returns the job, the curve of its scores and its CPU seconds."""
    name, rule, seed = job
    torch.set_num_threads(1)
    started = time.process_time()
    data = torch.load(files[name], weights_only=False)
    steps, batches = round(STUDIES[name].steps * steps_factor), data["train"]
    model = make_model(data["shell"], STUDIES[name], rule, seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0)
    rate = partial(learning_rate, steps=steps)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    order, rng, curve = [], random.Random(seed), []
    model.train()
    for step in range(1, steps + 1):
        if not order:
            order = rng.sample(range(len(batches)), len(batches))
        optimizer.zero_grad()
        forward(model, batches[order.pop()]).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()
        scheduler.step()
        if step % (steps // EVALUATIONS) == 0:
            curve.append({"step": step, **evaluate(model, data["held_out"])})
    result = {"study": name, "rule": rule, "seed": seed, "curve": curve}
    return {**result, "cpu_seconds": round(time.process_time() - started, 1)}


def learning_rate(step: int, steps: int) -> float:
    """Share of LEARNING_RATE: up during WARMUP_STEPS, down to 0 during the last DECAY of the steps, both linear."""
    return min(1.0, (step + 1) / WARMUP_STEPS, (steps - step) / (DECAY * steps))


# ----------------------------------------------------------------------------------------------------------------------
# Table and plot
# ----------------------------------------------------------------------------------------------------------------------


def curves_of(results: list[dict], name: str, rule: str, score: str) -> list[tuple[float, ...]]:
    """One score by step: at each step the values of all seeds."""
    curves = [r["curve"] for r in results if (r["study"], r["rule"]) == (name, rule)]
    return [tuple(point[score] for point in at_step) for at_step in zip(*curves)]


def columns_of(results: list[dict]) -> list[tuple[str, str]]:
    """(study, score) pairs that are shown: pointing everywhere, answers where they are learnt."""
    present = [name for name in STUDIES if any(result["study"] == name for result in results)]
    return [(name, "answers" if name == "answers" else "pointing") for name in present]


def last_step(results: list[dict], name: str) -> int:
    return next(r["curve"][-1]["step"] for r in results if r["study"] == name)


def write_table(results: list[dict], path: Path):
    """Markdown: a row per rule, a column per study, mean and range over the seeds at the last step."""
    columns = columns_of(results)
    heads = [f"{STUDIES[name].title}, {last_step(results, name)} steps" for name, _ in columns]
    lines = ["| rule | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for rule in RULES:
        found = [curves_of(results, name, rule, score) for name, score in columns]
        if any(found):
            last = [curve[-1] if curve else () for curve in found]
            texts = [f"{statistics.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" if v else "" for v in last]
            lines.append(f"| {rule} | " + " | ".join(texts) + " |")
    path.write_text("\n".join(lines) + "\n")
    print(path.read_text())


def plot(results: list[dict], path: Path):
    """A panel per study, a line per rule: mean over the seeds and their range, by step."""
    columns = columns_of(results)
    figure, axes = plt.subplots(1, len(columns), figsize=(3.4 * len(columns), 3.4), sharey=True, squeeze=False)
    colours = dict(zip(RULES, plt.get_cmap("tab10").colors))
    for axis, (name, score) in zip(axes[0], columns):
        steps = next([point["step"] for point in r["curve"]] for r in results if r["study"] == name)
        for rule, colour in colours.items():
            values = curves_of(results, name, rule, score)
            if values:
                axis.plot(steps, [statistics.mean(v) for v in values], color=colour, label=rule)
                axis.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.12)
        axis.set(
            title=STUDIES[name].title,
            xlabel="step",
            ylim=(0, 1),
            ylabel="answers right" if score == "answers" else score,
        )
        axis.grid(alpha=0.3)
    handles = {label: line for axis in axes[0] for line, label in zip(*axis.get_legend_handles_labels())}
    figure.legend(handles.values(), handles, ncols=len(handles), fontsize=8, loc="lower center")
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", nargs="+", default=list(STUDIES), choices=STUDIES)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps_factor", type=float, default=1.0, help="this many times as many steps")
    parser.add_argument("--workers", type=int, default=2, help="trials side by side, one core each")
    parser.add_argument("--output", default="output/recipe_study", help="folder of table, plot and JSON")
    options = parser.parse_args()
    output = Path(options.output)
    output.mkdir(parents=True, exist_ok=True)
    jobs = [
        (name, rule, seed)
        for name in options.studies
        for rule in STUDIES[name].rules
        if rule in options.rules
        for seed in options.seeds
    ]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
            files = dict(zip(options.studies, pool.map(partial(prepare, folder=Path(folder)), options.studies)))
            trials = pool.map(partial(run_trial, files=files, steps_factor=options.steps_factor), jobs)
            for result in tqdm(trials, total=len(jobs), desc="trials", unit="trial"):
                results.append(result)
                last = {name: round(value, 3) for name, value in result["curve"][-1].items()}
                tqdm.write(
                    f"{result['study']}, {result['rule']}, seed {result['seed']}: {last}, {result['cpu_seconds']} s"
                )
    summary = {
        "trials": results,
        "cpu_minutes": round(sum(result["cpu_seconds"] for result in results) / 60, 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hardware": platform.processor() or platform.machine(),
    }
    (output / "recipe_study.json").write_text(json.dumps(summary) + "\n")
    write_table(results, output / "recipe_study.md")
    plot(results, output / "recipe_study.png")
    print(json.dumps({**summary, "trials": len(results)}))


if __name__ == "__main__":
    main()
