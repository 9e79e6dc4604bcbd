"""Which layers look at the object? Scores of every layer and head, and the set of layers that points best together."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from swim.attention.grounding import average_precision, nouns_of, share_of_top
from swim.data.settings import DataSettings
from swim.eval.records import score_records
from swim.eval.stats import bootstrap_means, rounded, rounded_interval
from swim.files import write_atomically
from swim.infer.questions import ItemFile
from swim.models.supervision import log_attention_maps

SCORES = ("pointing", "average_precision")
ROWS = "rows"  # a folder
BEST, SUPERVISED = "best together", "supervised"  # of the sets that are compared


@dataclass(frozen=True)
class Pairs:
    """The scored (noun token, step) pairs of one record, as every layer sees them.

    log_rows: float32[P, L, K], mean over heads, the log of the attention to each cell of the pair's step.
    on_object: bool[P, K].
    """

    log_rows: torch.Tensor
    on_object: torch.Tensor


@torch.no_grad()
def layers_of(model, collator, sample) -> tuple[dict, Pairs | None]:
    """(scores of each head and of their mean, JSON-ready, the pairs); None without a scored pair.

    The former: pairs, and pointing and average_precision as means over them, [L][heads + 1], the last of the mean.
    """
    nouns = nouns_of(model, collator, sample)
    scored = nouns.scored
    if not scored.any():
        return {"pairs": 0}, None
    every = list(range(model.config.text_config.num_hidden_layers))
    log_maps, _ = log_attention_maps(model, nouns.positions, every, by_head=True, **nouns.inputs)
    heads = log_maps[0].flatten(4).permute(0, 3, 1, 2, 4)[scored]  # [P, L, heads, K]
    mean = heads.logsumexp(2, keepdim=True) - np.log(heads.shape[2])
    on_object = nouns.on_object[scored]
    found: dict = {"pairs": len(on_object)}
    for name, score in (
        ("pointing", lambda maps, cells: share_of_top(maps, cells, 1)),
        ("average_precision", average_precision),
    ):
        maps, cells = torch.broadcast_tensors(torch.cat([heads, mean], 2), on_object[:, None, None])
        found[name] = score(maps, cells).mean(0).tolist()
    return found, Pairs(mean[:, :, 0].cpu(), on_object.cpu())


def score_layers(
    model: str, file: ItemFile, settings: DataSettings, folder: Path, workers: int
) -> tuple[dict[str, dict], dict[str, str]] | None:
    """See `score_records`: the scores of `layers_of`. The pairs of each record go to rows/ in `folder`."""
    (folder / ROWS).mkdir(parents=True, exist_ok=True)

    def score(model, collator, sample, place) -> dict:
        found, pairs = layers_of(model, collator, sample)
        if pairs is not None:
            torch.save(asdict(pairs), folder / ROWS / f"{place}.pt")
        return found

    return score_records(model, file, settings, folder, workers, score)


def read_pairs(folder: Path, numbers: Sequence[int]) -> list[Pairs]:
    """Of the records at those places in the file."""
    return [Pairs(**torch.load(folder / ROWS / f"{number}.pt", weights_only=True)) for number in numbers]


def fused(log_rows: torch.Tensor, layers: Sequence[int], fusion: str) -> torch.Tensor:
    """float32[P, K]: the layers' rows as one map, up to a factor: fusion "mean" or "product"."""
    chosen = log_rows[:, list(layers)]
    return chosen.sum(1) if fusion == "product" else chosen.logsumexp(1)


def choose(pairs: Sequence[Pairs], size: int, fusion: str) -> list[int]:
    """`size` layers, each the one that raises the average precision of what was chosen before it most."""
    chosen: list[int] = []
    count = pairs[0].log_rows.shape[1]
    while len(chosen) < min(size, count):
        rest = [layer for layer in range(count) if layer not in chosen]
        gains = [_mean_scores(pairs, [*chosen, layer], fusion)[1] for layer in rest]
        chosen.append(rest[int(np.argmax(gains))])
    return chosen


