"""VideoRefer-Bench-Q: multiple-choice questions about named objects, asked and scored."""

import json
from pathlib import Path

from swim.data.settings import DataSettings
from swim.eval.items import ItemFile, as_question, today
from swim.eval.published import BENCH_Q
from swim.eval.scores_q import score_items, summarise
from swim.files import write_atomically
from swim.infer.answering import Answering, answer_with_all
from swim.infer.remote import server_notes
from swim.prompts import BENCH_Q_PROMPT


def evaluate(
    how: Answering,
    models: dict[Path, str],
    settings: DataSettings,
    file: ItemFile,
    parser: str = "strict",
    prompt: str = BENCH_Q_PROMPT,
) -> dict[Path, dict]:
    """The report of each model by its folder; {} on every process but the first.

    models: by the folder of answers and report. settings: how videos are read. file: items of `parse_bench_q`.
    parser: one of swim.eval.letters.PARSERS. prompt: with {question} and {options}.

    Raises ValueError when a folder holds another evaluation, swim.llm.ServiceRefuses when the server gives up.
    """
    questions = [as_question(key, item, item.prompt(prompt)) for key, item in file.items.items()]
    answers = answer_with_all(how, models, settings, file, questions, prompt)
    return {
        folder: write_report(folder, file, score_items(file.items, given, parser), parser)
        for folder, given in answers.items()
    }


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
