"""Captions against references: BLEU, ROUGE-L, CIDEr and METEOR as the COCO caption evaluation has them (pycocoevalcap)."""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from swim.eval.stats import bootstrap_means, rounded, rounded_interval

BENCHMARK = "captions"
HEADLINE, METEOR = "CIDEr", "METEOR"
PTB, WORDS = "Penn Treebank", "words"  # tokenizers; published numbers use the first, which needs Java
_BLEU_N = 4
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[$€£%&]")
_TINY, _SMALL = 1e-15, 1e-9  # as pycocoevalcap keeps BLEU from dividing by 0

Texts = dict[str, list[str]]


class NoScorer(ValueError):
    """pycocoevalcap is not installed."""


@dataclass(frozen=True)
class CaptionScores:
    """All in per cent, as the field prints them; CIDEr goes up to 1,000.

    tokenizer: PTB or WORDS. items: of each id, by metric. corpus: of each metric {"value", "interval_95"}, the interval over
    items drawn anew.
    """

    tokenizer: str
    items: dict[str, dict[str, float]]
    corpus: dict[str, dict[str, Any]]


class _Metric(NamedTuple):
    """value: of the corpus. items: float64[N]. interval: of the value."""

    value: float
    items: np.ndarray
    interval: Sequence[float]


def check_scorer():
    """Raises NoScorer; before anything is answered that could not be scored."""
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError:
        raise NoScorer("scoring captions needs pycocoevalcap: pip install -e 'driver[captions]'") from None


def score_captions(references: Mapping[str, Sequence[str]], answers: Mapping[str, str | None]) -> CaptionScores:
    """Scores of one answer per item, "" or None where there is none, against its references.

    CIDEr weighs n-grams by their rarity among the references of all items: part of a file has other values, and one item 0.
    BLEU and METEOR of the corpus come from counts summed over items, not from the items' means. Without Java words are found
    by a pattern, and METEOR is left out. Raises NoScorer.
    """
    check_scorer()
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    java = java_works()
    texts = [answers.get(key) or "" for key in references] + [text for some in references.values() for text in some]
    split = iter((_penn_treebank if java else _words)([" ".join(text.split()) for text in texts]))
    given = {key: [next(split)] for key in references}
    gold = {key: [next(split) for _ in some] for key, some in references.items()}
    metrics = dict(_bleu(gold, given))
    metrics["ROUGE-L"] = _mean(Rouge().compute_score(gold, given)[1])
    metrics[HEADLINE] = _mean(Cider().compute_score(gold, given)[1])
    if java:
        metrics[METEOR] = _meteor(gold, given)
    several = len(references) > 1
    corpus = {
        name: {
            "value": rounded(100 * metric.value),
            "interval_95": rounded_interval([100 * edge for edge in metric.interval] if several else None),
        }
        for name, metric in metrics.items()
    }
    items = {
        key: {name: rounded(100 * float(metric.items[n])) for name, metric in metrics.items()}
        for n, key in enumerate(references)
    }
    return CaptionScores(PTB if java else WORDS, items, corpus)


def java_works() -> bool:
    """Whether a Java runtime starts: macOS has a command of the name that only tells where to get one."""
    if shutil.which("java") is None:
        return False
    return subprocess.run(["java", "-version"], capture_output=True).returncode == 0


def _words(texts: list[str]) -> list[str]:
    return [" ".join(_WORD.findall(text.lower())) for text in texts]


def _penn_treebank(texts: list[str]) -> list[str]:
    """Raises ValueError when the tokenizer does not return as many lines as it was given."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    numbered = {str(n): [{"caption": text}] for n, text in enumerate(texts)}
    try:
        found = PTBTokenizer().tokenize(numbered)
    except OSError as error:  # it writes beside itself
        raise ValueError(f"the tokenizer of pycocoevalcap cannot write into its folder: {error}") from None
    if len(found) != len(texts):
        raise ValueError(
            f"the tokenizer of pycocoevalcap returned {len(found)} of {len(texts)} captions; does java work?"
        )
    return [text for [text] in found.values()]


def _mean(items: np.ndarray) -> _Metric:
    means = bootstrap_means(items[:, None], np.ones(len(items)))
    return _Metric(float(means.value[0]), items, (means.low[0], means.high[0]))


def _meteor(gold: Texts, given: Texts) -> _Metric:
    """The interval is that of the items' mean, moved to the value."""
    from pycocoevalcap.meteor.meteor import Meteor

    value, items = Meteor().compute_score(gold, given)
    mean = _mean(np.array(items))
    return _Metric(value, mean.items, [edge - mean.value + value for edge in mean.interval])


def _bleu(gold: Texts, given: Texts) -> Iterator[tuple[str, _Metric]]:
    """BLEU-1 to BLEU-4, with the reference of the closest length."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=_BLEU_N)
    for key, (answer,) in given.items():
        scorer += (answer, gold[key])
    counts = np.array(
        [
            [
                *counted["correct"],
                *counted["guess"],
                counted["testlen"],
                _closest(counted["reflen"], counted["testlen"]),
            ]
            for counted in scorer.ctest
        ],
        dtype=np.float64,
    )
    items, means = _bleu_of(counts), bootstrap_means(counts, np.ones(len(counts)))
    whole, draws = _bleu_of(counts.sum(0)), _bleu_of(means.draws * len(counts))
    for n in range(_BLEU_N):
        yield f"BLEU-{n + 1}", _Metric(float(whole[n]), items[:, n], np.quantile(draws[:, n], [0.025, 0.975]).tolist())


def _closest(lengths: Sequence[int], length: int) -> int:
    return min((abs(each - length), each) for each in lengths)[1]


def _bleu_of(counts: np.ndarray) -> np.ndarray:
    """float64[..., N] of float64[..., 2 N + 2]: matches and n-grams by n, length of the answer and of the reference."""
    right, tried = counts[..., :_BLEU_N], counts[..., _BLEU_N : 2 * _BLEU_N]
    length, expected = counts[..., -2], counts[..., -1]
    precision = np.cumprod((right + _TINY) / (tried + _SMALL), axis=-1) ** (1 / np.arange(1, _BLEU_N + 1))
    ratio = (length + _TINY) / (expected + _SMALL)
    return precision * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)[..., None]
