"""VideoRefer-Bench-D: descriptions, graded by a judge, and the report."""

import json
import statistics
from pathlib import Path

from tqdm import tqdm

from swim.concurrently import run_concurrently
from swim.data.bench import BenchD
from swim.data.settings import DataSettings
from swim.eval.items import ItemFile, as_question, today
from swim.eval.judge import PROMPT_VERSION, Case, judge
from swim.eval.published import BENCH_D
from swim.eval.scores_d import make_cases, summarise
from swim.eval.stats import rounded
from swim.files import write_atomically
from swim.infer.answering import Answering, answer_with_all
from swim.infer.answers import AnswerStore
from swim.infer.remote import server_notes
from swim.llm import Asker, AskFailed, Endpoint
from swim.reply_cache import ReplyCache


def describe(how: Answering, models: dict[Path, str], settings: DataSettings, file: ItemFile) -> dict[Path, list[Case]]:
    """What a judge will see of each model by its folder; {} on every process but the first.

    models: by the folder of answers and report. settings: how videos are read. file: items of `parse_bench_d`.

    Raises ValueError when a folder holds another evaluation, swim.llm.ServiceRefuses when the server gives up.
    """
    questions = [as_question(key, item, item.question) for key, item in file.items.items()]
    answers = answer_with_all(how, models, settings, file, questions, "the item's own question")
    return {folder: make_cases(file.items, given) for folder, given in answers.items()}


def grade(
    cases: dict[Path, list[Case]], file: ItemFile, endpoint: Endpoint, replies: Path, min_coverage: float = 1.0
) -> dict[Path, dict]:
    """The report of each model by its folder. Its counts of requests and costs hold those of the models before it too,
    as the endpoint's limits hold for all together.

    replies: SQLite file of the judge's replies. min_coverage: share of the items that must be judged for a mean.

    Raises swim.llm.ServiceRefuses when the judge will answer nothing more; what was graded is kept.
    """
    asker = Asker(endpoint, ReplyCache(replies))
    reports = {}
    for folder, some in cases.items():
        scores, failures = judge_all(some, asker, folder)
        summary = summarise(file.items, scores, failures, min_coverage)
        reports[folder] = write_report(folder, file.items, scores, summary, endpoint, asker)
    return reports


def judge_all(cases: list[Case], asker: Asker, folder: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """(scores by id, reasons of failure by id). Scores are kept in `folder` as they come.

    Raises swim.llm.ServiceRefuses when the judge will answer nothing more; what was graded is kept.
    """
    endpoint = asker.endpoint
    settings = {"judge": endpoint.model, "temperature": endpoint.temperature, "prompt_version": PROMPT_VERSION}
    store = AnswerStore[dict](folder / "judge", settings)
    predictions = {case.id: case.prediction for case in cases}
    still_open = [case for case in cases if store.answers.get(case.id, {}).get("prediction") != case.prediction]

    def graded_entry(case: Case) -> dict:
        try:
            return {"id": case.id, "answer": {"scores": judge(case, asker), "prediction": case.prediction}}
        except AskFailed as error:
            return {"id": case.id, "error": str(error)}

    failures = {}
    graded = run_concurrently(still_open, graded_entry, endpoint.concurrency)
    bar = tqdm(graded, total=len(still_open), desc=f"judging ({endpoint.model})", unit="item")
    for case, entry in bar:
        store.add([entry])
        if "error" in entry:
            failures[case.id] = entry["error"]
        means = [statistics.mean(kept["scores"].values()) for kept in store.answers.values()]
        bar.set_postfix(mean=f"{statistics.mean(means):.2f}" if means else "-", failed=len(failures))
    scores = {
        key: kept["scores"]
        for key, kept in store.answers.items()
        if kept["prediction"] == predictions.get(key) and key not in failures
    }
    return scores, failures


def write_report(
    folder: Path, items: dict[str, BenchD], scores: dict, summary: dict, endpoint: Endpoint, asker: Asker
) -> dict:
    """Writes scores.jsonl and report.json; returns the report."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    report = {
        "benchmark": "VideoRefer-Bench-D",
        "date": today(),
        "judge": {
            "model": endpoint.model,
            "base_url": endpoint.base_url,
            "temperature": endpoint.temperature,
            "adaptations": asker.adaptations,
            "prompt_version": PROMPT_VERSION,
            "requests": asker.requests,
            "prompt_tokens": asker.prompt_tokens,
            "completion_tokens": asker.completion_tokens,
            "usd": rounded(asker.usd),
        },
        **summary,
        **settings,
        **server_notes(folder),
        "published": [vars(entry) for entry in BENCH_D],
    }
    lines = [json.dumps({"id": key, "scores": scores[key]}) + "\n" for key in items if key in scores]
    write_atomically(folder / "scores.jsonl", "".join(lines))
    write_atomically(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report
