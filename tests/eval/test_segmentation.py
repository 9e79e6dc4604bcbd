"""Masks from attention: thresholds that are learnt elsewhere, means by hand, and the command on tiny models."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from swim.attention.grounding import THRESHOLDS
from swim.attention.segmentation import Segmented, true_masks
from swim.cli import main
from swim.data.bench import parse_annotated
from swim.data.root import DataRoot
from swim.demo.clips import make_demo_data
from swim.demo.model import build_tiny_model
from swim.eval.segmentation import MAPS, SCORES, choose_threshold, compare, score_masks, summarise
from swim.infer.questions import ItemFile

BUDGET = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "28224"]


def curve(best: float) -> list[float]:
    """J by threshold with its peak there."""
    return [1 - abs(threshold - best) for threshold in THRESHOLDS]


def scored(*values: float, threshold: float = 0.5) -> dict:
    return {"threshold": threshold, "objects": [dict.fromkeys(SCORES, value) for value in values]}


def test_the_threshold_is_the_best_over_objects():
    assert choose_threshold({"a": {"iou": [curve(0.3)]}, "b": {"iou": [curve(0.3), curve(0.9)]}}) == 0.3
    with pytest.raises(ValueError, match="no threshold can be learnt"):
        choose_threshold({"a": {"iou": []}})


def test_means_are_over_objects_and_differences_over_records_that_both_have():
    first = {"a": scored(0.2, 0.4), "b": scored(0.9), "c": scored()}
    summary = summarise(first)
    assert summary["scores"]["J"]["value"] == pytest.approx((0.2 + 0.4 + 0.9) / 3) and summary["objects"] == 3
    assert summary["records"] == 2 and summary["thresholds"] == [0.5]
    second = {"a": scored(0.4, 0.6), "b": scored(0.9), "d": scored(0.0)}
    found = compare(first, second)["J&F"]
    assert found["value"] == pytest.approx(0.4 / 3, abs=1e-4) and found["interval_95"][0] <= found["value"]
    assert compare(first, {"c": scored(0.5)}) == {}
    with pytest.raises(ValueError, match="nothing to score"):
        summarise({"c": scored()})


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    """(two tiny models, a file of annotated records)."""
    folder = tmp_path_factory.mktemp("segmentation")
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(str(build_tiny_model(folder / f"model{seed}", seed=seed)))
    data = make_demo_data(folder / "clips", train_clips=0, held_out_clips=5, workers=1)
    return models, str(data.held_out_json)


def test_the_command_compares_models_and_resumes(setting, tmp_path, capsys):
    models, data = setting
    command = ["segmentation", "--model", *models, "--data", data, "--output", str(tmp_path), *BUDGET]
    assert main(command) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["models"]) == {"model0", "model1"} and report["differences"][0]["second"] == "model1"
    for entry in report["models"].values():
        scores = {name: entry["scores"][name]["value"] for name in SCORES}
        assert entry["records"] == 5 and all(0 <= value <= 1 for value in scores.values())
        assert scores["J&F"] == pytest.approx((scores["J"] + scores["F"]) / 2, abs=1e-3)
        assert 0.02 < scores["whole_frame_J"] < 0.3
    assert "J&F" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    assert main(command) == 0 and len(before) == 10
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    assert json.loads((tmp_path / "report.json").read_text())["models"] == report["models"]


def test_a_threshold_from_another_report_is_used_for_all(setting, tmp_path, capsys):
    models, data = setting
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"models": {"model0": {"best_threshold": 0.85}}}))
    command = ["segmentation", "--model", models[0], "--data", data, "--output", str(tmp_path / "out"), *BUDGET]
    assert main([*command, "--threshold_from", str(path)]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["models"]["model0"]["thresholds"] == [0.85]
    path.write_text(json.dumps({"models": {"another": {"best_threshold": 0.85}}}))
    assert main([*command, "--threshold_from", str(path)]) == 2
    assert "with model0" in capsys.readouterr().err


def test_a_map_that_is_the_mask_scores_one_and_learns_its_threshold_from_the_others(setting, tmp_path):
    path = Path(setting[1])
    raws = json.loads(path.read_text())[:2]
    root = DataRoot(path.parent)
    file = ItemFile(path, "", {str(n): parse_annotated(raw, "here", root) for n, raw in enumerate(raws)})
    (tmp_path / MAPS).mkdir()
    for number, record in enumerate(file.items.values()):
        frames = record.annotated_frames[:2]
        found = Segmented([0, 0], frames, torch.empty(2, 1, 1), *record.instances[0][frames[0]]["size"])
        heats = [torch.from_numpy(mask).float() for mask in true_masks(found, record.instances)]
        assert not torch.equal(*heats) and all(0 < heat.mean() < 0.5 for heat in heats)  # the object moves
        torch.save(asdict(replace(found, maps=torch.stack(heats))), tmp_path / MAPS / f"{number}.pt")
    # the first record would want 0.3 and the second 0.9: each is cut where the other one wants it
    scores = {"0": {"iou": [curve(0.3)]}, "1": {"iou": [curve(0.9)]}}
    learnt = score_masks(scores, file, tmp_path, None)
    assert [values["threshold"] for values in learnt.values()] == [0.9, 0.3]
    [only] = learnt["0"]["objects"]
    assert {name: only[name] for name in SCORES[:-1]} == dict.fromkeys(SCORES[:-1], 1.0)
    assert [values["threshold"] for values in score_masks(scores, file, tmp_path, 0.5).values()] == [0.5, 0.5]
