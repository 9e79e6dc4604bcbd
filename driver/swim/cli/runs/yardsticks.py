"""The paper's yardsticks for the demo's talking models: Bench-Q, Bench-D and general ability."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from swim.cli.runs.bench_d import print_comparison as print_bench_d
from swim.cli.runs.bench_q import print_comparison as print_bench_q
from swim.cli.runs.demo_defaults import demo_benches
from swim.cli.runs.general import print_reports as print_general
from swim.data.bench import parse_bench_d, parse_bench_q
from swim.data.settings import DataSettings
from swim.demo.bench import Benches
from swim.demo.judge import MODEL, Judge, serving
from swim.eval import bench_d, bench_q, general
from swim.eval.items import read_items
from swim.infer.answering import Answering
from swim.llm import Endpoint
from swim.train.config import TrainConfig

MAX_NEW_TOKENS = 48  # the demo's descriptions have fewer than 40
BATCH_SIZE = 16

Folders = Callable[[str], dict[Path, str]]


def yardsticks(models: dict[str, str], config: TrainConfig, output: Path) -> dict[str, dict]:
    """{"bench_q": {model: {type: accuracy}}, "bench_d": {model: {dimension: score}}, "general": {model: {type: ...}}}.

    models: paths by name. config: of their training. Answers and reports go below `output`, in a folder of each yardstick
    with one of each model, where an interrupted evaluation resumes.
    """
    benches = demo_benches(config.demo)
    settings = replace(config.data_settings, keep_annotated_frames=False, cache_gb=0.0)

    def folders(yardstick: str) -> dict[Path, str]:
        return {output / yardstick / name: path for name, path in models.items()}

    return {
        "bench_q": _bench_q(benches, folders("bench_q"), settings),
        "bench_d": _bench_d(benches, folders("bench_d"), settings),
        "general": _general(benches, folders, settings),
    }


def _bench_q(benches: Benches, models: dict[Path, str], settings: DataSettings) -> dict[str, dict]:
    file = read_items(benches.bench_q, None, parse_bench_q)
    reports = bench_q.evaluate(Answering(MAX_NEW_TOKENS, batch_size=BATCH_SIZE), models, settings, file)
    print_bench_q(reports, file, next(iter(reports)).parent)
    return {
        folder.name: {
            **{kind: score["accuracy"] for kind, score in report["by_type"].items()},
            "micro": report["micro"],
            "macro": report["macro"],
        }
        for folder, report in reports.items()
    }


def _bench_d(benches: Benches, models: dict[Path, str], settings: DataSettings) -> dict[str, dict]:
    file = read_items(benches.bench_d, None, parse_bench_d)
    cases = bench_d.describe(Answering(MAX_NEW_TOKENS, batch_size=BATCH_SIZE), models, settings, file)
    output = next(iter(cases)).parent
    with serving(Judge(benches.bench_d, benches.held_out)) as url:
        reports = bench_d.grade(cases, file, Endpoint(MODEL, url), output / "judge" / "replies.sqlite")
    print_bench_d(reports, output)
    return {folder.name: {**report["dimensions"], "mean": report["mean"]} for folder, report in reports.items()}


def _general(benches: Benches, folders: Folders, settings: DataSettings) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for yardstick, path in (("plain_chat", general.PLAIN_CHAT), ("whole_clips", benches.general)):
        file = read_items(path, None, general.parse_general)
        reports = general.evaluate(folders(yardstick), settings, file, MAX_NEW_TOKENS)
        print_general(reports, next(iter(reports)).parent)
        for folder, report in reports.items():
            found.setdefault(folder.name, {}).update(report["by_type"])
    return found
