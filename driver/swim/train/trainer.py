"""The trainer: TRL's SFTTrainer on the fork's own loss."""

from collections.abc import Callable
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from peft import PeftModel
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy
from trl import SFTTrainer

from swim.models.supervision import GROUNDING_SUMS
from swim.train.card import write_card
from swim.train.faults import FiniteGuard, saving
from swim.train.parameters import optimizer_groups
from swim.train.skipping import COUNTS, SkippedRecords
from swim.train.watch import StepClock, peak_memory_bytes

# What is summed over micro-steps between two log lines, in this order.
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


class SwimTrainer(SFTTrainer):
    """Optimises `text_loss_weight * text_loss + mask_loss_weight * mask_loss` as the fork's forward returns it.

    SFTTrainer computes a loss of its own from the hidden states, which would drop the mask term in silence; here the
    model's loss is the loss, averaged with equal weight over micro-batches and ranks. Logged beside `loss`:

    text_loss; mask_loss (over micro-batches with a supervised pair); pointing and inside of the fused, supervised map;
    pairs and pairs_left_out: scored (token, step) pairs, and those whose mask covers no cell by 10 %. With a counting
    collator also the run's skipped_records, resized_masks, frames_past_end and stray_placeholders so far, those
    that are not 0.
    supervised_share: of the samples; tokens_per_second and samples_per_second of all processes; data_s, compute_s,
    optimizer_s: a step's seconds, see StepClock; peak_memory_gb of the process that needs most.

    A checkpoint also holds what was summed since the last log line, so that the log of a resumed run is that of an
    undisturbed one. A loss or gradient that is not finite raises TrainingFault, as does a checkpoint that cannot be
    written. checkpoint_bytes: about what one needs. data_timeout_s: how long a data worker may take for a batch.
    """

    _tag_names = ["swim", "trl", "sft"]

    def __init__(
        self,
        *args,
        skipped: SkippedRecords | None = None,
        learning_rates: dict[str, float] | None = None,
        data_timeout_s: float = 0.0,
        **kwargs,
    ):
        self.data_timeout_s = data_timeout_s
        super().__init__(*args, **kwargs)
        self.skipped = skipped
        self.learning_rates = learning_rates or {}
        self.checkpoint_bytes = 0
        self.clock = StepClock()
        self.add_callback(self.clock)
        self._guard = FiniteGuard()
        # The loss is a mean per micro-batch, so Trainer has to divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._sums: dict[str, torch.Tensor] = {}
        self._met: torch.Tensor | int = 0  # of COUNTS, on this rank, since the last log line
        self._met_in_run = dict.fromkeys(COUNTS, 0)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        names = inputs.pop("record_names", None)
        self._note_data(inputs)
        outputs = model(**inputs, use_cache=False)
        self._count(inputs, outputs)
        if self.model.training:
            self._guard.note(outputs.loss, names)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _prepare_inputs(self, inputs):
        """The masks keep their precision: under DeepSpeed Trainer rounds every float input to the model's bf16."""
        rest = {name: tensor for name, tensor in inputs.items() if name != "ins_masks"}
        return {**super()._prepare_inputs(rest), "ins_masks": inputs["ins_masks"].to(self.args.device)}

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Each part's own learning rate; under CPU offload DeepSpeed's Adam, which updates there."""
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None:
            target = self.model if model is None else model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, target)
            if issubclass(kind, torch.optim.AdamW) and self._offloads_optimizer():
                from deepspeed.ops.adam import DeepSpeedCPUAdam  # compiled on first use

                kind, options = DeepSpeedCPUAdam, {name: options[name] for name in ("lr", "betas", "eps")}
            decaying = set(self.get_decay_parameter_names(target))
            groups = optimizer_groups(target, decaying, self.args.weight_decay, self.learning_rates)
            shared = {name: value for name, value in options.items() if name != "lr"}
            self._group_options = [{**shared, "weight_decay": group["weight_decay"]} for group in groups]
            self.optimizer_cls_and_kwargs = kind, {**options, "params": groups}
        return super().create_optimizer(model)

    def _offloads_optimizer(self) -> bool:
        return self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.hf_ds_config.is_offload()

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
        mode = "train" if self.model.training else "eval"
        step = torch.stack([counted[name].float() for name in _SUMS])
        self._sums[mode] = self._sums.get(mode, 0) + step

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """Loads a checkpoint's weights by `from_pretrained`, strictly.

        Trainer compares names as they stand; a saved Qwen2.5-VL has the released checkpoints' names, which differ from
        the module's, so Trainer would load nothing and go on from the start with a warning.
        """
        if isinstance(self.model, PeftModel) or self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint):
        """The configuration decides learning rates and options: what is loaded has those of an allowed earlier one."""
        rates = list(self.lr_scheduler.base_lrs)
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler = self.lr_scheduler
        if not isinstance(scheduler, LambdaLR):
            return
        scheduler.base_lrs = rates
        now = [rate * factor(scheduler.last_epoch) for rate, factor in zip(rates, scheduler.lr_lambdas)]
        scheduler._last_lr = now  # what is logged
        for group, options, first, rate in zip(self.optimizer.param_groups, self._group_options, rates, now):
            group.update(options, initial_lr=first, lr=rate)

    def _run_epoch(self, *args, **kwargs):
        """Trainer would take one step more than `max_steps` when it resumes from the last one."""
        if self.state.global_step < self.state.max_steps:
            return super()._run_epoch(*args, **kwargs)
        self._load_rng_state(kwargs["resume_from_checkpoint"])
        self.control.should_training_stop = True

    def _load_best_model(self):
        """As `_load_from_checkpoint`, for the same reason."""
        if isinstance(self.model, PeftModel) or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return super()._load_best_model()
        self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _save_checkpoint(self, model, trial):
        folder = Path(self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        with saving(folder, f"checkpoint-{self.state.global_step}", self.checkpoint_bytes):
            super()._save_checkpoint(model, trial)

    def create_model_card(self, *args, **kwargs):
        """Trainer asks for it at each checkpoint; TRL's would speak of TRL."""
        if self.is_world_process_zero():
            write_card(Path(self.args.output_dir), Path(self.args.output_dir))

    def _save_rng_state(self, output_dir):
        """Saves beside the random numbers' state what stands between two log lines."""
        super()._save_rng_state(output_dir)
        between = {
            "loss": self._tr_loss,
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "sums": self._sums.get("train", 0),
            "met": self._met,
            "met_in_run": self._met_in_run,
            "seconds": self.clock.seconds(),
        }
        torch.save(send_to_device(between, "cpu"), self._between_logs_path(output_dir))

    def _load_rng_state(self, checkpoint):
        super()._load_rng_state(checkpoint)
        path = self._between_logs_path(checkpoint)
        if not path.exists():  # another number of processes, allowed by the user
            return
        between = send_to_device(torch.load(path, weights_only=True), self.args.device)
        self._tr_loss = between["loss"]
        self._total_loss_scalar = between["total_loss"]
        self._globalstep_last_logged = between["last_logged"]
        self._sums["train"] = between["sums"]
        self._met_in_run = dict.fromkeys(COUNTS, 0) | between["met_in_run"]
        self._met = between["met"]
        if isinstance(self._met, torch.Tensor):  # an earlier release counted fewer things
            self._met = torch.nn.functional.pad(self._met, (0, len(COUNTS) - len(self._met)))
        self.clock.restart(between["seconds"])

    def _between_logs_path(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"between_logs_{self.args.process_index}.pt"

    def _get_dataloader(self, *args, **kwargs):
        loader = super()._get_dataloader(*args, **kwargs)
        if loader.num_workers:
            loader.base_dataloader.timeout = self.data_timeout_s  # Accelerate's wrapper reads it from there
        return loader

    def get_batch_samples(self, *args):
        with self.clock.waiting_for_data():
            return super().get_batch_samples(*args)

    def _get_grad_norm(self, model, grad_norm=None):
        """Waits for the device here, once per step, as Trainer's own filter of bad losses did in every micro-step."""
        norm = super()._get_grad_norm(model, grad_norm)
        self._guard.check(norm, self.state.global_step + 1)
        return norm

    def evaluation_loop(self, *args, **kwargs):
        """Adds the means of the evaluated records to the metrics, where the choice of the best checkpoint sees them."""
        self._sums.pop("eval", None)
        output = super().evaluation_loop(*args, **kwargs)
        output.metrics.update({f"eval_{name}": value for name, value in self._means("eval").items()})
        return output

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None):
        """Without the second name of a tied weight, which gathering from several processes turns into a copy."""
        if state_dict is not None:
            tied = self.accelerator.unwrap_model(self.model).all_tied_weights_keys
            state_dict = {name: tensor for name, tensor in state_dict.items() if tied.get(name) not in state_dict}
        super()._save(output_dir, state_dict)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_loss" in logs:  # Trainer's own leaves out what was before a resume
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        elif self.model.training:
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
        totals = dict(zip(_SUMS, self.accelerator.reduce(sums, "sum").tolist()))
        return {**summarise(totals), **(self._speed(totals) if mode == "train" else {})}

    def _speed(self, totals: dict[str, float]) -> dict[str, float]:
        """Throughput of all ranks, this rank's step time by part, and the peak memory of the fullest rank."""
        seconds = self.clock.seconds()
        self.clock.restart()
        micro_steps = totals["micro_steps"] / self.accelerator.num_processes
        steps = micro_steps / self.args.gradient_accumulation_steps
        peak = torch.tensor(float(peak_memory_bytes()), device=self.args.device)
        return {
            **{f"{name}_per_second": totals[name] / sum(seconds.values()) for name in ("tokens", "samples")},
            **{f"{part}_s": spent / steps for part, spent in seconds.items()},
            "peak_memory_gb": self.accelerator.gather(peak).max().item() / 1e9,
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
        logs["mask_loss"] = totals["mask_loss"] / totals["supervised_steps"]
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
