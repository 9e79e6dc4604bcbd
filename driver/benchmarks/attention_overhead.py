"""What attention supervision costs: time and memory of one training step, beside three other ways, in one run.

    python driver/benchmarks/attention_overhead.py --tokens 1000 4000         # CPU: 28 narrow layers, float32
    python driver/benchmarks/attention_overhead.py --tokens 1000 4000 12000   # GPU: 7B shapes, bf16, checkpointing

One sample: a video of 16 temporal steps, then text, of which `--supervised_tokens` are supervised in every step. A step
is forward + backward; optimiser states are left out. The vision tower is frozen, as in training. The ways:

text        text-only SFT on the fork: the same batch, mask_index all False
supervised  the fork's attention supervision
released    the released code's way: the rows of every text token after the video, at every layer, with gradient
eager       eager attention that returns whole attention matrices (output_attentions=True)

All four project labelled positions only, and the last three end in the same mask loss.

Time is the median of interleaved repeats whose order turns; on a CPU it is the process's CPU time, which other programs
disturb least. Where the differences of whole steps drown in noise, look at `alone`: the same rows and mask loss, forward
and backward, from the queries and keys of one forward, timed by themselves and added to the time of `text`.

Memory is the peak of a whole step above weights and batch: on a CPU the sum of every allocation and release that torch's
CPU allocator reports to the profiler (temporaries inside of kernels included, oneDNN's own scratch memory not), on a GPU
`torch.cuda.max_memory_allocated`. The last line of output is one JSON object.
"""

import argparse
import gc
import json
import math
import platform
import statistics
import time
from functools import partial

import torch
import transformers
from torch.profiler import ProfilerActivity, profile
from transformers.attention_supervision import (
    IGNORE,
    TINY,
    AttentionSupervisionConfig,
    Supervision,
    fuse_layers,
    labelled_logits,
    labelled_text_loss,
    mask_loss,
    plan_supervision,
)
from transformers.models.qwen2_5_vl.attention_supervision import encode_vision, find_visual_tokens
from transformers.utils import is_flash_attn_2_available
from workload import VIDEO, add_workload_options, make_batch, make_model

GOAL_RATIO = {"cpu": 1.05, "cuda": 1.02}
GOAL_SHARE = 0.1


# ----------------------------------------------------------------------------------------------------------------------
# The four ways
# ----------------------------------------------------------------------------------------------------------------------


