"""Bench-Q from the file to the report, on real clips."""

import json
import sys

import pytest

from swim.cli import bench_q
from swim.data.bench import parse_bench_q
from swim.demo.model import build_tiny_model
from swim.eval import scores_q
from swim.eval.items import read_items

from ..chat_server import ChatServer
from ..killing import run_killed
from .conftest import read_lines

KINDS = [
    "Basic Questions",
    "Future Predictions",
    "Reasoning Questions",
    "Relationship Questions",
    "Sequential Questions",
]


def test_every_item_is_answered_and_reported(benches, small, tmp_path, capsys):
    options = small("--questions", str(benches.bench_q), "--output", str(tmp_path / "q"))
    assert bench_q.main(options) == 0
    report = json.loads((tmp_path / "q" / "report.json").read_text())
    assert report["items"] == report["questions"]["items"] == 15 and report["unanswered"] == 0
    assert sorted(report["by_type"]) == KINDS and all(kind["items"] == 3 for kind in report["by_type"].values())
    assert report["questions"]["file"] == "bench_q.json" and len(report["questions"]["sha256"]) == 64
    assert (
        report["parser"] == "strict"
        and report["decoding"]["greedy"]
        and report["data"]["keep_annotated_frames"] is False
    )
    assert [entry["id"] for entry in read_lines(tmp_path / "q" / "answers.jsonl")] == [str(n) for n in range(15)]
    items = read_lines(tmp_path / "q" / "items.jsonl")
    assert report["micro"] == pytest.approx(100 * sum(item["right"] for item in items) / 15, abs=1e-3)
    table = capsys.readouterr().out
    assert all(kind in table for kind in KINDS) and "published" not in table  # of 15 other items they would say nothing

    # Again: nothing is answered, another parser may be tried on the same answers; another question file is refused.
    before = (tmp_path / "q" / "answers.jsonl").read_text()
    assert bench_q.main([*options, "--parser", "released", "--published"]) == 0
    table = capsys.readouterr().out
    assert "SWIM-7B, published" in table and "78.3" in table
    assert (tmp_path / "q" / "answers.jsonl").read_text() == before
    assert bench_q.main([*options, "--limit", "3"]) == 2
    assert "holds another evaluation; different: questions" in capsys.readouterr().err


def test_models_stand_side_by_side(benches, small, tiny_model_dir, tmp_path, capsys):
    other = build_tiny_model(tmp_path / "other", seed=1)
    options = [*small()[2:], "--questions", str(benches.bench_q), "--output", str(tmp_path / "q")]
    models = ["--model", str(other), str(tiny_model_dir)]
    assert bench_q.main([*models, *options]) == 0
    table = capsys.readouterr().out
    last = tiny_model_dir.name
    assert all(word in table for word in ("other", last, "chance", "25.0", *KINDS)) and "published" not in table
    (result,) = json.loads((tmp_path / "q" / "compare.json").read_text())
    reports = {name: json.loads((tmp_path / "q" / name / "report.json").read_text()) for name in ("other", last)}
    assert (result["first"]["model"], result["second"]["model"]) == (str(other), str(tiny_model_dir))
    difference = reports[last]["micro"] - reports["other"]["micro"]
    assert result["all"]["difference"] == pytest.approx(difference, abs=1e-3) and not result["differing_settings"]

    assert bench_q.main(["--model", str(other), str(other), *options]) == 2
    assert "expected different models" in capsys.readouterr().err


def test_answers_of_weights_that_were_trained_anew_are_not_taken_for_todays(benches, small, tmp_path, capsys):
    model = build_tiny_model(tmp_path / "model")
    options = [*small()[2:], "--questions", str(benches.bench_q), "--output", str(tmp_path / "q"), "--limit", "2"]
    assert bench_q.main(["--model", str(model), *options]) == 0
    build_tiny_model(model, seed=1)
    assert bench_q.main(["--model", str(model), *options]) == 2
    assert "holds another evaluation; different: weights" in capsys.readouterr().err


def test_prompt_and_scores_are_exact(benches):
    file = read_items(benches.bench_q, None, parse_bench_q)
    item = next(iter(file.items.values()))
    text = item.prompt()
    assert text.startswith(item.question + "\n(A) ") and text.count("\n") == 5
    assert text.endswith("\nAnswer with the option's letter from the given choices directly.")
    answers = {key: item.answer for key, item in file.items.items()}
    answers["3"], answers["4"] = "no idea", "(A) or (B)"
    del answers["7"]
    scored = scores_q.score_items(file.items, answers)
    summary = scores_q.summarise(scored)
    assert summary["micro"] == pytest.approx(100 * 12 / 15) and summary["unparsed"] == 2 and summary["unanswered"] == 1
    wrong = {entry["id"] for entry in scored if not entry["right"]}
    assert wrong == {"3", "4", "7"}
    kinds = summary["by_type"]
    assert summary["macro"] == pytest.approx(sum(kind["accuracy"] for kind in kinds.values()) / 5, abs=1e-3)


