"""Whether attention tells what is supported by the video from what is not, beside the probability of the words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from scipy import stats

from swim.attention.evidence import ASKED, FEATURES, SAID, Fit, features_of_words, fit
from swim.attention.maps import Reading, read_words, recorded_answer_tokens
from swim.data.collator import SwimCollator
from swim.data.records import RawItem, Record, Turn, check_layout
from swim.data.root import DataRoot, as_root
from swim.data.sample import Sample
from swim.data.tags import Span, strip_placeholders, strip_tags
from swim.errors import DataError
from swim.eval.stats import rounded, rounded_interval
from swim.infer.generate import generate_tokens
from swim.infer.questions import visual_record

RESAMPLES = 2000
ANSWER_TOKENS = 64

Values = dict[str, Any]


class _RawEvidence(RawItem):
    prompt: str
    answer: str | None = None
    word: str | None = Field(None, min_length=1)
    supported: bool = Field(strict=True)
    kind: str | None = None


@dataclass(frozen=True)
class Item:
    """A word, and whether the video supports it.

    record: the video, the question with its tag, and the answer with the word as its tag. answer: what is said; None where the
    word is the question's tag, and the answer the model's own. kind: for the report.
    """

    record: Record
    supported: bool
    kind: str
    answer: str | None = None


def parse_evidence(raw: Any, where: str, root: str | Path | DataRoot) -> Item:
    """An item {"video", "prompt", "supported", "answer"?, "word"?, "kind"?}; see `swim evidence --help`.

    Raises DataError naming the item for one that does not fit.
    """
    checked = check_layout(_RawEvidence, raw, where)
    try:
        record = visual_record(
            where, as_root(root).locate_video(checked.video or ""), None, checked.prompt, checked.fps
        )
        text, spans = strip_tags(strip_placeholders(checked.prompt)[0])
        if checked.answer is None and len(spans) != 1:
            raise DataError(f"prompt: expected one <ins> tag, found {len(spans)}")
        if checked.answer is not None and (checked.word is None or checked.word not in checked.answer):
            raise DataError(f"word: expected one of the answer {checked.answer!r}, found {checked.word!r}")
    except DataError as error:
        raise error.at(where) from None
    said = record.turns[1]
    if checked.answer is not None and checked.word is not None:
        start = checked.answer.rindex(checked.word)
        span = Span(start, start + len(checked.word), checked.word)
        said = Turn(said.role, checked.answer, [span], [0])
    record = replace(record, turns=[Turn("user", text, spans, [0] * len(spans)), said])
    kind = checked.kind or (ASKED if checked.answer is None else SAID)
    return Item(record, checked.supported, kind, checked.answer)


@torch.no_grad()
def score_item(model, collator: SwimCollator, sample: Sample, item: Item) -> Values:
    """{"features", "probability"}: those of the item's word, and its log-probability, per token: of the word where it is said,
    else of the model's own answer to the question."""
    if item.answer is None:
        tokens = next(generate_tokens(model, collator, [sample], max_new_tokens=ANSWER_TOKENS))
        reading = read_words(collator, sample, tokens)
        [word] = [each for each in reading.words if each.kind == "tag"]
        judged = (reading.answer_start, reading.inputs["input_ids"].shape[1])
    else:
        reading = read_words(collator, sample, recorded_answer_tokens(collator, sample), recorded_answer=True)
        [word] = [each for each in reading.words if each.kind == "tag" and each.start >= reading.answer_start]
        judged = (word.start, word.end)
    [features] = features_of_words(model, reading, [word])
    return {
        "features": [round(value, 6) for value in features],
        "probability": _log_probability(model, reading, *judged),
    }


def study(items: dict[str, Item], scores: dict[str, Values]) -> Values:
    """For each kind: AUROC of the evidence, of the probability and of each feature, with 95 % intervals over videos.

    The evidence of a word comes from a fit on the other half of the videos. Raises ValueError for a kind that has not both
    sorts of words in both halves.
    """
    kinds: Values = {}
    for kind in dict.fromkeys(item.kind for item in items.values()):
        keys = [key for key in scores if items[key].kind == kind]
        supported = np.array([items[key].supported for key in keys], dtype=bool)
        groups = _groups([str(items[key].record.path) for key in keys])
        half = halves(groups, supported)
        sorts = {(side, sort) for side, sort in zip(half.tolist(), supported.tolist())}
        if len(sorts) < 4:
            raise ValueError(
                f"kind {kind!r}: expected words that are supported and words that are not, of two videos each at least, "
                f"found {supported.sum()} and {(~supported).sum()} words of {len(set(groups.tolist()))} videos; give more "
                "items, or raise --limit"
            )
        features = np.array([scores[key]["features"] for key in keys])
        evidence = cross_fitted(features, supported, half)
        columns = {"evidence": evidence, "probability": np.array([scores[key]["probability"] for key in keys])}
        columns |= {name: features[:, n] for n, name in enumerate(FEATURES)}
        kinds[kind] = {"words": len(keys), "supported": int(supported.sum()), **_compared(columns, supported, groups)}
        kinds[kind]["threshold"] = rounded(best_threshold(evidence, supported))
    return kinds


