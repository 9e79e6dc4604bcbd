"""VideoRefer-Bench-Q: the report of an evaluation."""

import json
from pathlib import Path

from swim.eval.items import ItemFile, today
from swim.eval.published import BENCH_Q
from swim.eval.scores_q import summarise
from swim.files import write_atomically
from swim.infer.remote import server_notes


def write_report(folder: Path, file: ItemFile, scored: list[dict], parser: str) -> dict:
    """Writes items.jsonl and report.json; returns the report."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    report = {
        "benchmark": "VideoRefer-Bench-Q",
        "date": today(),
        "parser": parser,
        **summarise(scored),
        **settings,
        **server_notes(folder),
        "published": [vars(entry) for entry in BENCH_Q],
    }
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in scored)
    write_atomically(folder / "items.jsonl", lines)
    write_atomically(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report
