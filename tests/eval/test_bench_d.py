"""Bench-D: descriptions, a misbehaving judge over real HTTP, and a mean that never moves in silence."""

import json
import random
import sys

import pytest

from swim.cli import bench_d, compare
from swim.data.bench import parse_bench_d
from swim.demo.model import build_tiny_model
from swim.eval.judge import DIMENSIONS
from swim.eval.scores_d import make_cases

from ..chat_server import Answer, ChatServer
from ..killing import run_killed
from .conftest import read_lines

GOOD = dict(zip(DIMENSIONS, (4, 3, 2, 5)))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


@pytest.fixture
def options(benches, small, tmp_path):
    """Function: options of a run whose judge is a server, with short waits."""

    def make(server, output="d", questions=benches.bench_d, **more):
        judge = {"judge": "j", "judge_base_url": server.url, "judge_backoff_s": 0.01, "judge_timeout_s": 2, **more}
        flags = [part for name, value in judge.items() for part in (f"--{name}", str(value))]
        return small("--questions", str(questions), "--output", str(tmp_path / output), *flags)

    return make


@pytest.fixture
def many(benches):
    """A file of 12 items."""
    raws = json.loads(benches.bench_d.read_text())
    path = benches.bench_d.parent / "many.json"
    path.write_text(json.dumps([{**raws[n % len(raws)], "id": n} for n in range(12)]))
    return path


def number_of(request: dict, known: list) -> int:
    """Which item the judge is asked about; its question is the same for repeated ones, so its order of arrival."""
    text = json.dumps(request["messages"][:2])
    if text not in known:
        known.append(text)
    return known.index(text)


def test_a_run_from_the_items_to_the_report(options, tmp_path, capsys):
    with ChatServer(lambda request: json.dumps(GOOD)) as server:
        assert bench_d.main(options(server)) == 0
        assert len(server.requests) == 3 and server.requests[0]["temperature"] == 0
        assert "published" not in capsys.readouterr().out  # of 3 other items the paper's numbers would say nothing
        assert bench_d.main([*options(server), "--published"]) == 0
        assert len(server.requests) == 3  # nothing is paid for twice
        for request in server.requests:
            assert "<ins>" not in json.dumps(request)
    report = json.loads((tmp_path / "d" / "report.json").read_text())
    assert report["dimensions"] == GOOD and report["mean"] == 3.5 and report["coverage"] == 1.0
    judge = report["judge"]
    assert (judge["model"], judge["temperature"], judge["prompt_version"], judge["base_url"]) == (
        "j",
        0.0,
        "1",
        server.url,
    )
    assert report["date"] and report["mean_interval_95"] == [3.5, 3.5] and report["failed"] == {}
    assert [entry["id"] for entry in read_lines(tmp_path / "d" / "scores.jsonl")] == ["0", "1", "2"]
    printed = capsys.readouterr().out
    assert "SWIM-7B, published" in printed and "3.78" in printed and "about" in printed and "tokens" in printed
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "sk-secret" not in printed and not any(b"sk-secret" in path.read_bytes() for path in files)


def test_a_dry_run_asks_nobody(options, tmp_path, capsys):
    with ChatServer(lambda request: "never") as server:
        flags = options(server) + ["--dry_run", "--usd_per_million", "2.5", "10"]
        assert bench_d.main(flags) == 0
        assert server.requests == []
    assert "judging 3 items with j: about" in capsys.readouterr().out
    assert len(read_lines(tmp_path / "d" / "answers.jsonl")) == 3 and not (tmp_path / "d" / "report.json").exists()


