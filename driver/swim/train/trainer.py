"""The trainer: TRL's SFTTrainer on the fork's own loss."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy
from trl import SFTTrainer

from swim.models.supervision import GROUNDING_SUMS, named_terms
from swim.train.balancing import SortedSteps
from swim.train.resumable import ResumableTrainer
from swim.train.skipping import COUNTS, SkippedRecords
from swim.train.watch import most_of_ranks, peak_memory_bytes
from swim.video.patches import PIXEL_RANGE, float_patches

# What is summed over micro-steps between two log lines, in this order; then the terms of the mask loss, where it has several.
_SUMS = (
    "text_loss",
    "mask_loss",
    "micro_steps",
    "supervised_steps",
    "samples",
    "supervised_samples",
    "tokens",
    *GROUNDING_SUMS,
)
LOGGED = ("text_loss", "mask_loss", "pointing", "inside")


class SwimTrainer(ResumableTrainer, SFTTrainer):
    """Optimises `text_loss_weight * text_loss + mask_loss_weight * mask_loss` as the fork's forward returns it.

    SFTTrainer computes a loss of its own from the hidden states, which would drop the mask term in silence; here the
    model's loss is the loss, averaged with equal weight over micro-batches and ranks. Logged beside `loss`:

    text_loss; mask_loss (over micro-batches with a supervised pair), and mask_loss/NAME where it is a sum of several;
    pointing and inside of the fused, supervised map;
    pairs and pairs_left_out: scored (token, step) pairs, and those whose mask covers no cell by 10 %. With a counting
    collator also the run's skipped_records, resized_masks, frames_past_end and stray_placeholders so far, those
    that are not 0.
    supervised_share: of the samples; tokens_per_second and samples_per_second of all processes; data_s, compute_s,
    optimizer_s: a step's seconds, see StepClock, data_s those of the rank that waits longest for its data; peak_memory_gb of the process that needs most.
    """

    _tag_names = ["swim", "trl", "sft"]
    logged = LOGGED

    def __init__(self, *args, skipped: SkippedRecords | None = None, lengths: list[int] | None = None, **kwargs):
        self.lengths = lengths
        super().__init__(*args, **kwargs)
        self.skipped = skipped
        # The loss is a mean per micro-batch, so Trainer has to divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._sums: dict[str, torch.Tensor] = {}
        self._summed: tuple[str, ...] = _SUMS
        self._met: torch.Tensor | int = 0  # of COUNTS, on this rank, since the last log line
        self._met_in_run = dict.fromkeys(COUNTS, 0)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        names = inputs.pop("record_names", None)
        self._note_data(inputs)
        outputs = model(**inputs, use_cache=False)
        self._count(inputs, outputs)
        if self.model.training:
            self.guard.note(outputs.loss, names)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def get_train_dataloader(self):
        """With the lengths of the rows each step's samples are sorted by them: inside of what Accelerate made of the sampler,
        whose order stays."""
        loader: Any = super().get_train_dataloader()
        if self.lengths is not None:
            shape = self.args.world_size, self.args.gradient_accumulation_steps
            loader.set_sampler(SortedSteps(loader.get_sampler(), self.lengths, *shape))
        return loader

    def _prepare_inputs(self, inputs):
        """The inputs on the device, where pixels that came as bytes become floats.

        Masks, and what makes floats of bytes, keep their precision: under DeepSpeed Trainer rounds every float input to
        the model's bf16.
        """
        exact = {name: inputs[name].to(self.args.device) for name in ("ins_masks", PIXEL_RANGE) if name in inputs}
        prepared = super()._prepare_inputs({name: inputs[name] for name in inputs if name not in exact})
        if PIXEL_RANGE in exact:
            patches = float_patches(prepared["pixel_values_videos"], exact.pop(PIXEL_RANGE))
            prepared["pixel_values_videos"] = self._prepare_input(patches)
        return {**prepared, **exact}

    def _note_data(self, inputs):
        """Takes out of the batch what the counting collator put into it for the trainer."""
        counts, skipped = inputs.pop("data_counts", None), inputs.pop("skipped", None)
        if counts is None or not self.model.training:
            return
        self._met = self._met + counts
        if skipped is not None and self.skipped is not None:
            self.skipped.write(skipped, self.state.global_step)

    @torch.no_grad()
    def _count(self, inputs, outputs):
        """Adds this micro-step to the sums, on the device: nothing waits for it."""
        grounding = dict(zip(GROUNDING_SUMS, outputs.grounding))
        supervised = grounding["scored"] + grounding["left_out"] > 0
        one = torch.ones_like(outputs.text_loss, dtype=torch.float32)
        counted = grounding | {
            "text_loss": outputs.text_loss,
            "mask_loss": outputs.mask_loss * supervised,
            "micro_steps": one,
            "supervised_steps": supervised,
            "samples": one * len(inputs["input_ids"]),
            "supervised_samples": inputs["mask_index"].flatten(1).any(1).sum(),
            "tokens": inputs["attention_mask"].sum(),
        }
        terms = {name: term * supervised for name, term in named_terms(outputs).items()}
        self._summed = (*_SUMS, *terms)
        mode = "train" if self.model.training else "eval"
        step = torch.stack([(counted | terms)[name].float() for name in self._summed])
        self._sums[mode] = self._sums.get(mode, 0) + step

    def between_logs(self) -> dict[str, Any]:
        return {"sums": self._sums.get("train", 0), "met": self._met, "met_in_run": self._met_in_run}

    def restore_between_logs(self, saved: dict[str, Any]):
        self._sums["train"] = saved["sums"]
        self._met_in_run = dict.fromkeys(COUNTS, 0) | saved["met_in_run"]
        self._met = saved["met"]
        if isinstance(self._met, torch.Tensor):  # an earlier release counted fewer things
            self._met = torch.nn.functional.pad(self._met, (0, len(COUNTS) - len(self._met)))

    def evaluation_loop(self, *args, **kwargs):
        """Adds the means of the evaluated records to the metrics, where the choice of the best checkpoint sees them."""
        self._sums.pop("eval", None)
        output = super().evaluation_loop(*args, **kwargs)
        means = {f"eval_{name}": value for name, value in self._means("eval").items()}
        return output._replace(metrics={**(output.metrics or {}), **means})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_loss" not in logs and self.model.training:
            logs.update(self._means("train"))
        if isinstance(self._met, torch.Tensor):
            logs.update(self._add_met())
        super().log(logs, start_time)
        if self.skipped is not None:
            self.skipped.check(self._met_in_run["records"], self._met_in_run["skipped_records"])

    def _means(self, mode: str) -> dict[str, float]:
        """What all ranks summed since the last time, as means; nothing where nothing was summed."""
        sums = self._sums.pop(mode, 0)
        if not isinstance(sums, torch.Tensor):
            return {}
        totals = dict(zip(self._summed, self.accelerator.reduce(sums, "sum").tolist()))
        return {**summarise(totals), **(self._speed(totals) if mode == "train" else {})}

    def _speed(self, totals: dict[str, float]) -> dict[str, float]:
        """Throughput of all ranks, this rank's step time by part, and the peak memory of the fullest rank.

        data_s is of the rank that waits longest for its data: the others spend that time waiting for it, in compute_s.
        """
        seconds = self.clock.seconds()
        self.clock.restart()
        micro_steps = totals["micro_steps"] / self.accelerator.num_processes
        steps = micro_steps / self.args.gradient_accumulation_steps
        peak, data = most_of_ranks(self.accelerator, float(peak_memory_bytes()), seconds["data"])
        return {
            **{f"{name}_per_second": totals[name] / sum(seconds.values()) for name in ("tokens", "samples")},
            **{f"{part}_s": spent / steps for part, spent in {**seconds, "data": data}.items()},
            "peak_memory_gb": peak / 1e9,
        }

    def _add_met(self) -> dict[str, int]:
        """Adds all ranks' counts to those of the run; returns what is worth a log line."""
        for name, count in zip(COUNTS, self.accelerator.reduce(self._met, "sum").tolist()):
            self._met_in_run[name] += count
        self._met = 0
        return {name: count for name, count in self._met_in_run.items() if name != "records" and count}


