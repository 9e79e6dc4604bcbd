"""Does the model look at the object that is named? Scores of maps against masks, on grid cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import torch

from swim.data.collator import TARGETS, SwimCollator
from swim.data.sample import Sample
from swim.data.tokens import IGNORE
from swim.models.supervision import GROUNDING_SUMS, ON_OBJECT, fuse_layers, log_attention_maps, supervision_of

FUSED = "fused"
TOP_PERCENT = (1, 5, 10)
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
FIXED_THRESHOLD = 0.5
SCORES = ("pointing", "inside", *(f"game_point_{k}" for k in TOP_PERCENT), "average_precision")


def score_maps(maps: torch.Tensor, on_object: torch.Tensor) -> dict[str, torch.Tensor]:
    """Scores of each map, each float32[...], and `iou`, float32[..., len(THRESHOLDS)].

    maps: float[..., K], not negative. on_object: bool[..., K], at least one True.

    pointing: 1 if the highest cell lies on the object. inside: share of the map's mass that does. game_point_k: share of
    the highest k % of the cells (rounded down, one at least) that lies on it. average_precision: of the cells in the
    order of the map. iou: of the cells with (a - min) / (max - min) >= each of THRESHOLDS; a constant map has none.
    Equal cells are taken in every order alike: a uniform map scores the object's share of the cells everywhere but in iou.
    """
    maps, on_object = torch.broadcast_tensors(maps.float(), on_object)
    cells = maps.shape[-1]
    scores = {"pointing": share_of_top(maps, on_object, 1)}
    scores["inside"] = (maps * on_object).sum(-1) / maps.sum(-1)
    for percent in TOP_PERCENT:
        scores[f"game_point_{percent}"] = share_of_top(maps, on_object, max(1, cells * percent // 100))
    scores["average_precision"] = average_precision(maps, on_object)
    low, high = maps.amin(-1, keepdim=True), maps.amax(-1, keepdim=True)
    scaled = torch.where(high > low, (maps - low) / (high - low), 0.0)
    chosen = [scaled >= threshold for threshold in THRESHOLDS]
    overlaps = [(cell & on_object).sum(-1) / (cell | on_object).sum(-1) for cell in chosen]
    return {**scores, "iou": torch.stack(overlaps, -1)}


def share_of_top(maps: torch.Tensor, on_object: torch.Tensor, count: int) -> torch.Tensor:
    """Expected share of the `count` highest cells that lies on the object when equal cells are drawn by lot."""
    lowest = maps.topk(count).values[..., -1:]
    above, tied = maps > lowest, maps == lowest
    drawn = (count - above.sum(-1)) * (tied & on_object).sum(-1) / tied.sum(-1)
    return ((above & on_object).sum(-1) + drawn) / count


def average_precision(maps: torch.Tensor, on_object: torch.Tensor) -> torch.Tensor:
    """Mean over the object's cells of the precision among all cells that are at least as high."""
    ascending, order = maps.sort(-1)
    lower = torch.searchsorted(ascending, maps.contiguous())  # cells below each cell
    hits = torch.nn.functional.pad(on_object.gather(-1, order).cumsum(-1), (1, 0))
    precision = (hits[..., -1:] - hits.gather(-1, lower)) / (maps.shape[-1] - lower)
    return (precision * on_object).sum(-1) / on_object.sum(-1)


class Grounding(TypedDict):
    """Scores of the nouns of one kind, see `ground`. chance and maps are missing where no pair is scored."""

    pairs: int
    left_out: int
    chance: NotRequired[float]
    maps: NotRequired[dict[str, dict]]


@dataclass(frozen=True)
class Nouns:
    """The Q tagged noun tokens of one annotated sample, beside the T steps and K cells of a step that they may look at.

    positions: int64[1, Q], of the rows that stand for them. instances: int64[Q], what each names. on_object: bool[Q, T, K]. counted, scored: bool[Q, T], steps
    with a mask, and those whose mask covers a cell. answer: bool[Q]. inputs: the model's, for `log_attention_maps`.
    """

    positions: torch.Tensor
    instances: torch.Tensor
    on_object: torch.Tensor
    counted: torch.Tensor
    answer: torch.Tensor
    inputs: dict[str, Any]

    @property
    def scored(self) -> torch.Tensor:
        return self.counted & self.on_object.any(-1)


def nouns_of(model, collator: SwimCollator, sample: Sample) -> Nouns:
    batch = {name: tensor.to(model.device) for name, tensor in collator([sample]).items()}
    places = ((batch["ins_contents_labels"] != IGNORE) & (batch["attn_labels"] != IGNORE))[0].nonzero().flatten()
    instances = batch["ins_contents_labels"][0, places]
    return Nouns(
        positions=(places - int(supervision_of(model.config).query == "previous"))[None],
        instances=instances,
        on_object=cells_on_object(batch["ins_masks"][0, instances], collator.settings.mask_resolution),
        counted=batch["mask_index"][0, instances],
        answer=batch["labels"][0, places] != IGNORE,
        inputs={name: value for name, value in batch.items() if name not in TARGETS},
    )


