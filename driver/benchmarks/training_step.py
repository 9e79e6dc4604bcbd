"""The whole training step beside what users would pick: our trainer on the fork, TRL's on stock transformers.

    python driver/benchmarks/training_step.py                     # GPU: 7B shapes, bf16, checkpointing, 4k and 12k
    python driver/benchmarks/training_step.py --stock FOLDER      # with the stock transformers of that folder

Both train the same random model on the same batches with the same labels, the vision tower frozen, with activation
checkpointing and plain SGD, whose state takes no memory and next to no time. The ways, each in a process of its own:

swim    SwimTrainer on the fork, with attention supervision
fused   the same with fused element-wise work (`fuse_elementwise: true`)
trl     SFTTrainer as TRL has it, on transformers as released, without supervision
liger   the same with --use_liger_kernel, where liger-kernel is installed

Seconds are those of a whole optimiser step, from its beginning to the point where the GPU has finished it; the median of
`--repeats` behind two that warm up. Peaks are those of a step, weights and gradients included. `tflops` are computed: the
operations that a step cannot do without (language model: forward, forward again, backward; tower: forward) by the
measured seconds. `kernels` are the GPU seconds of one forward and backward of ours by kind of kernel.

Stock transformers is the release that the fork is made of, unpacked from the archive that the fork's build keeps. The last
line of output is one JSON object.
"""

import argparse
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from tokenizers import Tokenizer, models
from torch import nn
from transformers import PreTrainedTokenizerFast, TrainerCallback
from transformers.utils import is_flash_attn_2_available
from trl import SFTConfig, SFTTrainer
from workload import add_workload_options, make_batch, make_model

OURS = ("swim", "fused")
FORK = Path(__file__).resolve().parents[2] / "transformers"
SUPERVISION = ("attn_labels", "ins_contents_labels", "ins_masks", "mask_index")
GOAL_RATIO, WARM_UP_STEPS = 1.2, 2
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312}  # dense bf16, by the cards' data sheets
KERNELS = {
    "attention": re.compile("flash|fmha|attention", re.IGNORECASE),
    "matrix products": re.compile("gemm|nvjet|cutlass|cublas", re.IGNORECASE),
    "copies": re.compile("memcpy|memset|copy", re.IGNORECASE),
}


