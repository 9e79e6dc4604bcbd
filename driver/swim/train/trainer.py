"""The trainer: TRL's SFTTrainer on the fork's own loss."""

import torch
from peft import PeftModel
from transformers import TrainerCallback
from trl import SFTTrainer

# What is summed over micro-steps between two log lines, in this order.
_SUMS = ("text_loss", "mask_loss", "micro_steps", "supervised_steps", "points", "inside", "covered", "scored", "left_out")
LOGGED = ("text_loss", "mask_loss", "pointing", "inside")


class SwimTrainer(SFTTrainer):
    """Optimises `text_loss_weight * text_loss + mask_loss_weight * mask_loss` as the fork's forward returns it.

    SFTTrainer computes a loss of its own from the hidden states, which would drop the mask term in silence; here the
    model's loss is the loss, averaged with equal weight over micro-batches and ranks. Logged beside `loss`:

    text_loss; mask_loss (over micro-batches with a supervised pair); pointing and inside of the fused, supervised map;
    pairs and pairs_left_out: scored (token, step) pairs, and those whose mask covers no cell by 10 %.
    """

    _tag_names = ["swim", "trl", "sft"]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # The loss is a mean per micro-batch, so Trainer has to divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self._sums: dict[str, torch.Tensor] = {}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs, use_cache=False)
        self._count(outputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

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

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        sums = self._sums.pop(mode, None)
        if sums is not None:
            prefix = "" if mode == "train" else "eval_"
            totals = dict(zip(_SUMS, self.accelerator.reduce(sums, "sum").tolist()))
            logs.update({prefix + name: value for name, value in summarise(totals).items()})
        super().log(logs, start_time)


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