class EveryTextRow:
    """The released way, in the place of the fork's RowPlan: every layer computes the rows of all text after the video
    (softmax over the whole sequence, no causal mask, the model's dtype) and keeps their mean over heads."""

    def __init__(self, batch: dict[str, torch.Tensor], plan):
        self.plan, self.rows = plan, []
        self.positions = (batch["attn_labels"][0] != IGNORE).nonzero().flatten()  # int64[R], the text behind the video

    def __call__(self, attention, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, ...]:
        key = key.repeat_interleave(attention.num_key_value_groups, 1)
        scores = query[:, :, self.positions] @ key.transpose(2, 3) * attention.scaling
        return (scores.softmax(-1).mean(1)[..., self.plan.rows.columns[0]],)

    def collect(self, hidden_states: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        self.rows.append(rows)
        return hidden_states

    def supervised(self) -> list[torch.Tensor]:
        """float32[1, Q, K] for each supervised layer: the logarithms of the rows that the loss uses."""
        chosen = torch.searchsorted(self.positions, self.plan.rows.positions[0])
        return [_log(self.rows[layer][:, chosen]) for layer in self.plan.rows.layers]


def text_step(model, batch) -> torch.Tensor:
    return model(**batch | {"mask_index": torch.zeros_like(batch["mask_index"])}).loss


def supervised_step(model, batch) -> torch.Tensor:
    return model(**batch).loss


def released_step(model, batch) -> torch.Tensor:
    plan, config = _plan(model, batch)
    every = EveryTextRow(batch, plan)
    hidden = _language_model(model, batch, plan, attention_rows=every).last_hidden_state
    return _loss(model, batch, plan, config, hidden, every.supervised())


def eager_step(model, batch) -> torch.Tensor:
    plan, config = _plan(model, batch)
    outputs = _language_model(model, batch, plan, output_attentions=True)
    positions, columns = plan.rows.positions[0], plan.rows.columns[0]
    rows = [_log(outputs.attentions[layer][:, :, positions].mean(1)[..., columns]) for layer in plan.rows.layers]
    return _loss(model, batch, plan, config, outputs.last_hidden_state, rows)


WAYS = {"text": text_step, "supervised": supervised_step, "released": released_step, "eager": eager_step}


def _plan(model, batch):
    config = AttentionSupervisionConfig()
    supervision = Supervision(*(batch[name] for name in Supervision._fields))
    visual = find_visual_tokens(model.config, batch["input_ids"], None, batch["video_grid_thw"])
    inputs = (visual, batch["attention_mask"], batch["labels"])
    return plan_supervision(model.config.text_config, config, supervision, *inputs), config


def _language_model(model, batch, plan, **options):
    vision, _ = encode_vision(model, None, batch["pixel_values_videos"], plan.image_grids, plan.video_grids)
    names = ("input_ids", "attention_mask", "position_ids", "video_grid_thw")
    return model.model(**{name: batch[name] for name in names}, mm_encoder_outputs=vision, use_cache=False, **options)


def _log(rows: torch.Tensor) -> torch.Tensor:
    return rows.float().clamp_min(TINY).log()


def _loss(model, batch, plan, config, hidden_states, log_rows) -> torch.Tensor:
    """The fork's loss from rows (float32[1, Q, K] per supervised layer) that were computed in another way."""
    masks = mask_loss(fuse_layers(log_rows, plan.cells, config), batch["ins_masks"], plan, config)
    text_loss = labelled_text_loss(model, labelled_logits(model, hidden_states, plan), plan)
    return config.text_loss_weight * text_loss + config.mask_loss_weight * masks


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


def step(model, batch, way: str, attention: str):
    """One forward and backward; the gradients are left on the parameters."""
    model.zero_grad(set_to_none=True)
    model.set_attn_implementation({"text_config": "eager" if way == "eager" else attention})
    WAYS[way](model, batch).backward()


def seconds_of(work, device: torch.device) -> float:
    """CPU seconds of the process on a CPU, wall seconds on a GPU."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved_seconds(works: dict, device: torch.device, repeats: int) -> dict[str, list[float]]:
    """The seconds of each repeat of each work; every round begins with another one."""
    names = list(works)
    seconds = {name: [] for name in names}
    for repeat in range(repeats):
        turn = repeat % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(seconds_of(works[name], device))
    return seconds


class Recorder:
    """In the place of a RowPlan: keeps (attention module, query, key) of every layer and hands out nothing."""

    def __init__(self):
        self.states = []

    def __call__(self, attention, query: torch.Tensor, key: torch.Tensor) -> tuple:
        self.states.append((attention, query.detach().requires_grad_(), key.detach().requires_grad_()))
        return ()


def supervision_alone(model, batch, way: str):
    """Function: rows and mask loss of `way`, "supervised" or "released", forward and backward, without the model."""
    plan, config = _plan(model, batch)
    recorder = Recorder()
    with torch.no_grad():
        _language_model(model, batch, plan, attention_rows=recorder)

    def work():
        rows = plan.rows if way == "supervised" else EveryTextRow(batch, plan)
        rows.rows = []
        for attention, query, key in recorder.states:
            for found in rows(attention, query, key):
                rows.collect(query, found)
        log_rows = rows.rows if way == "supervised" else rows.supervised()
        mask_loss(fuse_layers(log_rows, plan.cells, config), batch["ins_masks"], plan, config).backward()

    return work


def step_peak_bytes(model, batch, way: str, attention: str) -> int:
    """Most bytes that a step, its gradients included, holds above weights and batch."""
    model.zero_grad(set_to_none=True)  # here too: old gradients must not count as held before
    return peak_bytes(partial(step, model, batch, way, attention), model.device)


def release_memory(device: torch.device):
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def peak_bytes(work, device: torch.device) -> int:
    """Most bytes that `work` holds at a time above what was held before."""
    release_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        work()
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        peak = max(peak, held)
    return peak


def too_large(model, batch, way: str) -> bool:
    """True for eager attention matrices (and their gradients) that would fill half of the free memory and more."""
    text, length = model.config.text_config, batch["input_ids"].shape[1]
    if way != "eager":
        return False
    needed = (text.num_hidden_layers + 3) * text.num_attention_heads * length**2 * model.dtype.itemsize
    return needed > _free_bytes(model.device) / 2


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0]
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def measure(model, tokens: int, options) -> dict:
    """One row of the table: median seconds and peak bytes of each way, ratios and shares."""
    batch = make_batch(model, tokens, options)
    ways = [way for way in options.ways if not too_large(model, batch, way)]
    peaks = {way: step_peak_bytes(model, batch, way, options.attention) for way in ways}  # also the warm-up
    alone = {way: supervision_alone(model, batch, way) for way in ways if way in ("supervised", "released")}
    alone = interleaved_seconds(alone, model.device, 1 + 3 * options.repeats)
    release_memory(model.device)  # the queries and keys of every layer
    steps = {way: partial(step, model, batch, way, options.attention) for way in ways}
    seconds = interleaved_seconds(steps, model.device, options.repeats)
    medians = {way: round(statistics.median(values), 4) for way, values in seconds.items()}
    alone = {way: round(statistics.median(values[1:]), 4) for way, values in alone.items()}
    result = {
        "tokens": batch["input_ids"].shape[1],
        "visual_tokens": int((batch["input_ids"] == VIDEO).sum()),
        "left_out": [way for way in options.ways if way not in ways],
        "seconds": medians,
        "seconds_spread": {way: [round(min(values), 4), round(max(values), 4)] for way, values in seconds.items()},
        "alone_seconds": alone,
        "peak_bytes": peaks,
    }
    with_alone = {"text": medians["text"], **{way: medians["text"] + extra for way, extra in alone.items()}}
    return result | compare(medians, "time") | compare(with_alone, "alone") | compare(peaks, "memory")


def compare(values: dict[str, float], what: str) -> dict:
    """Each way's ratio to text-only, and the extra of supervision as a share of the released way's extra."""
    found = {f"{what}_ratio": {way: round(value / values["text"], 4) for way, value in values.items() if way != "text"}}
    if {"supervised", "released"} <= set(values):
        extra, released = (values[way] - values["text"] for way in ("supervised", "released"))
        found[f"{what}_extra_of_released"] = round(extra / released, 4)
    return found


def goals(result: dict, device: str) -> dict[str, bool]:
    """Which of the published goals this row meets."""
    met = {}
    for what in ("time", "alone", "memory"):
        met[f"{what}_ratio"] = result[f"{what}_ratio"].get("supervised", math.inf) <= GOAL_RATIO[device]
        met[f"{what}_extra"] = result.get(f"{what}_extra_of_released", math.inf) <= GOAL_SHARE
    return met


def print_row(result: dict, device: str):
    print(f"{result['tokens']} tokens, {result['visual_tokens']} visual; too large: {result['left_out']}")
    for way, seconds in result["seconds"].items():
        mib = result["peak_bytes"][way] / 2**20
        ratios = (result[f"{what}_ratio"].get(way, 1.0) for what in ("time", "memory"))
        print("  {:<11}{:9.3f} s{:11.1f} MiB   time x{:.3f}   memory x{:.3f}".format(way, seconds, mib, *ratios))
    print(f"  rows and mask loss alone: {result['alone_seconds']} s")
    print(f"  goals: {goals(result, device)}", flush=True)


def hardware(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} of {len(names)} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_workload_options(parser, [1000, 4000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU run")
    attention = "flash_attention_2" if is_flash_attn_2_available() else "sdpa"
    parser.add_argument("--attention", choices=["sdpa", "flash_attention_2"], default=attention)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="must hold text")
    options = parser.parse_args()
    if "text" not in options.ways:
        parser.error("--ways: expected text among them, every ratio is to it")
    torch.set_num_threads(options.threads)
    model = make_model(options, options.attention)
    results = []
    for tokens in options.tokens:
        results.append(measure(model, tokens, options))
        print_row(results[-1], options.device)
    report = {
        "benchmark": "attention_overhead",
        "results": [result | {"goals": goals(result, options.device)} for result in results],
        "hardware": hardware(options.device),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "settings": vars(options) | {"dtype": str(model.dtype), "checkpointing": options.device == "cuda"},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