def study(scores: dict[str, dict], pairs: dict[str, Pairs], size: int, fusion: str, supervised: Sequence[int]) -> dict:
    """What `swim layers` reports.

    scores, pairs: by record, in the file's order; records of even place choose, those of odd place judge. size: of the set
    that is looked for. supervised: the model's own layers, or those that would be supervised without any choice.

    Raises ValueError for fewer than two records with a scored pair.
    """
    keys = [key for key, found in scores.items() if found["pairs"]]
    if len(keys) < 2:
        raise ValueError(f"{len(keys)} record(s) with a scored pair: one half would have to choose, the other to judge")
    weights = np.array([scores[key]["pairs"] for key in keys])
    every = {name: np.average([scores[key][name] for key in keys], axis=0, weights=weights) for name in SCORES}
    choosing, judging = [pairs[key] for key in keys[::2]], [pairs[key] for key in keys[1::2]]
    count = choosing[0].log_rows.shape[1]
    chosen = choose(choosing, size, fusion)
    sets = {"best single layer": chosen[:1], BEST: chosen, SUPERVISED: list(supervised), "all": list(range(count))}
    return {
        "records": len(keys),
        "pairs": int(weights.sum()),
        "chance": rounded(
            float(np.average([part.on_object.float().mean() for part in pairs.values()], weights=weights))
        ),
        "heads": {name: np.round(values[:, :-1], 4).tolist() for name, values in every.items()},
        "layers": {name: np.round(values[:, -1], 4).tolist() for name, values in every.items()},
        "chosen_on": len(choosing),
        "judged_on": len(judging),
        "fusion": fusion,
        "sets": {name: {"layers": layers, **_judge(judging, layers, fusion)} for name, layers in sets.items()},
    }


def write_study(folder: Path, report: dict):
    """Writes report.json, and layers.png: pointing of every head, and of the layers' means beside them."""
    write_atomically(folder / "report.json", json.dumps(report, indent=1) + "\n")
    heads, layers = np.array(report["heads"]["pointing"]), report["layers"]["pointing"]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(5 + 0.22 * heads.shape[1], 1.8 + 0.18 * len(heads)), width_ratios=(3, 1), sharey=True
    )
    image = left.imshow(heads, aspect="auto", cmap="viridis", vmin=0, vmax=1)
    left.set(xlabel="head", ylabel="layer", title="pointing")
    figure.colorbar(image, ax=left)
    right.plot(layers, range(len(layers)), "o-", markersize=3)
    right.axvline(report["chance"], color="0.6", linestyle=":")
    for layer in report["sets"][BEST]["layers"]:
        right.plot(layers[layer], layer, "o", markersize=8, markerfacecolor="none", color="tab:red")
    right.set(xlabel="mean of heads\n(dotted: chance; rings: best together)", xlim=(0, 1.04))
    figure.tight_layout()
    figure.savefig(folder / "layers.png", dpi=130)
    plt.close(figure)


def _scores_of(part: Pairs, layers: Sequence[int], fusion: str) -> tuple[float, float]:
    """Means over one record's pairs, in the order of SCORES."""
    maps = fused(part.log_rows, layers, fusion)
    return float(share_of_top(maps, part.on_object, 1).mean()), float(average_precision(maps, part.on_object).mean())


def _mean_scores(pairs: Sequence[Pairs], layers: Sequence[int], fusion: str) -> np.ndarray:
    values = np.array([_scores_of(part, layers, fusion) for part in pairs])
    return np.average(values, axis=0, weights=[len(part.on_object) for part in pairs])


def _judge(pairs: Sequence[Pairs], layers: Sequence[int], fusion: str) -> dict:
    """Each score with its 95 % interval over records."""
    values = np.array([_scores_of(part, layers, fusion) for part in pairs])
    means = bootstrap_means(values, np.array([len(part.on_object) for part in pairs]))
    return {
        name: {
            "value": rounded(float(means.value[n])),
            "interval_95": rounded_interval((means.low[n], means.high[n]) if len(pairs) > 1 else None),
        }
        for n, name in enumerate(SCORES)
    }
