"""What Trainer lacks for exact resumption, for any trainer that is built on it.

It overrides private methods of the pinned release. That each of them is still there is checked when this file is imported,
so that an upgrade fails at once and not in a run that is resumed a week later.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from peft import PeftModel
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, Trainer

from swim.train.card import write_card
from swim.train.estimate import parallelism_of
from swim.train.faults import FiniteGuard, saving
from swim.train.parameters import optimizer_groups
from swim.train.watch import StepClock


class ResumableTrainer(Trainer):
    """Mix in before a trainer: a run that was killed and resumed computes and logs what an undisturbed one does.

    A checkpoint also holds what stands between two log lines; a subclass adds its own by `between_logs`. A loss or
    gradient that is not finite raises TrainingFault, as does a checkpoint that cannot be written.

    learning_rates: of the model's parts; the others have the arguments'.
    data_timeout_s: how long a data worker may take for a batch; 0 for ever.
    checkpoint_bytes: about what a checkpoint needs, for the message of a full disk.
    clock: a step's seconds by part.
    """

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer

    def __init__(self, *args, learning_rates: dict[str, float] | None = None, data_timeout_s: float = 0.0, **kwargs):
        self.data_timeout_s = data_timeout_s
        super().__init__(*args, **kwargs)
        self.learning_rates = learning_rates or {}
        self.checkpoint_bytes = 0
        self.clock = StepClock()
        self.add_callback(self.clock)
        self.guard = FiniteGuard()
        self._group_options: list[dict] = []  # of the optimiser's groups, as the configuration has them

    def between_logs(self) -> dict[str, Any]:
        """What a subclass has summed since the last log line: tensors, numbers and containers of them."""
        return {}

    def restore_between_logs(self, saved: dict[str, Any]):
        """Takes over what `between_logs` returned when the checkpoint was saved; tensors are on the device."""

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
        return parallelism_of(self.accelerator).offload_optimizer

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        """Loads a checkpoint's weights by `from_pretrained`, strictly.

        Trainer compares names as they stand; a saved Qwen2.5-VL has the released checkpoints' names, which differ from
        the module's, so Trainer would load nothing and train from scratch with a warning.
        """
        if isinstance(self.model, PeftModel) or self.is_fsdp_enabled:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        saved = type(self.model).from_pretrained(resume_from_checkpoint, dtype=self.model.dtype)
        self.model.load_state_dict(saved.state_dict())

    def _load_optimizer_and_scheduler(self, checkpoint):
        """The configuration decides learning rates and options: what is loaded has those of an allowed earlier one."""
        scheduler: Any = self.lr_scheduler
        rates = list(scheduler.base_lrs)
        super()._load_optimizer_and_scheduler(checkpoint)
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
        self.run_folder.mkdir(parents=True, exist_ok=True)
        with saving(self.run_folder, f"checkpoint-{self.state.global_step}", self.checkpoint_bytes):
            super()._save_checkpoint(model, trial)

    def create_model_card(self, *args, **kwargs):
        """Trainer asks for it at each checkpoint; TRL's would speak of TRL."""
        if self.is_world_process_zero():
            write_card(self.run_folder, self.run_folder)

    @property
    def run_folder(self) -> Path:
        """output_dir as a path."""
        if self.args.output_dir is None:
            raise ValueError("a run needs an output_dir")
        return Path(self.args.output_dir)

    def _save_rng_state(self, output_dir):
        """Saves beside the random numbers' state what stands between two log lines."""
        super()._save_rng_state(output_dir)
        between = {
            "loss": self._tr_loss,
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "seconds": self.clock.seconds(),
            **self.between_logs(),
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
        self.restore_between_logs(between)
        self.clock.restart(between["seconds"])

    def _between_logs_path(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"between_logs_{self.args.process_index}.pt"

    def _get_dataloader(self, *args, **kwargs):
        loader: Any = super()._get_dataloader(*args, **kwargs)
        if loader.num_workers:
            loader.base_dataloader.timeout = self.data_timeout_s  # Accelerate's wrapper reads it from there
        return loader

    def get_batch_samples(self, *args):
        with self.clock.waiting_for_data():
            return super().get_batch_samples(*args)

    def _get_grad_norm(self, model, grad_norm=None):
        """Waits for the device here, once per step, as Trainer's own filter of bad losses did in every micro-step."""
        norm = super()._get_grad_norm(model, grad_norm)
        self.guard.check(norm, self.state.global_step + 1)
        return norm

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None):
        """Without the second name of a tied weight, which gathering from several processes turns into a copy."""
        if state_dict is not None:
            tied = self.accelerator.unwrap_model(self.model).all_tied_weights_keys
            state_dict = {name: tensor for name, tensor in state_dict.items() if tied.get(name) not in state_dict}
        super()._save(output_dir, state_dict)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_loss" in logs:  # Trainer's own leaves out what was before a resume
            logs["train_loss"] = self._total_loss_scalar / max(self.state.global_step, 1)
        super().log(logs, start_time)


OWN = {"__init__", "between_logs", "restore_between_logs", "run_folder", "_offloads_optimizer", "_between_logs_path"}
_TRAINERS_STATE = ("_tr_loss", "_total_loss_scalar", "_globalstep_last_logged")


def refuse_unknown_release(base: type, overriding: type, own: set[str]):
    """Raises ImportError when `base` lacks a method that `overriding` replaces; own: methods that it adds."""
    methods = {name for name, value in vars(overriding).items() if callable(value)} - own
    missing = sorted(name for name in methods if not hasattr(base, name))
    if missing:
        raise ImportError(
            f"{base.__module__} of this release has no {', '.join(missing)}, which {overriding.__name__} overrides"
        )


refuse_unknown_release(Trainer, ResumableTrainer, OWN)
if any(f"self.{name}" not in inspect.getsource(Trainer) for name in _TRAINERS_STATE):
    raise ImportError(f"Trainer of this release keeps its sums in other places than {', '.join(_TRAINERS_STATE)}")
