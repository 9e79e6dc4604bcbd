"""What the YAML files of the tasks call. Prompts, parser and scores are the driver's own."""

import json
import os
from pathlib import Path

from swim.concurrently import run_concurrently
from swim.data.bench import parse_bench_d, parse_bench_q
from swim.eval.judge import Case, judge
from swim.eval.scores_d import make_cases, summarise
from swim.eval.scores_q import score_items
from swim.eval.scores_q import summarise as summarise_q
from swim.llm import Asker, AskFailed, Endpoint
from swim.reply_cache import ReplyCache


def video(doc: dict) -> list[str]:
    return [doc["video"]]


def text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    return doc["prompt"]


def results_q(doc: dict, results: list[str]) -> dict:
    return {"accuracy": _answered(doc, results)}


def results_d(doc: dict, results: list[str]) -> dict:
    return {"judged_mean": _answered(doc, results)}


def _answered(doc: dict, results: list[str]) -> dict:
    return {"id": doc["id"], "item": doc["item"], "answer": results[0].strip()}


def accuracy(answered: list[dict]) -> float:
    """Micro accuracy in per cent, by the strict parser."""
    items = {entry["id"]: parse_bench_q(json.loads(entry["item"]), entry["id"], ".") for entry in answered}
    return summarise_q(score_items(items, {entry["id"]: entry["answer"] for entry in answered}))["micro"]


def judged_mean(answered: list[dict]) -> float | str:
    """Mean of the four dimensions by the judge $SWIM_JUDGE at $SWIM_JUDGE_BASE_URL.

    Below full coverage it is "refused" instead of a mean over fewer items.
    """
    items = {entry["id"]: parse_bench_d(json.loads(entry["item"]), entry["id"], ".") for entry in answered}
    cases = make_cases(items, {entry["id"]: entry["answer"] for entry in answered})
    endpoint = Endpoint(os.environ.get("SWIM_JUDGE", "gpt-4o-2024-11-20"), os.environ.get("SWIM_JUDGE_BASE_URL"))
    asker = Asker(endpoint, ReplyCache(Path("judge_replies.sqlite")))
    scores: dict[str, dict[str, int]] = {}
    failures: dict[str, str] = {}

    def grade(case: Case) -> dict[str, int] | str:
        try:
            return judge(case, asker)
        except AskFailed as error:
            return str(error)

    for case, graded in run_concurrently(cases, grade, endpoint.concurrency):
        if isinstance(graded, dict):
            scores[case.id] = graded
        else:
            failures[case.id] = graded
    mean = summarise(items, scores, failures, min_coverage=1.0)["mean"]
    return "refused" if mean is None else mean