# What the judge does to every question, and whether a score or which failure comes of it.
FAULTS = {
    "429 with Retry-After": (lambda n: Answer(status=429, headers={"Retry-After": "0"}) if n < 2 else None, None),
    "500": (lambda n: Answer(status=500) if n < 2 else None, None),
    "always 500": (lambda n: Answer(status=500), "HTTP 500: no"),
    "hangs once": (lambda n: Answer(hang_s=3) if n < 1 else None, None),
    "cuts the connection": (lambda n: Answer(cut=True) if n < 2 else None, None),
    "prose": (lambda n: Answer("A fine description."), "no usable reply in 3 attempts: no score for"),
    "bold Markdown": (lambda n: Answer("\n".join(f"**{k}**: {v}" for k, v in GOOD.items())), None),
    "seven": (
        lambda n: Answer(json.dumps(GOOD | {DIMENSIONS[0]: 7})),
        "Subject Correspondence is 7, not a whole number",
    ),
    "a half": (lambda n: Answer(json.dumps(GOOD | {DIMENSIONS[0]: 4.5})), "Subject Correspondence is 4.5"),
    "an empty body": (lambda n: Answer(body=b""), "expected JSON, found an empty body"),
    "another language": (lambda n: Answer("Sehr gut beschrieben: vier von fünf."), "no usable reply"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_ends_in_a_score_or_a_named_failure(options, tmp_path, name, capsys):
    """The fault strikes the first item that comes; the others are judged as usual."""
    fault, failure = FAULTS[name]
    known, tries = [], [0]

    def behave(request):
        if number_of(request, known) == 0:
            answer = fault(tries[0])
            tries[0] += 1
            return answer if answer is not None else json.dumps(GOOD)
        return json.dumps(GOOD)

    with ChatServer(behave) as server:
        status = bench_d.main(options(server, judge_concurrency=1))
        report = json.loads((tmp_path / "d" / "report.json").read_text())
        if failure is None:
            assert status == 0 and report["mean"] == 3.5 and report["failed"] == {}
            return
        assert status == 1 and report["mean"] is None and report["judged"] == 2 and list(report["failed"]) == ["0"]
        assert any(part in report["failed"]["0"] for part in failure.split("|")), report["failed"]
        assert "no mean: coverage 0.667 is below --min_coverage 1.0" in capsys.readouterr().out
        assert bench_d.main(options(server, judge_concurrency=1, min_coverage=0.6)) == 1 - 1
        assert json.loads((tmp_path / "d" / "report.json").read_text())["mean"] == 3.5


def test_a_wrong_key_stops_at_once_and_keeps_what_was_judged(options, many, tmp_path, capsys):
    known = []

    def behave(request):
        return json.dumps(GOOD) if number_of(request, known) < 1 else Answer(status=401)

    with ChatServer(behave) as server:
        assert bench_d.main(options(server, questions=many, judge_concurrency=1)) == 2
        assert len(server.requests) <= 2
    error = capsys.readouterr().err
    assert "error: HTTP 401" in error and "OPENAI_API_KEY" in error and "sk-secret" not in error
    with ChatServer(lambda request: json.dumps(GOOD)) as server:
        assert bench_d.main(options(server, questions=many)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 10])
def test_killed_judging_ends_in_the_same_files_and_pays_once(options, many, tmp_path, kills):
    rng = random.Random(0)

    def behave(request):
        return Answer(json.dumps(GOOD), hang_s=rng.uniform(0.05, 0.4))

    with ChatServer(behave) as server:
        assert bench_d.main(options(server, "whole", many)) == 0
        server.answered.clear()
        command = [sys.executable, "-m", "swim", "bench-d", *options(server, "broken", many, judge_concurrency=2)]
        run_killed(command, tmp_path / "broken" / "judge" / "parts", kills)
        stored = read_lines_of_parts(tmp_path / "broken" / "judge" / "parts")
    for name in ("answers.jsonl", "scores.jsonl"):
        assert (tmp_path / "broken" / name).read_text() == (tmp_path / "whole" / name).read_text(), name
    assert len(stored) == len(set(stored)) == 12  # an item whose score was stored was never judged again
    whole, broken = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "broken"))
    for name in ("mean", "mean_interval_95", "dimensions", "coverage", "failed"):
        assert whole[name] == broken[name]


def read_lines_of_parts(parts) -> list[str]:
    lines = [line for path in sorted(parts.glob("*.jsonl")) for line in path.read_text().split("\n")]
    return [json.loads(line)["id"] for line in lines if line.startswith("{") and line.endswith("}")]


def test_models_stand_side_by_side(options, tiny_model_dir, tmp_path, capsys):
    other = build_tiny_model(tmp_path / "other", seed=1)
    with ChatServer(lambda request: json.dumps(dict.fromkeys(DIMENSIONS, 3))) as server:
        arguments = options(server)
        place = arguments.index("--model")
        arguments[place : place + 2] = ["--model", str(other), str(tiny_model_dir)]
        assert bench_d.main(arguments) == 0
        assert len(server.requests) > 3
        limited = [*arguments, "--output", str(tmp_path / "limited"), "--max_requests", "4"]
        capped = ChatServer(lambda request: json.dumps(dict.fromkeys(DIMENSIONS, 3)))
        with capped:
            limited[limited.index("--judge_base_url") + 1] = capped.url
            bench_d.main(limited)
        assert len(capped.requests) == 4  # in all, not for each model
    table = capsys.readouterr().out
    assert all(word in table for word in ("other", tiny_model_dir.name, "3.00", *DIMENSIONS))
    assert f"{tiny_model_dir.name} - other: +0.00" in table


def test_two_runs_are_compared_item_by_item(options, tmp_path, capsys):
    for output, first in (("a", 1), ("b", 5)):
        with ChatServer(lambda request, first=first: json.dumps(GOOD | {DIMENSIONS[0]: first})) as server:
            assert bench_d.main(options(server, output)) == 0
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b"), "--output", str(tmp_path / "c")]) == 0
    (result,) = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert result["all"]["difference"] == 1.0 and (result["all"]["wins"], result["all"]["losses"]) == (3, 0)
    assert len(result["changed"]) == 3 and result["differing_settings"] == []
    assert "| all | 3 | 2.75 | 3.75 | +1.00 |" in capsys.readouterr().out
    assert compare.main([str(tmp_path / "a")]) == 2
    assert compare.main([str(tmp_path / "a"), str(tmp_path)]) == 2
    assert "holds no report.json" in capsys.readouterr().err


def test_real_items_are_all_described(test_data, real_processor_dir, tmp_path):
    questions = test_data / "nl_refer_real" / "bench_d.json"
    budget = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "78400", "--max_new_tokens", "4"]
    options = ["--model", str(real_processor_dir), "--questions", str(questions), "--video_root", str(test_data)]
    with ChatServer(lambda request: json.dumps(GOOD)) as server:
        judge = ["--judge", "j", "--judge_base_url", server.url]
        assert bench_d.main([*options, *budget, *judge, "--output", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["judged"] == 2


def test_the_judge_does_not_see_what_a_model_thought(tmp_path):
    item = {"id": "1", "video": "a.mp4", "caption": "A dog sits.", "annotation": []}
    items = {"1": parse_bench_d(item, "bench.json, item 0", tmp_path)}
    (case,) = make_cases(items, {"1": "<think>A cat? No, <ins>.</think>\nA <ins>dog</ins> sits."})
    assert case.prediction == "A dog sits."