def summarise(totals: dict[str, float]) -> dict[str, float]:
    """Means from sums; pointing and inside only where a pair was scored."""
    logs = {"text_loss": totals["text_loss"] / totals["micro_steps"]}
    logs["supervised_share"] = totals["supervised_samples"] / totals["samples"]
    if totals["supervised_steps"]:
        losses = (name for name in totals if name.startswith("mask_loss"))
        logs.update({name: totals[name] / totals["supervised_steps"] for name in losses})
        logs["pairs"], logs["pairs_left_out"] = totals["scored"], totals["left_out"]
    if totals["scored"]:
        logs["pointing"], logs["inside"] = (totals[name] / totals["scored"] for name in ("points", "inside"))
    return logs


class SaveSettings(TrainerCallback):
    """Keeps beside the weights of each checkpoint what they need: `write(folder)` writes it."""

    def __init__(self, write: Callable[[str], None]):
        self.write = write

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.write(f"{args.output_dir}/checkpoint-{state.global_step}")


class LogShortRuns(TrainerCallback):
    """Logs each step of a run that would end before its first entry: a first try shows numbers and curves too."""

    def on_train_begin(self, args, state, control, **kwargs):
        if args.logging_strategy == IntervalStrategy.STEPS and state.max_steps < state.logging_steps:
            state.logging_steps = 1
