"""The trainer: TRL's SFTTrainer on the fork's own loss."""

import torch
from peft import PeftModel
from transformers import TrainerCallback
from trl import SFTTrainer

from swim.train.parts import optimizer_groups
from swim.train.skipping import COUNTS, SkippedRecords

# What is summed over micro-steps between two log lines, in this order.
_SUMS = (
    "text_loss",
    "mask_loss",
    "micro_steps",
    "supervised_steps",
    "points",
    "inside",
    "covered",
    "scored",
    "left_out",
)
LOGGED = ("text_loss", "mask_loss", "pointing", "inside")


class SwimTrainer(SFTTrainer):
    """Optimises `text_loss_weight * text_loss + mask_loss_weight * mask_loss` as the fork's forward returns it.

    SFTTrainer computes a loss of its own from the hidden states, which would drop the mask term in silence; here the
    model's loss is the loss, averaged with equal weight over micro-batches and ranks. Logged beside `loss`:

    text_loss; mask_loss (over micro-batches with a supervised pair); pointing and inside of the fused, supervised map;
    pairs and pairs_left_out: scored (token, step) pairs, and those whose mask covers no cell by 10 %. With a counting
    collator also the run's skipped_records, resized_masks and frames_past_end so far, those that are not 0.
    """

    _tag_names = ["swim", "trl", "sft"]

    def __init__(
        self,
        *args,
        skipped: SkippedRecords | None = None,
        learning_rates: dict[str, float] | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.skipped = skipped
        self.learning_rates = learning_rates or {}
        # The loss is a mean per micro-batch, so Trainer has to divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._sums: dict[str, torch.Tensor] = {}
        self._met: torch.Tensor | int = 0  # of COUNTS, on this rank, since the last log line
        self._met_in_run = dict.fromkeys(COUNTS, 0)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self._note_data(inputs)
        outputs = model(**inputs, use_cache=False)
        self._count(outputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Each part's own learning rate; under CPU offload DeepSpeed's Adam, which updates there."""
        if self.optimizer is None and self.optimizer_cls_and_kwargs is None:
            target = self.model if model is None else model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, target)
            if issubclass(kind, torch.optim.AdamW) and self._offloads_optimizer():
                from deepspeed.ops.adam import DeepSpeedCPUAdam  # compiled on first use

                kind, options = DeepSpeedCPUAdam, {name: options[name] for name in ("lr", "betas", "eps")}
            decaying = set(self.get_decay_parameter_names(target))
            named = target.named_parameters()
            groups = optimizer_groups(named, decaying, self.args.weight_decay, self.learning_rates)
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
    def _count(self, outputs):
        """Adds this micro-step to the sums, on the device: nothing waits for it."""
        supervised = (outputs.grounding[3:].sum() > 0).float()
        one = torch.ones_like(supervised)
        scalars = torch.stack([outputs.text_loss.float(), outputs.mask_loss.float() * supervised, one, supervised])
        mode = "train" if self.model.training else "eval"
        step = torch.cat([scalars, outputs.grounding.float()])
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
        if self.model.training:
            logs.update(self._means("train"))
        if isinstance(self._met, torch.Tensor):
            logs.update(self._add_met())
        super().log(logs, start_time)
        if self.skipped is not None:
            self.skipped.check(self._met_in_run["records"], self._met_in_run["skipped_records"])

    def _means(self, mode: str) -> dict[str, float]:
        """What all ranks summed since the last time, as means; nothing where nothing was summed."""
        sums = self._sums.pop(mode, None)
        if sums is None:
            return {}
        return summarise(dict(zip(_SUMS, self.accelerator.reduce(sums, "sum").tolist())))

    def _add_met(self) -> dict[str, int]:
        """Adds all ranks' counts to those of the run; returns what is worth a log line."""
        for name, count in zip(COUNTS, self.accelerator.reduce(self._met, "sum").tolist()):
            self._met_in_run[name] += count
        self._met = 0
        return {name: count for name, count in self._met_in_run.items() if name != "records" and count}

    def count_from(self, records: int, skipped: int):
        """Counts on from what a resumed run had met before."""
        self._met_in_run.update(records=records, skipped_records=skipped)


def summarise(totals: dict[str, float]) -> dict[str, float]:
    """Means from sums; pointing and inside only where a pair was scored."""
    logs = {"text_loss": totals["text_loss"] / totals["micro_steps"]}
    if totals["supervised_steps"]:
        logs["mask_loss"] = totals["mask_loss"] / totals["supervised_steps"]
        logs["pairs"], logs["pairs_left_out"] = totals["scored"], totals["left_out"]
    if totals["scored"]:
        logs["pointing"], logs["inside"] = (totals[name] / totals["scored"] for name in ("points", "inside"))
    return logs


class SaveSupervision(TrainerCallback):
    """Keeps the supervision options beside a LoRA adapter, whose folder holds no model config."""

    def __init__(self, write):
        self.write = write

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.write(f"{args.output_dir}/checkpoint-{state.global_step}")
