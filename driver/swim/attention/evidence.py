"""Does the model look while it speaks? What the attention of a word says for it, as a calibrated score."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import optimize

from swim.attention.maps import Reading, Word, extract, fuse
from swim.attention.wording import tagger
from swim.errors import DataError
from swim.files import decode_text, read_file, write_atomically
from swim.model_name import weights_digest

FEATURES = ("mass", "sharpness", "steadiness", "peak")
ASKED, SAID = "asked", "said"  # a tagged noun of the question, a noun of the answer
_RIDGE = 0.01  # of the logistic regression, on standardised features
_BLUR = 3  # cells, within which a step's map may move and still be steady
_TINY = 1e-30


def features_of(maps: torch.Tensor, fused: torch.Tensor) -> list[float]:
    """Of one word, in the order of FEATURES.

    maps: float32[L, T, H, W], shares of its whole attention at the supervised layers. fused: float32[T, H, W].

    mass: share of its attention that goes to the video, mean over layers. sharpness: 1 less the entropy of a step's map over
    that of an even one, mean over steps. steadiness: cosine of neighbouring steps' maps, blurred over _BLUR cells, mean; 1 for
    a single step. peak: share of a step's map on its highest cell, mean.
    """
    steps = fused.flatten(1)
    steps = steps / steps.sum(1, keepdim=True).clamp_min(_TINY)
    entropy = -torch.xlogy(steps, steps).sum(1) / math.log(max(steps.shape[1], 2))
    blurred = torch.nn.functional.avg_pool2d(steps.view(-1, 1, *fused.shape[1:]), _BLUR, 1, _BLUR // 2).flatten(1)
    unit = torch.nn.functional.normalize(blurred, dim=1)
    steady = float((unit[1:] * unit[:-1]).sum(1).mean()) if len(unit) > 1 else 1.0
    return [float(maps.flatten(1).sum(1).mean()), float(1 - entropy.mean()), steady, float(steps.amax(1).mean())]


@torch.no_grad()
def features_of_words(model, reading: Reading, words: Sequence[Word]) -> list[list[float]]:
    """`features_of` each word."""
    maps = extract(model, reading.inputs, [(word.start, word.end) for word in words])
    return [features_of(own, fused) for own, fused in zip(maps, fuse(maps, model.config))]


@dataclass(frozen=True)
class Fit:
    """A logistic regression on standardised FEATURES.

    threshold: the probability below which a word counts as said without looking.
    """

    mean: list[float]
    scale: list[float]
    weights: list[float]
    bias: float
    threshold: float = 0.5

    def probability(self, features: Sequence[float]) -> float:
        """That such a word is supported by the video."""
        standard = (np.asarray(features) - self.mean) / self.scale
        return float(1 / (1 + np.exp(-(standard @ np.asarray(self.weights) + self.bias))))


def fit(features: Sequence[Sequence[float]], supported: Sequence[bool], threshold: float = 0.5) -> Fit:
    """Raises ValueError unless there are words of both kinds."""
    if len(set(supported)) < 2:
        raise ValueError("expected words that are supported and words that are not, found one kind alone")
    values, signs = np.asarray(features, dtype=np.float64), np.where(supported, 1.0, -1.0)
    mean, scale = values.mean(0), values.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    standard = np.c_[(values - mean) / scale, np.ones(len(values))]

    def loss(weights: np.ndarray) -> float:
        return np.logaddexp(0, -signs * (standard @ weights)).mean() + _RIDGE * (weights[:-1] ** 2).sum()

    found = optimize.minimize(loss, np.zeros(standard.shape[1])).x.tolist()
    return Fit(mean.tolist(), scale.tolist(), found[:-1], found[-1], threshold)


def write_fits(path: Path, model: str, fits: dict[str, Fit]):
    """For `read_fits`. model: whose words they were fitted on."""
    content = {
        "model": model,
        "weights": weights_digest(model),
        "features": FEATURES,
        "fits": {place: asdict(each) for place, each in fits.items()},
    }
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def read_fits(path: str | Path, model: str) -> dict[str, Fit]:
    """By place, ASKED or SAID. Raises DataError for a file that `swim evidence` did not write, or not of this model.

    A model's folder may have moved; the same name with other weights, after another training, is another model.
    """
    path = Path(path)
    try:
        content = json.loads(decode_text(read_file(path, "swim evidence writes one"), str(path)))
        if content["features"] != list(FEATURES):
            raise KeyError("features")
        fits = {place: Fit(**values) for place, values in content["fits"].items()}
        of, weights = content["model"], content["weights"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"expected what swim evidence writes, found something else ({error!r})", str(path)) from None
    found = weights_digest(model)
    if found != weights or (found is None and model != of):
        other = f"of {of}" if model != of else f"of weights that {of} no longer has"
        raise DataError(
            f"the fit is {other}, and says nothing of {model}; run swim evidence --model {model}", str(path)
        )
    return fits


@dataclass(frozen=True)
class Judgement:
    """Of one word. place: ASKED or SAID. probability: that the video supports it. looked: whether that is enough."""

    place: str
    probability: float
    looked: bool


def judge(fits: dict[str, Fit], words: Sequence[Word], maps: torch.Tensor, model_config) -> dict[int, Judgement]:
    """By its number in `words`: each tagged noun of a question and each noun of an answer, as far as there are fits.

    maps: float32[Q, L, T, H, W], of the words in their order and perhaps of more, at the supervised layers.
    """
    if not fits:  # nothing is tagged, nor fused
        return {}
    nouns = nouns_of_answer(words)
    places = {
        n: ASKED if word.kind == "tag" else SAID for n, word in enumerate(words) if word.kind == "tag" or word in nouns
    }
    fused = fuse(maps[: len(words)], model_config)
    found = {}
    for number, place in places.items():
        if place in fits:
            probability = fits[place].probability(features_of(maps[number], fused[number]))
            found[number] = Judgement(place, probability, probability >= fits[place].threshold)
    return found


def nouns_of_answer(words: Sequence[Word]) -> list[Word]:
    """Of the words of an English answer, in order, its nouns."""
    spoken = [word for word in words if word.kind == "answer"]
    kinds = tagger().tag_sent([word.label for word in spoken]) if spoken else []
    return [word for word, (_, _, kind) in zip(spoken, kinds) if kind.startswith(("NN", "NP"))]