def halves(groups: np.ndarray, supported: np.ndarray) -> np.ndarray:
    """int64[N]: 0 or 1 for each word, the same within a group; groups with the same sorts of words go to each in turn."""
    side = np.zeros(len(groups), dtype=np.int64)
    count = Counter[tuple]()
    for group in dict.fromkeys(groups.tolist()):
        own = groups == group
        sorts = (bool(supported[own].any()), bool((~supported[own]).any()))
        side[own] = count[sorts] % 2
        count[sorts] += 1
    return side


def fits_of(items: dict[str, Item], scores: dict[str, Values], kinds: Values) -> dict[str, Fit]:
    """On all words of the kinds ASKED and SAID, with the thresholds that `study` found."""
    found = {}
    for kind in (ASKED, SAID):
        keys = [key for key in scores if items[key].kind == kind]
        if keys:
            features, supported = ([scores[key]["features"] for key in keys], [items[key].supported for key in keys])
            found[kind] = fit(features, supported, kinds[kind]["threshold"])
    return found


def cross_fitted(features: np.ndarray, supported: np.ndarray, half: np.ndarray) -> np.ndarray:
    """float64[N]: each word's probability by the fit on the words of the other half."""
    found = np.empty(len(features))
    for side in (0, 1):
        learnt = fit(features[half != side].tolist(), supported[half != side].tolist())
        found[half == side] = [learnt.probability(values) for values in features[half == side]]
    return found


def auroc(values: np.ndarray, supported: np.ndarray) -> float:
    """The share of pairs, one supported and one not, in which the supported one has the higher value; ties count half."""
    ranks = stats.rankdata(values)
    ones, zeros = supported.sum(), (~supported).sum()
    return float((ranks[supported].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def best_threshold(values: np.ndarray, supported: np.ndarray) -> float:
    """The cut halfway between two values with the highest balanced accuracy."""
    ordered = np.unique(values)
    edges = (ordered[1:] + ordered[:-1]) / 2 if len(ordered) > 1 else ordered
    right = [(values[supported] >= edge).mean() + (values[~supported] < edge).mean() for edge in edges]
    return float(edges[int(np.argmax(right))])


def _compared(columns: dict[str, np.ndarray], supported: np.ndarray, groups: np.ndarray) -> Values:
    """AUROCs with intervals over groups drawn anew, and evidence less probability."""
    members = [np.flatnonzero(groups == group) for group in range(groups.max() + 1)]
    rng, draws = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([members[n] for n in rng.integers(0, len(members), len(members))])
        if len(set(supported[chosen].tolist())) == 2:
            draws.append([auroc(values[chosen], supported[chosen]) for values in columns.values()])
    drawn = np.array(draws)
    names = list(columns)
    result: Values = {
        name: {
            "auroc": rounded(auroc(values, supported)),
            "interval_95": rounded_interval(np.quantile(drawn[:, n], [0.025, 0.975]).tolist()),
        }
        for n, (name, values) in enumerate(columns.items())
    }
    gain = drawn[:, names.index("evidence")] - drawn[:, names.index("probability")]
    result["difference"] = {
        "value": rounded(result["evidence"]["auroc"] - result["probability"]["auroc"]),
        "interval_95": rounded_interval(np.quantile(gain, [0.025, 0.975]).tolist()),
    }
    return result


def _groups(names: Sequence[str]) -> np.ndarray:
    """int64[N]: the number of each name among the different ones."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names])


def _log_probability(model, reading: Reading, start: int, end: int) -> float:
    """Mean over the tokens [start, end); that of nothing is 0."""
    if start == end:
        return 0.0
    inputs = {name: value.to(model.device) for name, value in reading.inputs.items()}
    logits = model(**inputs, use_cache=False).logits[0, start - 1 : end - 1].float().log_softmax(-1)
    chosen = logits.gather(1, inputs["input_ids"][0, start:end, None])
    return round(float(chosen.mean()), 6)
