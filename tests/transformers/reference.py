"""The attention loss, written slowly: loops over samples, tokens, steps and cells in float64.

It follows the design's steps and shares no code with the fork. Everything is made of torch scalars, so that autograd
gives reference gradients too.
"""

import math

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import eager_attention_forward

PRESETS = {
    "paper": {"fusion": "mean", "query": "token", "causal": True, "eps": "auto"},
    "release": {"fusion": "product", "query": "previous", "causal": False, "eps": 1e-6},
}
KEEPER = "eager_that_keeps_queries_and_keys"


def _keep(module, query, key, value, attention_mask, **kwargs):
    """Eager attention that leaves its queries and keys, rotary embedding applied, on the module."""
    module.kept = (query, key)
    return eager_attention_forward(module, query, key, value, attention_mask, **kwargs)


def attention_of(model, inputs: dict) -> tuple[list[torch.Tensor], list[tuple[torch.Tensor, torch.Tensor]]]:
    """(attention weights of each layer [B, heads, S, S], (query, key) of each layer) of a plain eager forward."""
    AttentionInterface.register(KEEPER, _keep)
    AttentionMaskInterface.register(KEEPER, eager_mask)
    model.set_attn_implementation({"text_config": KEEPER, "vision_config": "eager"})
    keepers = [layer.self_attn for layer in model.model.language_model.layers]
    found = []
    hooks = [layer.register_forward_hook(lambda module, args, output: found.append(output[1])) for layer in keepers]
    try:
        model.model(**inputs, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return found, [layer.kept for layer in keepers]


def uncausal_weights(query, key, scaling: float, real: torch.Tensor) -> torch.Tensor:
    """float64[B, heads, S, S]: softmax(q k^T) over every real column, later ones included. real: bool[B, S]."""
    batch, heads, length, _ = query.shape
    group = heads // key.shape[1]
    weights = torch.zeros(batch, heads, length, length, dtype=torch.float64)
    for b in range(batch):
        for head in range(heads):
            scores = query[b, head].double() @ key[b, head // group].double().T * scaling
            scores = torch.where(real[b], scores, torch.tensor(-math.inf, dtype=torch.float64))
            weights[b, head] = scores.softmax(-1)
    return weights


def visual_row(weights: torch.Tensor, b: int, position: int, columns: list[int]) -> torch.Tensor:
    """float64[cells]: mean over heads of one attention row, the visual columns only."""
    row = weights[b, 0, position].double()
    for head in range(1, weights.shape[1]):
        row = row + weights[b, head, position].double()
    return row[columns] / weights.shape[1]


def fuse(rows: list[torch.Tensor], fusion: str, eps) -> torch.Tensor:
    """float64[K]: the layers' rows as one map of sum 1."""
    fused = rows[0]
    for row in rows[1:]:
        fused = fused * row if fusion == "product" else fused + row
    if fusion == "mean":
        fused = fused / len(rows)
    return fused / (fused.sum() + (0.0 if eps == "auto" else eps))


def resize(p: torch.Tensor, r: int) -> torch.Tensor:
    """[H, W] -> [r * H, r * W], bilinear, align_corners=False, cell by cell."""
    height, width = p.shape
    rows = []
    for i in range(r * height):
        y0, y1, y = _neighbours(i, r, height)
        row = []
        for j in range(r * width):
            x0, x1, x = _neighbours(j, r, width)
            above = (1 - x) * p[y0, x0] + x * p[y0, x1]
            under = (1 - x) * p[y1, x0] + x * p[y1, x1]
            row.append((1 - y) * above + y * under)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def _neighbours(target: int, r: int, size: int) -> tuple[int, int, float]:
    """The two cells around the middle of target cell `target`, and how far it is from the first to the second."""
    source = max((target + 0.5) / r - 0.5, 0.0)
    low = min(int(source), size - 1)
    return low, min(low + 1, size - 1), source - low


def step_loss(attention: torch.Tensor, mask: torch.Tensor, cells_of_sample: int, options: dict) -> torch.Tensor:
    """The loss of one step. attention: [H, W]. mask: [r * H, r * W]. options: eps, and loss and gamma where not bce and 2."""
    eps = 1 / cells_of_sample if options["eps"] == "auto" else options["eps"]
    p = (attention - attention.min()) / (attention.max() - attention.min() + eps)
    resolution = len(mask) // len(p)
    if resolution != 1:
        p, attention = resize(p, resolution), resize(attention, resolution)
    cells = [(i, j) for i in range(p.shape[0]) for j in range(p.shape[1])]
    zero = torch.zeros((), dtype=torch.float64)
    loss, gamma = options.get("loss", "bce"), options.get("focal_gamma", 2.0)
    if loss in ("bce", "focal"):
        gamma = 0.0 if loss == "bce" else gamma
        total = zero
        for cell in cells:
            m = float(mask[cell])
            missed, spilt = (gamma * _log(1 - p[cell])).exp(), (gamma * _log(p[cell])).exp()
            total = total - m * missed * _log(p[cell]) - (1 - m) * spilt * _log(1 - p[cell])
        return total / p.numel()
    if loss in ("dice", "iou"):
        common = sum((float(mask[cell]) * p[cell] for cell in cells), zero)
        both = sum((float(mask[cell]) + p[cell] for cell in cells), zero)
        return 1 - (2 * common + 1) / (both + 1) if loss == "dice" else 1 - (common + 1) / (both - common + 1)
    total, covered = zero, sum(float(mask[cell]) for cell in cells)
    for cell in cells:
        if float(mask[cell]) > 0:
            target = float(mask[cell]) / covered
            total = total + target * (math.log(target) - _log(attention[cell] / attention.sum()))
    return total


def _log(x: torch.Tensor) -> torch.Tensor:
    """log(x), at least -100; a constant below, since p is 0 (or 1) only where it cannot change."""
    return x.log() if x.item() > math.exp(-100) else torch.tensor(-100.0, dtype=torch.float64)


def maps(model, batch: dict, specs, starts: list[int], layers: list[int], options: dict) -> list[list]:
    """For each sample, for each supervised token in order: (instance, float64[T, H, W] fused map)."""
    inputs = {k: v for k, v in batch.items() if k not in ("labels", "attn_labels", "ins_contents_labels")}
    inputs = {k: v for k, v in inputs.items() if k not in ("ins_masks", "mask_index")}
    weights, states = attention_of(model, inputs)
    real = batch["attention_mask"].bool()
    if not options["causal"]:
        scaling = model.model.language_model.layers[0].self_attn.scaling
        weights = [uncausal_weights(*state, scaling, real) for state in states]
    found = []
    for b, (spec, start) in enumerate(zip(specs, starts)):
        found.append([])
        for word in sorted(spec.tags):
            instance = spec.tags[word]
            if not batch["mask_index"][b, instance].any():
                continue
            position = start + spec.behind + word - (1 if options["query"] == "previous" else 0)
            columns = [start + column for column in spec.columns]
            rows = [visual_row(weights[layer], b, position, columns) for layer in layers]
            found[b].append((instance, fuse(rows, options["fusion"], options["eps"]).view(*spec.grid)))
    return found


def mask_loss(found: list[list], batch: dict, options: dict, resolution: int = 1) -> torch.Tensor:
    """Mean over the (token, step) pairs that have a mask. options: as for step_loss."""
    losses = []
    for b, tokens in enumerate(found):
        for instance, attention in tokens:
            steps, height, width = attention.shape
            for step in range(steps):
                if batch["mask_index"][b, instance, step]:
                    mask = batch["ins_masks"][b, instance, step, : resolution * height, : resolution * width]
                    losses.append(step_loss(attention[step], mask, attention.numel(), options))
    return sum(losses) / len(losses)


def grounding(found: list[list], batch: dict, resolution: int = 1, on_object: float = 0.1) -> list[float]:
    """[pairs that point, sum of inside, sum of the share covered, pairs scored, pairs left out]."""
    sums = [0.0] * 5
    for b, tokens in enumerate(found):
        for instance, attention in tokens:
            steps, height, width = attention.shape
            for step in range(steps):
                if not batch["mask_index"][b, instance, step]:
                    continue
                cells, best, inside, covered = attention[step], (-1.0, None), 0.0, set()
                for i in range(height):
                    for j in range(width):
                        block = batch["ins_masks"][b, instance, step, i * resolution :, j * resolution :]
                        if float(block[:resolution, :resolution].mean()) >= on_object:
                            covered.add((i, j))
                            inside += cells[i, j].item()
                        best = max(best, (cells[i, j].item(), (i, j)))
                if not covered:
                    sums[4] += 1
                    continue
                sums[0] += best[1] in covered
                sums[1] += inside / cells.sum().item()
                sums[2] += len(covered) / (height * width)
                sums[3] += 1
    return sums