def test_a_video_that_cannot_be_read_is_named_not_lost(benches, small, tmp_path, capsys):
    raws = json.loads(benches.bench_q.read_text())[:4]
    raws[1]["video"] = "none.mp4"
    questions = benches.bench_q.parent / "broken.json"
    questions.write_text(json.dumps(raws))
    options = small("--questions", str(questions), "--output", str(tmp_path / "q"))
    assert bench_q.main(options) == 1
    report = json.loads((tmp_path / "q" / "report.json").read_text())
    assert (report["items"], report["unanswered"]) == (4, 1)
    parts = (tmp_path / "q" / "parts" / "00000.jsonl").read_text()
    assert "no such video" in parts and "none.mp4" in parts
    assert "1 of 4 items are unanswered" in capsys.readouterr().out


BAD_FILES = {
    "missing": (None, "no such file"),
    "malformed": ("[{", "malformed JSON"),
    "no list": ("{}", "expected a JSON list of items"),
    "id twice": (lambda raws: raws + raws[:1], "the id '0' is given twice"),
    "no options": (lambda raws: [{**raws[0], "options": []}], "options"),
    "unknown answer": (lambda raws: [{**raws[0], "Answer": "(Z)"}], "Answer"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_clear_line(benches, small, tmp_path, name, capsys):
    content, message = BAD_FILES[name]
    path = tmp_path / "questions.json"
    if content is not None:
        raws = json.loads(benches.bench_q.read_text())
        path.write_text(content if isinstance(content, str) else json.dumps(content(raws)))
    assert bench_q.main(small("--questions", str(path), "--output", str(tmp_path / "q"))) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}") and message in error and len(error.splitlines()) == 1


def test_an_openai_server_answers_too(benches, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with ChatServer(lambda request: "The answer is (A).") as server:
        options = ["--backend", "openai", "--base_url", server.url, "--model", "some/model", "--max_frames", "2"]
        options += ["--min_pixels", "784", "--max_pixels", "28224", "--questions", str(benches.bench_q)]
        assert bench_q.main([*options, "--output", str(tmp_path / "q")]) == 0
        content = server.requests[0]["messages"][1]["content"]
        assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
        assert (
            content[0]["image_url"]["url"].startswith("data:image/jpeg;base64,") and "<ins>" not in content[2]["text"]
        )
        assert len(server.requests) == 15
        assert bench_q.main([*options, "--output", str(tmp_path / "q")]) == 0
        assert len(server.requests) == 15
    letters = [item["letter"] for item in read_lines(tmp_path / "q" / "items.jsonl")]
    assert letters == ["A"] * 15


@pytest.mark.slow
def test_killed_runs_end_in_the_same_files(benches, small, tmp_path):
    """Two processes; killed ten times, the answers and the report are those of an undisturbed run.

    A single kill is tests/infer/test_infer.py: the answers are stored alike.
    """
    raws = json.loads(benches.bench_q.read_text())
    questions = benches.bench_q.parent / "many.json"
    questions.write_text(json.dumps([{**raw, "id": f"{n}-{raw['id']}"} for n in range(11) for raw in raws]))
    options = small("--questions", str(questions), "--batch_size", "2", "--output")
    assert bench_q.main([*options, str(tmp_path / "whole")]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "swim", "bench-q", *options, str(tmp_path / "broken")]
    run_killed(command, tmp_path / "broken" / "parts", kills=10)
    for name in ("answers.jsonl", "items.jsonl", "report.json"):
        assert (tmp_path / "broken" / name).read_text() == (tmp_path / "whole" / name).read_text(), name


def test_real_questions_are_all_answered(test_data, real_processor_dir, tmp_path):
    questions = test_data / "nl_refer_real" / "bench_q.json"
    budget = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "78400", "--max_new_tokens", "4"]
    options = ["--model", str(real_processor_dir), "--questions", str(questions), "--video_root", str(test_data)]
    assert bench_q.main([*options, *budget, "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["items"], report["unanswered"]) == (3, 0)
