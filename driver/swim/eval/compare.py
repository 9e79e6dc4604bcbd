"""Two evaluations of the same items, joined by item."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from swim.eval.scores_captions import BENCHMARK, HEADLINE
from swim.eval.stats import interval_words, mcnemar, paired_bootstrap, rounded, rounded_interval
from swim.files import read_json_lines, write_atomically


@dataclass(frozen=True)
class Run:
    """scores: by item id, 0 or 100 for Bench-Q, mean of the four dimensions for Bench-D, CIDEr of captions. types: by item id."""

    folder: Path
    benchmark: str
    report: dict
    scores: dict[str, float]
    types: dict[str, str]


def read_run(folder: Path) -> Run:
    """Raises ValueError for a folder that holds no report."""
    path = folder / "report.json"
    if not path.exists():
        raise ValueError(f"{folder} holds no report.json; run swim bench-q, bench-d or captions first")
    report = json.loads(path.read_text(encoding="utf-8"))
    if report["benchmark"] == "VideoRefer-Bench-Q":
        entries = list(read_json_lines(folder / "items.jsonl"))
        scores = {entry["id"]: 100.0 * entry["right"] for entry in entries}
        return Run(folder, report["benchmark"], report, scores, {entry["id"]: entry["type"] for entry in entries})
    if report["benchmark"] == BENCHMARK:
        scores = {entry["id"]: entry["scores"][HEADLINE] for entry in read_json_lines(folder / "items.jsonl")}
        return Run(folder, report["benchmark"], report, scores, dict.fromkeys(scores, "all items"))
    entries = list(read_json_lines(folder / "scores.jsonl"))
    scores = {entry["id"]: statistics.mean(entry["scores"].values()) for entry in entries}
    return Run(folder, report["benchmark"], report, scores, dict.fromkeys(scores, "all items"))


def compare(first: Run, second: Run) -> dict:
    """What changed from `first` to `second` over the items that both scored.

    Raises ValueError for different benchmarks or question files, and when no item is common.
    """
    for name, values in (
        ("benchmarks", [run.benchmark for run in (first, second)]),
        ("question files (sha256)", [run.report["questions"]["sha256"][:12] for run in (first, second)]),
    ):
        if values[0] != values[1]:
            raise ValueError(f"different {name}: {values[0]} in {first.folder}, {values[1]} in {second.folder}")
    common = [key for key in first.scores if key in second.scores]
    if not common:
        raise ValueError(f"no item was scored in both {first.folder} and {second.folder}")
    kinds = list(dict.fromkeys(first.types[key] for key in common))
    by_type = {kind: _difference(first, second, [key for key in common if first.types[key] == kind]) for kind in kinds}
    changed = [
        {
            "id": key,
            "type": first.types[key],
            "first": rounded(first.scores[key]),
            "second": rounded(second.scores[key]),
        }
        for key in common
        if first.scores[key] != second.scores[key]
    ]
    return {
        "benchmark": first.benchmark,
        "first": {"folder": str(first.folder), "model": first.report["model"]},
        "second": {"folder": str(second.folder), "model": second.report["model"]},
        "differing_settings": _differing(first.report, second.report),
        "only_in_first": sorted(first.scores.keys() - second.scores.keys()),
        "only_in_second": sorted(second.scores.keys() - first.scores.keys()),
        "all": _difference(first, second, common),
        "by_type": by_type,
        "changed": changed,
    }


def compare_with_last(folders: Iterable[Path], output: Path) -> list[dict]:
    """What changed from each of the evaluations to the last of them; written into `output`. Raises what `compare` raises."""
    *others, last = map(read_run, folders)
    results = [compare(other, last) for other in others]
    write_comparison(output, results)
    return results


def write_comparison(folder: Path, results: list[dict]) -> str:
    """Writes compare.md and compare.json; returns the former."""
    text = "\n".join(as_markdown(result) for result in results)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "compare.md", text)
    write_atomically(folder / "compare.json", json.dumps(results, indent=1) + "\n")
    return text


def _difference(first: Run, second: Run, keys: list[str]) -> dict:
    before, after = [first.scores[key] for key in keys], [second.scores[key] for key in keys]
    difference, low, high, p = paired_bootstrap(before, after)
    wins = sum(a > b for a, b in zip(after, before))
    losses = sum(a < b for a, b in zip(after, before))
    result = {
        "items": len(keys),
        "first": rounded(statistics.mean(before)),
        "second": rounded(statistics.mean(after)),
        "difference": rounded(difference),
        "interval_95": rounded_interval((low, high) if len(keys) > 1 else None),
        "p_bootstrap": rounded(p),
        "wins": wins,
        "losses": losses,
    }
    return result | {"p_mcnemar": rounded(mcnemar(wins, losses))} if first.benchmark.endswith("Q") else result


def _differing(first: dict, second: dict) -> list[str]:
    """Settings, other than the model, that make the comparison one of more than models."""
    names = ("backend", "prompt", "decoding", "data", "parser", "tokenizer")
    differing = [name for name in names if first.get(name) != second.get(name)]
    judges = [
        {key: run.get("judge", {}).get(key) for key in ("model", "temperature", "prompt_version")}
        for run in (first, second)
    ]
    return differing + (["judge"] if judges[0] != judges[1] else [])


def as_markdown(result: dict) -> str:
    lines = [
        f"## {result['benchmark']}: {result['second']['model']} against {result['first']['model']}",
        "",
        "| | items | first | second | difference | 95 % interval | wins | losses | p |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, row in {**result["by_type"], "all": result["all"]}.items():
        p = row.get("p_mcnemar", row["p_bootstrap"])
        lines.append(
            f"| {kind} | {row['items']} | {row['first']:.2f} | {row['second']:.2f} | {row['difference']:+.2f} | "
            f"{interval_words(row['interval_95'], '+.2f')} | {row['wins']} | {row['losses']} | {p:.3f} |"
        )
    test = "McNemar's exact test" if result["benchmark"].endswith("Q") else "the paired bootstrap"
    lines += ["", f"p is from {test}. first: {result['first']['folder']}; second: {result['second']['folder']}."]
    if result["differing_settings"]:
        lines.append(f"**Not only the model differs: {', '.join(result['differing_settings'])}.**")
    missing = len(result["only_in_first"]) + len(result["only_in_second"])
    if missing:
        lines.append(f"**{missing} item(s) were scored in one run alone and are left out.**")
    changed = ", ".join(f"{c['id']} ({c['first']:g} to {c['second']:g})" for c in result["changed"])
    lines += ["", f"Items that changed: {changed or 'none'}."]
    return "\n".join(lines) + "\n"
