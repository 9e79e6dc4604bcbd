"""One rank of test_mixed_ranks:

    torchrun --nproc_per_node=2 -m tests.train.rank_worker FOLDER FAMILY TOWER [KIND,KIND ...]

Trains the small random model of a family under ZeRO-3, one micro-step per pair of kinds: the first kind on rank 0, the second on
rank 1. TOWER: learns; frozen, with activation checkpointing; or differentiated, the same with a gradient of the pixels,
for which the frozen tower takes part in the backward pass. Leaves in FOLDER rank-N.json, a list with {"text_loss",
"mask_loss", "tower_calls", "forward", "backward"} of each micro-step, the last two of its first block, and weights.pt.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import deepspeed
import torch
import torch.distributed as dist

from ..transformers.inputs import Spec, make_batch, make_tiny_config, make_tiny_model, of_family, tower_runs

KINDS = {
    "supervised video": Spec("video", (2, 3, 4), tags={1: 0, 3: 1}),
    "supervised image": Spec("image", (1, 5, 2), tags={0: 0}),
    "video": Spec("video", (3, 2, 2), before=4),
    "text": Spec(None, before=4, after=9),
}
LEARNING_RATE = 0.002
ZERO3 = {
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
    "zero_allow_untested_optimizer": True,
    "gradient_clipping": 0.0,
}


def make_model(tower: str = "learns"):
    """Every parameter is trained; the vision tower's unless it is frozen."""
    model = make_tiny_model(make_tiny_config({"layers": [1, 3], "text_loss_weight": 1.0})).train()
    if tower != "learns":
        model.model.visual.requires_grad_(False)
        model.activation_checkpointing_enable({"use_reentrant": False})
    if tower == "differentiated":
        model.model.visual.register_forward_pre_hook(
            lambda _, inputs: (inputs[0].detach().requires_grad_(), *inputs[1:])
        )
    return model


def batch_of(kind: str, step: int, rank: int) -> dict:
    return make_batch([KINDS[kind]], seed=2 * step + rank)


def main(folder: Path, tower: str, pairs: list[list[str]]):
    deepspeed.init_distributed("gloo", verbose=False)
    rank = dist.get_rank()
    torch.set_num_threads(1)
    model = make_model(tower)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=LEARNING_RATE)
    runs = tower_runs(model.model.visual)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ZERO3)
    calls, steps = [], []
    model.model.visual.register_forward_hook(lambda *_: calls.append(1))
    for step, kinds in enumerate(pairs):
        before, runs_before = len(calls), Counter(runs)
        output = engine(**batch_of(kinds[rank], step, rank))
        engine.backward(output.loss)
        engine.step()
        losses = {name: float(output[name].detach()) for name in ("text_loss", "mask_loss")}
        of_block = {name: runs[name] - runs_before[name] for name in ("forward", "backward")}
        steps.append(losses | {"tower_calls": len(calls) - before} | of_block)
    (folder / f"rank-{rank}.json").write_text(json.dumps(steps))
    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        if rank == 0:
            weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
            torch.save(weights, folder / "weights.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    with of_family(sys.argv[2]):
        main(Path(sys.argv[1]), sys.argv[3], [pair.split(",") for pair in sys.argv[4:]])
