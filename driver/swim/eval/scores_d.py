"""What the judge of VideoRefer-Bench-D sees, and the scores of a run."""

import statistics

from swim.data.bench import BenchD
from swim.data.tags import strip_tags
from swim.eval.judge import DIMENSIONS, Case
from swim.eval.stats import bootstrap_interval, rounded, rounded_interval
from swim.replies import without_reasoning


def make_cases(items: dict[str, BenchD], answers: dict[str, str]) -> list[Case]:
    """What the judge sees of every item that has an answer."""
    texts = {key: (strip_tags(item.question)[0], strip_tags(item.reference)[0]) for key, item in items.items()}
    return [Case(key, *texts[key], _without_tags(answers[key])) for key in items if answers.get(key) is not None]


def _without_tags(answer: str) -> str:
    """Without thinking too. A model may write half a tag: plain replacement, no grammar."""
    return without_reasoning(answer).replace("<ins>", "").replace("</ins>", "")


def summarise(items: dict[str, BenchD], scores: dict[str, dict], failures: dict[str, str], min_coverage: float) -> dict:
    """Means by dimension and their mean with its 95 % interval over items; coverage; no headline below min_coverage.

    An item without valid scores is named in `failed` with its reason; it never just leaves the mean.
    """
    ordered = [scores[key] for key in items if key in scores]
    failed = {key: failures.get(key, "no answer to judge") for key in items if key not in scores}
    coverage = len(ordered) / len(items)
    dimensions = {name: rounded(statistics.mean(s[name] for s in ordered)) for name in DIMENSIONS} if ordered else {}
    means = [statistics.mean(score.values()) for score in ordered]
    complete = bool(ordered) and coverage >= min_coverage
    return {
        "items": len(items),
        "judged": len(ordered),
        "coverage": rounded(coverage),
        "min_coverage": min_coverage,
        "dimensions": dimensions,
        "mean": rounded(statistics.mean(means)) if complete else None,
        "mean_interval_95": rounded_interval(bootstrap_interval(means)) if complete else None,
        "failed": failed,
    }
