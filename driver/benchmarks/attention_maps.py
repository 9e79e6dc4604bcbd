"""What looking costs: memory and time of attention maps against a plain forward, over the length of the sequence.

    python driver/benchmarks/attention_maps.py                                        # CPU: 28 narrow layers, float32
    python driver/benchmarks/attention_maps.py --tokens 4000 12000 24000              # GPU: 7B shapes, bf16

One sample: a video of 16 temporal steps and 200 words; the maps of `--words` of them at the six supervised layers. The
ways:

forward   a plain forward without maps (SDPA)
maps      swim.attention.extract
eager     the same maps from whole attention matrices (eager, output_attentions=True), where they fit
generate  greedy generation of `--words` tokens by stock code: what an answer costs before anybody asks for its maps

Peaks are above weights and batch, seconds as in attention_overhead.py. Writes the figure `--figure` where one is given,
and computes what the 7B needs for 16 steps of 720p frames (32 frames of 560 x 1008 px, 11,520 visual tokens). The last
line of output is one JSON object.
"""

import argparse
import json
import statistics
from functools import partial

import torch
import transformers
from attention_overhead import hardware, interleaved_seconds, peak_bytes
from transformers.attention_supervision import ROWS_AT_ONCE
from workload import SEVEN_B, add_workload_options, make_batch, make_model

from swim.attention import extract

LAYERS = [2, 7, 12, 17, 22, 27]
MOST_EAGER_BYTES = 4e9
CELLS_720P = 16 * 20 * 36
INPUTS = ("input_ids", "attention_mask", "position_ids", "pixel_values_videos", "video_grid_thw")


@torch.no_grad()
def forward(model, inputs, spans):
    model.model(**inputs | {"attention_mask": None}, use_cache=False)


def maps(model, inputs, spans):
    return extract(model, inputs, spans, _layers(model))


def _layers(model) -> list[int]:
    return [layer for layer in LAYERS if layer < model.config.text_config.num_hidden_layers]


def generate(model, inputs, spans):
    kinds = torch.where(inputs["input_ids"] == model.config.video_token_id, 2, 0)
    names = ("input_ids", "attention_mask", "pixel_values_videos", "video_grid_thw")
    limits = {"min_new_tokens": len(spans), "max_new_tokens": len(spans), "do_sample": False}
    model.generate(**{name: inputs[name] for name in names}, mm_token_type_ids=kinds, **limits)


@torch.no_grad()
def eager(model, inputs, spans):
    model.set_attn_implementation({"text_config": "eager"})
    visual = inputs["input_ids"][0] == model.config.video_token_id
    attentions = model.model(**inputs, output_attentions=True, use_cache=False).attentions
    rows = [
        torch.stack([attentions[layer][0, :, start:end].mean((0, 1)) for start, end in spans])
        for layer in _layers(model)
    ]
    model.set_attn_implementation({"text_config": "sdpa"})
    return torch.stack(rows, 1)[..., visual]


def measure(model, tokens: int, options) -> dict:
    """One row: peak bytes and median seconds of each way, and the largest difference of the maps to eager's."""
    batch = make_batch(model, tokens, options)
    inputs = {name: batch[name] for name in INPUTS}
    length = inputs["input_ids"].shape[1]
    spans = [(length - number - 1, length - number) for number in range(options.words)]
    text = model.config.text_config
    eager_bytes = text.num_hidden_layers * text.num_attention_heads * length**2 * model.dtype.itemsize
    ways = {"forward": forward, "maps": maps, "generate": generate} | (
        {"eager": eager} if eager_bytes < MOST_EAGER_BYTES else {}
    )
    works = {name: partial(way, model, inputs, spans) for name, way in ways.items()}
    result = {"tokens": length, "peak_bytes": {name: peak_bytes(work, model.device) for name, work in works.items()}}
    seconds = interleaved_seconds(works, model.device, options.repeats)
    result["seconds"] = {name: round(statistics.median(values), 4) for name, values in seconds.items()}
    result["memory_ratio"] = round(result["peak_bytes"]["maps"] / result["peak_bytes"]["forward"], 4)
    result["time_ratio"] = round(result["seconds"]["maps"] / result["seconds"]["forward"], 4)
    answer = result["seconds"]["generate"]
    result["answer_and_maps_to_answer"] = round((answer + result["seconds"]["maps"]) / answer, 4)
    if "eager" in ways:
        difference = maps(model, inputs, spans).flatten(2) - eager(model, inputs, spans).cpu()
        result["largest_difference"] = float(difference.abs().max())
    return result


def rows_bytes(heads: int, layers: int, words: int, length: int, cells: int) -> int:
    """The most that maps hold beyond a forward: a group of rows in float32 thrice, its blocked columns, the maps twice."""
    group = min(words, ROWS_AT_ONCE)
    return 3 * 4 * heads * group * length + words * length + 2 * 4 * words * layers * cells


def computed_720p(words: int) -> dict:
    """Bytes of the 7B for 16 steps of 720p frames and 200 words, beyond a forward; eager's matrices in bf16."""
    length, heads = CELLS_720P + 222, SEVEN_B["text"]["num_attention_heads"]
    added = rows_bytes(heads, len(LAYERS), words, length, CELLS_720P)
    return {"tokens": length, "maps": added, "eager": 28 * heads * length**2 * 2}


def draw(path: str, results: list[dict], computed: dict, narrow: bool):
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for way, label in (
        ("eager", "eager, whole matrices"),
        ("maps", "swim.attention.extract"),
        ("forward", "plain forward"),
    ):
        points = [(row["tokens"], row["peak_bytes"][way] / 1e6) for row in results if way in row["peak_bytes"]]
        axis.plot(*zip(*points), marker="o", label=label, linestyle="--" if way == "forward" else "-")
    axis.set(xscale="log", yscale="log", xlabel="tokens of the sequence", ylabel="peak above weights and batch (MB)")
    model = "28 narrow layers, float32" if narrow else "7B shapes, bf16"
    added, whole = computed["maps"] / 1e9, computed["eager"] / 1e9
    axis.set_title(
        f"{model}\n7B, 16 steps of 720p, computed: at most {added:.2f} GB more than a forward; eager {whole:.0f} GB",
        fontsize=9,
    )
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_workload_options(parser, [1000, 2000, 4000, 8000, 12000])
    parser.add_argument("--words", type=int, default=24, help="whose maps are taken")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--figure", help="PNG to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = make_model(options).eval()
    results = []
    for tokens in options.tokens:
        results.append(measure(model, tokens, options))
        print(results[-1], flush=True)
    computed = computed_720p(options.words)
    if options.figure:
        draw(options.figure, results, computed, options.device == "cpu")
    heads = model.config.text_config.num_attention_heads
    for row in results:
        row["added_bytes"] = row["peak_bytes"]["maps"] - row["peak_bytes"]["forward"]
        bound = rows_bytes(heads, len(LAYERS), options.words, row["tokens"], row["tokens"] - 222)
        row["within_bound"] = row["added_bytes"] <= bound
    report = {
        "benchmark": "attention_maps",
        "results": results,
        "computed_7b_720p": computed,
        "hardware": hardware(options.device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
