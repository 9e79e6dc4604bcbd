"""Which words look at the object? Scores of the words of referring phrases, by class and layer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from swim.attention.grounding import FUSED, cells_on_object, share_of_top
from swim.attention.maps import Word, extract, fuse, read_words
from swim.attention.wording import CLASSES, classed_words
from swim.data.collator import SwimCollator
from swim.data.sample import Sample
from swim.eval.stats import bootstrap_means, rounded, rounded_interval

SCORES = ("pointing", "inside", "entropy")

Values = dict[str, Any]


@torch.no_grad()
def score_words(model, collator: SwimCollator, sample: Sample, place: int = 0) -> Values:
    """{class: {"pairs", "words", and pointing, inside and entropy of each layer and of the fused map, means over pairs}}.

    A pair is a word of the last question's referring phrase and a step in which its object covers a cell. entropy: of the step's
    attention over its cells, 1 where it is even and 0 where it is on one cell. For `score_records`.
    """
    places = _classed(sample)
    if not places or sample.masks is None:
        return {}
    record = sample.record
    bare = replace(record, turns=[replace(turn, spans=[], instances=[]) for turn in record.turns], instances=[])
    reading = read_words(collator, replace(sample, record=bare, masks=None), question_words=True)
    spans = _of_last_turn(reading.words)
    every = list(range(model.config.text_config.num_hidden_layers))
    known = [place for place in places if place[0] in spans]
    if not known:
        return {}
    own = extract(model, reading.inputs, [spans[at] for at, _, _ in known], every)  # [Q, L, T, H, W]
    supervised = extract(model, reading.inputs, [spans[at] for at, _, _ in known])
    maps = torch.cat([own, fuse(supervised, model.config)[:, None]], 1).flatten(3)
    covered = cells_on_object(torch.from_numpy(sample.masks.shares), collator.settings.mask_resolution)
    counted = torch.from_numpy(sample.masks.index) & covered.any(-1)
    found: dict[str, list[torch.Tensor]] = {}
    words: dict[str, int] = {}
    for heat, (_, kind, instance) in zip(maps, known):
        steps = counted[instance].nonzero().flatten()
        if len(steps):
            found.setdefault(kind, []).append(_scores_of(heat[:, steps], covered[instance][steps]))
            words[kind] = words.get(kind, 0) + 1
    joined = {kind: torch.cat(parts, 1) for kind, parts in found.items()}  # [scores, pairs, maps]
    return {
        kind: {"pairs": values.shape[1], "words": words[kind], **dict(zip(SCORES, values.mean(1).tolist()))}
        for kind, values in joined.items()
    }


def summarise(scores: dict[str, Values]) -> dict[str, Values]:
    """{class: counts and, for each layer and the fused map, each score with its 95 % interval over records}.

    Raises ValueError where no referring phrase was found.
    """
    result: dict[str, Values] = {}
    for kind in CLASSES:
        used = [found[kind] for found in scores.values() if kind in found]
        if not used:
            continue
        weights = np.array([part["pairs"] for part in used])
        rows = np.array([[part[score] for score in SCORES] for part in used])  # [records, scores, maps]
        means = bootstrap_means(rows.reshape(len(rows), -1), weights)
        value, low, high = (each.reshape(rows.shape[1:]) for each in (means.value, means.low, means.high))
        names = [*map(str, range(rows.shape[2] - 1)), FUSED]
        result[kind] = {
            "records": len(used),
            "words": sum(part["words"] for part in used),
            "pairs": int(weights.sum()),
            "maps": {
                name: {
                    score: {
                        "value": rounded(float(value[s, m])),
                        "interval_95": rounded_interval((low[s, m], high[s, m]) if len(used) > 1 else None),
                    }
                    for s, score in enumerate(SCORES)
                }
                for m, name in enumerate(names)
            },
        }
    if not result:
        raise ValueError("no question of these records has a tagged phrase and a mask: nothing to score")
    return result


def plot(models: dict[str, dict[str, Values]], path: Path):
    """A row of panels for each model, a panel for each score: a line for each class over the layers."""
    figure, panels = plt.subplots(
        len(models), len(SCORES), figsize=(3.4 * len(SCORES), 2.4 * len(models)), squeeze=False
    )
    for line, (model, classes) in zip(panels, models.items()):
        for panel, score in zip(line, SCORES):
            for number, (kind, entry) in enumerate(classes.items()):
                layers = [each[score] for name, each in entry["maps"].items() if name != FUSED]
                values = [each["value"] for each in layers]
                panel.plot(values, "o-", markersize=3, label=kind, color=f"C{number}")
                edges = [each["interval_95"] or (each["value"],) * 2 for each in layers]
                panel.fill_between(range(len(values)), *zip(*edges), alpha=0.15, color=f"C{number}")
            panel.set(title=f"{model}: {score}", xlabel="layer", ylim=(0, 1.03))
            panel.title.set_fontsize(8)
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _classed(sample: Sample) -> list[tuple[int, str, int]]:
    """(where a word begins in its question, its class, the instance) for each word of the last question's phrases."""
    question = sample.record.turns[-2]
    named = zip(question.spans, question.instances)
    found: dict[int, tuple[int, str, int]] = {}
    for span, instance in named:
        for word in classed_words(question.text, span):
            found.setdefault(word.start, (word.start, word.kind, instance))
    return list(found.values())


def _of_last_turn(words: list[Word]) -> dict[int, tuple[int, int]]:
    """{where a word begins in its turn: its tokens} of the last of the turns, whose words stand in order."""
    found: dict[int, tuple[int, int]] = {}
    for word in reversed(words):
        if found and word.at >= min(found):
            break
        found[word.at] = word.start, word.end
    return found


def _scores_of(heat: torch.Tensor, covered: torch.Tensor) -> torch.Tensor:
    """float32[scores, steps, maps] of heat float32[maps, steps, K] and covered bool[steps, K]."""
    heat = heat.transpose(0, 1)
    cells = covered[:, None].expand_as(heat)
    total = heat.sum(-1).clamp_min(1e-30)
    shares = heat / total[..., None]
    entropy = -torch.xlogy(shares, shares).sum(-1) / np.log(max(heat.shape[-1], 2))
    return torch.stack([share_of_top(heat, cells, 1), (heat * cells).sum(-1) / total, entropy])
