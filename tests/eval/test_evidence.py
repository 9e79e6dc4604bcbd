"""Evidence against probability: AUROC by hand, halves that do not know each other, and the commands on a tiny model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from swim.cli import main
from swim.data.root import DataRoot
from swim.demo.bench import write_evidence_items
from swim.demo.clips import make_demo_data
from swim.errors import DataError
from swim.eval.evidence import auroc, best_threshold, cross_fitted, parse_evidence, study

BUDGET = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "28224"]


def test_auroc_counts_pairs():
    supported = np.array([True, True, False, False])
    assert auroc(np.array([3.0, 1.0, 2.0, 0.0]), supported) == pytest.approx(3 / 4)
    assert auroc(np.array([1.0, 1.0, 1.0, 1.0]), supported) == 0.5
    assert auroc(np.array([0.0, 1.0, 2.0, 3.0]), supported) == 0.0
    assert best_threshold(np.array([0.9, 0.6, 0.4, 0.1]), supported) == pytest.approx(0.5)
    assert best_threshold(np.array([0.5] * 4), supported) == 0.5


def test_each_half_is_judged_by_the_fit_of_the_other():
    """What says the opposite in either half misleads both."""
    rng = np.random.default_rng(0)
    half, supported = np.repeat([0, 1], 40), np.tile([True, False], 40)
    features = rng.normal(size=(80, 4)) * 0.1
    features[:, 0] += np.where(half == 0, 1, -1) * np.where(supported, 1, -1)
    assert auroc(cross_fitted(features, supported, half)[half == 0], supported[half == 0]) < 0.05
    features[:, 0] = np.where(supported, 1, -1)
    assert auroc(cross_fitted(features, supported, half), supported) > 0.95


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    data = make_demo_data(tmp_path_factory.mktemp("clips"), train_clips=0, held_out_clips=4, workers=1)
    return write_evidence_items(data.held_out_json)


def test_the_demos_items_are_balanced_and_true(items):
    content, records = (json.loads(path.read_text()) for path in (items, items.with_name("held_out.json")))
    assert len(content) == 6 * len(records)
    by_video = {record["video"]: record["all_objects"] for record in records}
    for item in content:
        there = {thing["phrase"]: thing["pattern"] for thing in by_video[item["video"]]}
        phrase = item["prompt"].split("<ins>")[1].split("</ins>")[0]
        expected = phrase in there if item.get("kind") != "pattern" else there[phrase] == item["word"]
        assert item["supported"] is expected and item.get("word", "") in item.get("answer", "")
    assert sum(item["supported"] for item in content) == len(content) // 2
    assert write_evidence_items(items.with_name("held_out.json")) == items


def test_items_that_do_not_fit_are_named(items):
    good = json.loads(items.read_text())[0]
    root = DataRoot(items.parent)
    assert parse_evidence(good, "here", root).kind == "asked"
    bad = {
        "supported": ({**good, "supported": "yes"}, "supported"),
        "two tags": ({**good, "prompt": "Is <ins>it</ins> a <ins>dog</ins>?"}, "expected one <ins> tag, found 2"),
        "no tag": ({**good, "prompt": "What is it?"}, "expected one <ins> tag, found 0"),
        "another word": ({**good, "answer": "A dog.", "word": "cat"}, "word: expected one of the answer"),
        "no word": ({**good, "answer": "A dog."}, "word: expected one of the answer"),
    }
    for raw, message in bad.values():
        with pytest.raises(DataError, match=message):
            parse_evidence(raw, "here", root)


def test_too_few_videos_are_an_error(items):
    item = parse_evidence(json.loads(items.read_text())[0], "here", DataRoot(items.parent))
    scores = {"features": [0.0] * 4, "probability": -1.0}

    def found(*words: tuple[str, bool]):
        some = {
            str(n): replace(item, record=replace(item.record, path=Path(video)), supported=supported)
            for n, (video, supported) in enumerate(words)
        }
        return study(some, dict.fromkeys(some, scores))["asked"]

    with pytest.raises(ValueError, match="kind 'asked': expected .* found 1 and 0 words of 1 videos; give more items"):
        found(("a", True))
    with pytest.raises(ValueError, match="found 1 and 2 words of 3 videos"):
        found(("a", True), ("b", False), ("c", False))
    with pytest.raises(ValueError, match="found 1 and 1 words of 1 videos"):
        found(("a", True), ("a", False))
    assert found(("a", True), ("a", False), ("b", True), ("b", False))["words"] == 4
    # every second video supports its word: still both sorts in both halves
    assert found(("a", True), ("b", False), ("c", True), ("d", False))["evidence"]["auroc"] == 0.5


def test_the_commands_report_resume_and_flag(tiny_model_dir, items, tmp_path, capsys):
    command = ["evidence", "--model", str(tiny_model_dir), "--items", str(items), "--output", str(tmp_path), *BUDGET]
    assert main(command) == 0
    [(name, entry)] = json.loads((tmp_path / "report.json").read_text())["models"].items()
    assert set(entry["kinds"]) == {"asked", "said", "pattern"}
    for found in entry["kinds"].values():
        assert found["words"] == 8 and found["supported"] == 4 and 0 <= found["evidence"]["auroc"] <= 1
    shown = capsys.readouterr().out
    assert "AUROC" in shown and main(command) == 0
    assert json.loads((tmp_path / "report.json").read_text())["models"] == {name: entry}
    capsys.readouterr()
    video = items.parent / json.loads(items.read_text())[0]["video"]
    ask = [
        "infer",
        "--model",
        str(tiny_model_dir),
        "--video",
        str(video),
        "--prompt",
        "Where is the <ins>red dog</ins>?",
    ]
    ask += ["--max_new_tokens", "8", *BUDGET]
    assert main([*ask, "--evidence", str(tmp_path / name / "evidence.json")]) == 0
    told = capsys.readouterr().err
    assert "  red dog" in told
    other = shutil.copytree(tiny_model_dir, tmp_path / "other")
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    fitted = str(tmp_path / name / "evidence.json")
    assert main(["infer", "--model", str(other), *ask[3:], "--evidence", fitted]) == 2
    assert "says nothing of" in capsys.readouterr().err
    path = tmp_path / "never.json"
    content = json.loads((tmp_path / name / "evidence.json").read_text())
    content["fits"]["asked"]["threshold"] = 1.1
    path.write_text(json.dumps(content))
    assert main([*ask, "--evidence", str(path)]) == 0 and "asked without looking" in capsys.readouterr().err
    assert (
        main([*ask, "--evidence", str(items)]) == 2 and "expected what swim evidence writes" in capsys.readouterr().err
    )
