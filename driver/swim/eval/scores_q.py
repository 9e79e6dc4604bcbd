"""The scores of VideoRefer-Bench-Q."""

from swim.data.bench import BenchQ
from swim.eval.letters import parse_letter
from swim.eval.stats import bootstrap_interval, rounded, rounded_interval


def score_items(items: dict[str, BenchQ], answers: dict[str, str], parser: str = "strict") -> list[dict]:
    """One entry per item of the file: {"id", "type", "answer", "letter", "gold", "right"}; an answer that is missing
    (None) or names no option is wrong."""
    scored = []
    for key, item in items.items():
        answer = answers.get(key)
        letter = None if answer is None else parse_letter(answer, item.lettered, parser)
        entry = {"id": key, "type": item.type, "answer": answer, "letter": letter, "gold": item.letter}
        scored.append({**entry, "right": letter == item.letter})
    return scored


def summarise(scored: list[dict]) -> dict:
    """Accuracies in per cent: by type, micro (over items, with its 95 % interval) and macro (over types)."""
    by_type = {}
    for kind in sorted({entry["type"] for entry in scored}):
        right = [entry["right"] for entry in scored if entry["type"] == kind]
        by_type[kind] = {"items": len(right), "right": sum(right), "accuracy": rounded(100 * sum(right) / len(right))}
    values = [100.0 * entry["right"] for entry in scored]
    return {
        "items": len(scored),
        "by_type": by_type,
        "micro": rounded(sum(values) / len(values)),
        "micro_interval_95": rounded_interval(bootstrap_interval(values)),
        "macro": rounded(sum(kind["accuracy"] for kind in by_type.values()) / len(by_type)),
        "unparsed": sum(entry["answer"] is not None and entry["letter"] is None for entry in scored),
        "unanswered": sum(entry["answer"] is None for entry in scored),
    }
