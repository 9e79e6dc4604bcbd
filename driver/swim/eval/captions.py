"""Captions of named objects: answered, scored against references, and the report."""

import json
from pathlib import Path

from swim.data.settings import DataSettings
from swim.eval.items import today
from swim.eval.scores_captions import BENCHMARK, check_scorer, score_captions
from swim.files import write_atomically
from swim.infer.answering import Answering, answer_with_all
from swim.infer.answers import Question
from swim.infer.questions import ItemFile
from swim.infer.remote import server_notes


def evaluate(
    how: Answering, models: dict[Path, str], settings: DataSettings, file: ItemFile, prompt: str
) -> dict[Path, dict]:
    """The report of each model by its folder; {} on every process but the first.

    models: by the folder of answers and report. settings: how videos are read. file: of `read_captions`. prompt: with
    {subject} and {visual}, or without.

    Raises ValueError when a folder holds another evaluation, DataError for an item that the prompt cannot name, NoScorer,
    swim.llm.ServiceRefuses when the server gives up.
    """
    check_scorer()
    questions = [Question(key, item.asked(prompt)) for key, item in file.items.items()]
    answers = answer_with_all(how, models, settings, file, questions, prompt)
    return {folder: write_report(folder, file, questions, given) for folder, given in answers.items()}


def write_report(folder: Path, file: ItemFile, questions: list[Question], answers: dict[str, str]) -> dict:
    """Writes items.jsonl and report.json; returns the report. An item without an answer scores 0."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    references = {key: item.references for key, item in file.items.items()}
    scores = score_captions(references, answers)
    report = {
        "benchmark": BENCHMARK,
        "date": today(),
        "tokenizer": scores.tokenizer,
        "items": len(references),
        "unanswered": sum(answers.get(key) is None for key in references),
        "metrics": scores.corpus,
        **settings,
        **server_notes(folder),
    }
    lines = [
        {
            "id": question.id,
            "question": question.record.turns[0].text,
            "answer": answers.get(question.id),
            "references": references[question.id],
            "scores": scores.items[question.id],
        }
        for question in questions
    ]
    write_atomically(folder / "items.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_atomically(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report
