"""The command on real demo clips: a report, a resumed run, and a comparison."""

import json

import pytest

from swim.cli import main
from swim.demo.model import build_tiny_model

from .conftest import read_lines

pytest.importorskip("pycocoevalcap")


def test_captions_are_answered_scored_and_compared(benches, small, tmp_path, capsys, monkeypatch):
    other = build_tiny_model(tmp_path / "other", seed=1)
    _, first, *rest = small("--questions", str(benches.captions), "--output", str(tmp_path / "out"))
    command = ["captions", "--model", first, str(other), *rest]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "CIDEr" in shown and "other - " in shown and "0 " in shown
    truth = json.loads(benches.captions.read_text())
    folders = sorted(path.parent for path in (tmp_path / "out").glob("*/report.json"))
    assert len(folders) == 2
    for folder in folders:
        report, items = json.loads((folder / "report.json").read_text()), read_lines(folder / "items.jsonl")
        assert report["benchmark"] == "captions" and report["items"] == 3 and report["unanswered"] == 0
        assert {item["id"]: item["references"] for item in items} == {k: [v["English"]] for k, v in truth.items()}
        assert all(item["question"].startswith("Please describe the ") for item in items)
        assert report["metrics"]["CIDEr"]["value"] == pytest.approx(
            sum(item["scores"]["CIDEr"] for item in items) / 3, abs=0.01
        )
    compared = json.loads((tmp_path / "out/compare.json").read_text())
    assert compared[0]["all"]["items"] == 3 and compared[0]["differing_settings"] == []
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java any more: scored otherwise, and said; nothing is asked again
    asked = (folders[0] / "answers.jsonl").read_bytes()
    assert main(command) == 0 and "no Java here" in capsys.readouterr().out
    assert (folders[0] / "answers.jsonl").read_bytes() == asked


def test_a_video_that_is_not_there_scores_nothing_and_is_told(benches, small, tmp_path, capsys):
    content = json.loads(benches.captions.read_text())
    content["clips/held_out/none.mp4"] = {"English": "A dog barks."}
    path = benches.captions.with_name("more.json")
    path.write_text(json.dumps(content))
    assert main(["captions", *small("--questions", str(path), "--output", str(tmp_path))]) == 1
    assert json.loads((tmp_path / "report.json").read_text())["unanswered"] == 1
    assert read_lines(tmp_path / "items.jsonl")[-1]["scores"]["CIDEr"] == 0


def test_without_the_scorer_nothing_is_answered(benches, small, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocoevalcap", None)
    assert main(["captions", *small("--questions", str(benches.captions), "--output", str(tmp_path / "out"))]) == 2
    assert "pip install -e 'driver[captions]'" in capsys.readouterr().err and not (tmp_path / "out").exists()