@torch.no_grad()
def ground(model, collator: SwimCollator, sample: Sample, layers: Sequence[int] | None = None) -> dict[str, Grounding]:
    """Scores of one annotated sample, for nouns of the "question" and of the "answer" apart; JSON-ready.

    Each: pairs, the scored (noun token, annotated step) pairs; left_out, those whose mask covers no cell by 10 %;
    chance, the mean share of cells on the object; maps: for each layer, and for `fused`, the means of `score_maps`.
    The answer is the record's own. layers: None for those of the checkpoint, which also says how they are fused.
    """
    nouns = nouns_of(model, collator, sample)
    config = supervision_of(model.config)
    config.layers = list(layers) if layers is not None else config.layers
    config.eps = "auto"
    on_object, counted, scored = nouns.on_object, nouns.counted, nouns.scored
    answer = nouns.answer[:, None].expand_as(scored)
    names, maps = [], torch.empty(0, *on_object.shape)
    if scored.any():
        log_maps, cells = log_attention_maps(model, nouns.positions, config.layers, **nouns.inputs)
        rows = list(log_maps.flatten(3).unbind(2))
        names = [*map(str, config.layers_of(model.config.text_config.num_hidden_layers)), FUSED]
        maps = torch.stack(
            [fuse_layers(part, cells, config)[0].flatten(2) for part in [*([row] for row in rows), rows]]
        )
    result = {}
    for kind, chosen in (("question", ~answer), ("answer", answer)):
        pairs = scored & chosen
        summary: Grounding = {"pairs": int(pairs.sum()), "left_out": int((counted & ~scored & chosen).sum())}
        if summary["pairs"]:
            summary["chance"] = float(on_object[pairs].float().mean())
            summary["maps"] = dict(zip(names, _means(score_maps(maps[:, pairs], on_object[pairs]))))
        result[kind] = summary
    return result


def cells_on_object(masks: torch.Tensor, resolution: int) -> torch.Tensor:
    """bool[Q, T, K] of float[Q, T, r * H, r * W]: cells that the object covers by ON_OBJECT."""
    return (torch.nn.functional.avg_pool3d(masks, (1, resolution, resolution)) >= ON_OBJECT).flatten(2)


def _means(scores: dict[str, torch.Tensor]) -> list[dict]:
    """For each map the mean of its scores over the pairs, of [maps, pairs, ...]."""
    means = {name: values.mean(1).tolist() for name, values in scores.items()}
    return [dict(zip(means, values)) for values in zip(*means.values())]


@dataclass(frozen=True)
class GroundingScores:
    """Means over the scored (noun token, annotated step) pairs.

    pointing: share of maps whose highest cell is on the object (at least 10 % of the cell is covered).
    inside: share of the map's mass on such cells.
    chance: share of the cells that are such cells.
    left_out: pairs whose mask covers no cell.
    perplexity: of the answers, over their tokens.
    """

    pointing: float
    inside: float
    chance: float
    pairs: int
    left_out: int
    perplexity: float


@torch.no_grad()
def score_grounding(model, collator: SwimCollator, samples: list[Sample], batch_size: int = 16) -> GroundingScores:
    """Runs the supervised forward over the samples and averages what it counts. Raises ValueError when nothing counts."""
    sums = torch.zeros(len(GROUNDING_SUMS), dtype=torch.float64)
    nll, tokens = 0.0, 0
    for start in range(0, len(samples), batch_size):
        batch = collator(samples[start : start + batch_size])
        outputs = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        sums += outputs.grounding.double().cpu()
        learnt = int((batch["labels"][:, 1:] != IGNORE).sum())
        nll, tokens = nll + float(outputs.text_loss) * learnt, tokens + learnt
    total = dict(zip(GROUNDING_SUMS, sums.tolist()))
    scored = total["scored"]
    if not scored:
        raise ValueError(f"no (token, step) pair to score in {len(samples)} samples; are they annotated?")
    pointing, inside, chance = (total[name] / scored for name in ("points", "inside", "covered"))
    perplexity = math.exp(nll / tokens)
    return GroundingScores(pointing, inside, chance, int(scored), int(total["left_out"]), perplexity)


@torch.no_grad()
def mean_maps(model, collator: SwimCollator, samples: list[Sample]) -> list[torch.Tensor]:
    """For each sample float32[T, H, W]: the fused map, mean over the sample's supervised tokens."""
    batch = collator(samples)
    outputs = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
    maps = []
    for sample, rows in zip(samples, outputs.attention_maps.cpu()):
        if sample.masks is None:
            raise ValueError(f"{sample.record.where} has no annotation to supervise with")
        steps, height, width = sample.masks.shares.shape[1:]
        used = rows.flatten(1).sum(1) > 0  # rows of shorter samples are padding
        resolution = collator.settings.mask_resolution
        maps.append(rows[used, :steps, : height // resolution, : width // resolution].mean(0))
    return maps