class StepTimes(TrainerCallback):
    """Wall seconds of each optimiser step, the device's work included."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self._began = _now()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(_now() - self._began)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def train(way: str, model, batch: dict[str, torch.Tensor], repeats: int) -> dict:
    """What one way's trainer needs for a step. batch: on the CPU."""
    if way not in OURS:
        batch = {name: value for name, value in batch.items() if name not in SUPERVISION}
    on_gpu, times = model.device.type == "cuda", StepTimes()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        arguments = SFTConfig(
            folder,
            max_steps=WARM_UP_STEPS + repeats,
            per_device_train_batch_size=1,
            optim="sgd",
            learning_rate=1e-6,
            bf16=False,  # the weights are in bf16, as under DeepSpeed
            use_cpu=not on_gpu,
            activation_checkpointing=on_gpu,
            activation_checkpointing_kwargs={"use_reentrant": False},
            use_liger_kernel=way == "liger",
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = _trainer_class(way)(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict({"number": list(range(WARM_UP_STEPS + repeats))}),
            data_collator=lambda rows: dict(batch),
            processing_class=_tokenizer(),
            callbacks=[times],
        )
        trainer.train()
    seconds = times.seconds[WARM_UP_STEPS:]
    return {
        "seconds": round(statistics.median(seconds), 4),
        "seconds_spread": [round(min(seconds), 4), round(max(seconds), 4)],
        "tokens_per_second": round(batch["input_ids"].numel() / statistics.median(seconds), 1),
        "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def _trainer_class(way: str):
    if way not in OURS:
        return SFTTrainer
    from swim.train.trainer import SwimTrainer  # needs the fork

    return SwimTrainer


def _tokenizer() -> PreTrainedTokenizerFast:
    """Trainers want one; the batches are made without."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def least_operations(model, batch: dict[str, torch.Tensor], checkpointing: bool) -> float:
    """Floating-point operations of a training step that none can do without, the tower frozen."""
    text, vision = model.config.text_config, model.config.vision_config
    length, labelled = batch["input_ids"].shape[1], int((batch["labels"] != -100).sum())
    patches = len(batch["pixel_values_videos"])
    steps, rows, columns = batch["video_grid_thw"][0].tolist()
    whole = len(vision.fullatt_block_indexes) * patches * rows * columns
    windows = (vision.depth - len(vision.fullatt_block_indexes)) * patches * min(64, rows * columns)
    tower = 2 * _weights(model.model.visual) * patches + 4 * vision.hidden_size * (whole + windows)
    language = 2 * _weights(model.model.language_model) * length
    language += 2 * text.num_hidden_layers * text.hidden_size * length**2  # causal: half of the square
    passes = 4 if checkpointing else 3
    return tower + passes * language + 3 * 2 * labelled * text.hidden_size * text.vocab_size


def _weights(module: nn.Module) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))


def kernel_seconds(model, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """GPU seconds of one forward and backward by kind of kernel, and the longest of the kind "other" by name."""
    from torch.profiler import ProfilerActivity, profile

    batch = {name: value.to(model.device) for name, value in batch.items()}
    batch["pixel_values_videos"] = batch["pixel_values_videos"].to(model.dtype)
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        model(**batch).loss.backward()
        torch.cuda.synchronize()
    seconds, others = Counter(), Counter()
    for event in recorded.events():
        kind = next((kind for kind, pattern in KERNELS.items() if pattern.search(event.name)), "other")
        seconds[kind] += event.device_time_total / 1e6
        if kind == "other":
            others[event.name[:120]] += event.device_time_total / 1e6
    model.zero_grad(set_to_none=True)
    longest = {name: round(value, 4) for name, value in others.most_common(8)}
    return {kind: round(value, 4) for kind, value in seconds.most_common()} | {"other_by_name": longest}


def run_way(options) -> list[dict]:
    """The child process of one way: a row for each length."""
    on_stock = importlib.util.find_spec("transformers.attention_supervision") is None
    if on_stock == (options.way in OURS):
        raise SystemExit(f"{options.way}: unexpected transformers, {transformers.__file__}")
    model = make_model(options, options.attention)
    if options.way == "fused":
        from swim.train.fusing import fuse_elementwise

        fuse_elementwise(model)
    rows = []
    for tokens in options.tokens:
        batch = {name: value.cpu() for name, value in make_batch(model, tokens, options).items()}
        del batch["position_ids"]  # each step computes them
        batch["mm_token_type_ids"] = torch.where(batch["input_ids"] == model.config.video_token_id, 2, 0)
        batch["second_per_grid_ts"] = torch.ones(1)
        row = train(options.way, model, batch, options.repeats)
        row["tokens"] = batch["input_ids"].shape[1]
        row["tflops"] = round(least_operations(model, batch, options.device == "cuda") / row["seconds"] / 1e12, 1)
        if options.way in OURS and options.device == "cuda":
            row["kernels"] = kernel_seconds(model, batch)
        rows.append(row)
        print({name: value for name, value in row.items() if name != "kernels"}, flush=True)
    return rows


# ----------------------------------------------------------------------------------------------------------------------
# The processes
# ----------------------------------------------------------------------------------------------------------------------


def unpack_stock(folder: Path):
    """The release that the fork is made of, as its authors left it, into `folder`."""
    sys.path.append(str(FORK))
    from fork_tools.layout import Fork
    from fork_tools.source import fetch, read_pin, unpack

    fork = Fork(FORK)
    pin = read_pin(fork)
    unpack(fetch(fork, pin), pin, folder)


def in_child(way: str, options) -> list[dict]:
    """Rows of one way; raises RuntimeError with what the process said last."""
    command = [sys.executable, __file__, "--way", way, "--tokens", *map(str, options.tokens)]
    for name in ("layers", "text_tokens", "supervised_tokens", "device", "attention", "repeats"):
        command += [f"--{name}", str(getattr(options, name))]
    paths = [*([] if way in OURS else [str(options.stock)]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        last = ""
        for line in process.stdout:
            last = line
            if not line.startswith("["):
                print(f"{way:<6}{line}", end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"{way}: the process ended with {process.returncode}")
    return json.loads(last)


def run_ways(options) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """Rows of each way, and why a way did not run."""
    found, failed = {way: in_child(way, options) for way in (*OURS, "trl")}, {}
    if importlib.util.find_spec("liger_kernel") is None:
        failed["liger"] = "liger-kernel is not installed"
    else:
        try:
            found["liger"] = in_child("liger", options)
        except RuntimeError as error:  # it is made for some releases of transformers and not for others
            failed["liger"] = str(error)
    return found, failed


def compare(found: dict[str, list[dict]]) -> list[dict]:
    """One row for each length: every way's numbers and how many times as many tokens per second swim trains."""
    rows = []
    for position, swim in enumerate(found["swim"]):
        ways = {way: row[position] for way, row in found.items()}
        ratios = {way: round(swim["tokens_per_second"] / row["tokens_per_second"], 3) for way, row in ways.items()}
        others = {way: ratio for way, ratio in ratios.items() if way != "swim"}
        rows.append({"tokens": swim["tokens"], "ways": ways, "swim_to": others})
    return rows


def peak_tflops(name: str) -> int | None:
    return next((peak for card, peak in PEAK_TFLOPS.items() if card in name), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_workload_options(parser, [4000, 12000])
    attention = "flash_attention_2" if is_flash_attn_2_available() else "sdpa"
    parser.add_argument("--attention", choices=["sdpa", "flash_attention_2"], default=attention)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stock", type=Path, help="folder with stock transformers; default: the fork's release")
    parser.add_argument("--way", choices=[*OURS, "trl", "liger"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way is not None:
        print(json.dumps(run_way(options)))
        return
    if options.stock is not None and not (options.stock / "transformers/__init__.py").is_file():
        parser.error(f"--stock: {options.stock} holds no package transformers")
    with tempfile.TemporaryDirectory() as folder:
        if options.stock is None:
            unpack_stock(Path(folder))
            options.stock = Path(folder) / "src"
        found, failed = run_ways(options)
    rows, card = compare(found), torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    report = {
        "benchmark": "training_step",
        "results": rows,
        "did_not_run": failed,
        "goal_met": all(row["swim_to"]["trl"] >= GOAL_RATIO for row in rows),
        "hardware": card,
        "peak_tflops": peak_tflops(card),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
