"""Does the model look at the object that is named? Scores of the fused, supervised map."""

from dataclasses import dataclass

import torch

from swim.data.collator import SwimCollator
from swim.data.sample import Sample


@dataclass(frozen=True)
class GroundingScores:
    """Means over the scored (noun token, annotated step) pairs.

    pointing: share of maps whose highest cell lies on the object (cell covered by at least 10 %). inside: share of the
    map's mass on such cells. chance: share of the cells that are such cells. left_out: pairs whose mask covers no cell.
    """

    pointing: float
    inside: float
    chance: float
    pairs: int
    left_out: int


@torch.no_grad()
def score_grounding(model, collator: SwimCollator, samples: list[Sample], batch_size: int = 16) -> GroundingScores:
    """Runs the supervised forward over the samples and averages what it counts. Raises ValueError when nothing counts."""
    sums = torch.zeros(5, dtype=torch.float64)
    for start in range(0, len(samples), batch_size):
        batch = collator(samples[start : start + batch_size])
        outputs = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        sums += outputs.grounding.double().cpu()
    points, inside, covered, scored, left_out = sums.tolist()
    if not scored:
        raise ValueError(f"no (token, step) pair to score in {len(samples)} samples; are they annotated?")
    return GroundingScores(points / scored, inside / scored, covered / scored, int(scored), int(left_out))


@torch.no_grad()
def mean_maps(model, collator: SwimCollator, samples: list[Sample]) -> list[torch.Tensor]:
    """For each sample float32[T, H, W]: the fused map, mean over the sample's supervised tokens."""
    batch = collator(samples)
    outputs = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
    maps = []
    for sample, rows in zip(samples, outputs.attention_maps.cpu()):
        steps, height, width = sample.masks.shape[1:]
        used = rows.flatten(1).sum(1) > 0  # rows of shorter samples are padding
        resolution = collator.settings.mask_resolution
        maps.append(rows[used, :steps, : height // resolution, : width // resolution].mean(0))
    return maps
