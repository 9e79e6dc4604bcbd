"""One rank of test_estimate: `torchrun --nproc_per_node=2 -m tests.train.buffers_worker --KEY VALUE ...`.

Trains two steps of the demo's configuration with these keys. Before the optimiser's second step, when its states and the
gradients are there, the first rank prints one JSON object: bytes of all tensors of the process, and those estimated.
"""

import gc
import json
import sys

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from swim.data.mixture import load_mixture
from swim.train.config import load_config
from swim.train.run import _join_fsdp, _join_processes, _make_trainer, _needs
from swim.train.signals import StopOnSignal
from swim.train.skipping import SkippedRecords
from swim.train.worker_notes import WorkerNotes

from .conftest import DEMO_YAML


def live_bytes() -> int:
    """Of the storages of all tensors of this process, each once."""
    storages = {}
    for found in gc.get_objects():
        if isinstance(found, torch.Tensor):
            tensor = found.to_local() if isinstance(found, DTensor) else found
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


class Measure(TrainerCallback):
    """DeepSpeed steps inside of the backward pass, out of Trainer's sight: there its own `step` is wrapped."""

    def __init__(self, trainer):
        self.trainer, self.steps = trainer, 0

    def look(self):
        self.steps += 1
        if self.steps == 2 and self.trainer.is_world_process_zero():
            needs = self.trainer.needs
            estimated = {"weights": needs.weights, "gradients": needs.gradients, "optimizer": needs.optimizer}
            print(json.dumps({"live": live_bytes(), **estimated}), flush=True)

    def on_train_begin(self, args, state, control, **kwargs):
        engine = self.trainer.model_wrapped
        if args.deepspeed:
            step = engine.step
            engine.step = lambda *arguments, **keys: (self.look(), step(*arguments, **keys))

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if not args.deepspeed:
            self.look()


def main(overrides: list[str]):
    torch.set_num_threads(1)
    config = load_config(DEMO_YAML, overrides)
    _join_processes(config)
    arguments = config.trainer_arguments()
    _join_fsdp(arguments)
    mixture = load_mixture(config.mixture)
    skipped = SkippedRecords(config.output_dir, 1.0, mixture.hashes)
    trainer = _make_trainer(config, arguments, mixture, skipped, WorkerNotes(0), StopOnSignal())
    trainer.needs = _needs(config, trainer)
    trainer.add_callback(Measure(trainer))
    trainer.train()


if __name__ == "__main__":
    main(sys.argv[1:])
