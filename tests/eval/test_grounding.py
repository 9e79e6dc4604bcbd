"""The grounding command: means and intervals by hand, two models over real clips, what cannot be read, resuming."""

import json
import re

import numpy as np
import pytest
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from swim.attention.grounding import SCORES, THRESHOLDS, score_grounding
from swim.cli import grounding as command
from swim.data.bench import parse_annotated
from swim.data.collator import SwimCollator
from swim.data.settings import DataSettings
from swim.demo.clips import make_demo_data
from swim.demo.model import build_tiny_model
from swim.eval import grounding
from swim.eval.stats import bootstrap_means
from swim.video.clip import VisualBudget

BUDGET = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "28224"]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("demo"), train_clips=0, held_out_clips=6, workers=1).held_out_json


def part(pairs: int, value: float, overlaps: list[float] | None = None, left_out: int = 0) -> dict:
    """What `ground` returns for one kind when every score is `value`."""
    if not pairs:
        return {"pairs": 0, "left_out": left_out}
    scores = {**dict.fromkeys(SCORES, value), "iou": overlaps or [value] * len(THRESHOLDS)}
    return {"pairs": pairs, "left_out": left_out, "chance": 0.25, "maps": {"2": scores, "fused": scores}}


def test_means_are_over_pairs_and_kinds_stay_apart():
    scores = {
        "a": {"question": part(1, 1.0), "answer": part(3, 0.0)},
        "b": {"question": part(3, 0.2), "answer": part(0, 0.0, left_out=2)},
        "c": {"question": part(0, 0.0), "answer": part(0, 0.0)},
    }
    summary = grounding.summarise(scores)
    values = {kind: entry["maps"]["fused"]["pointing"]["value"] for kind, entry in summary.items()}
    assert values == {"question": 0.4, "answer": 0.0, "all": pytest.approx(1.6 / 7, abs=1e-4)}
    counts = {
        kind: [entry[n] for n in ("records", "records_without_pairs", "pairs", "left_out")]
        for kind, entry in summary.items()
    }
    assert counts == {"question": [2, 1, 4, 0], "answer": [1, 2, 3, 2], "all": [2, 1, 7, 2]}
    assert summary["question"]["maps"]["2"] == summary["question"]["maps"]["fused"]


def test_the_best_threshold_is_one_for_the_whole_file():
    places = {name: THRESHOLDS.index(name) for name in (0.2, 0.5, 0.8)}
    first, second = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    first[[places[0.2], places[0.5]]] = 0.9, 0.3
    second[[places[0.8], places[0.5]]] = 0.7, 0.1
    scores = {
        name: {"question": part(2, 1.0, list(o)), "answer": part(0, 0)} for name, o in (("a", first), ("b", second))
    }
    found = grounding.summarise(scores)["question"]["maps"]["fused"]
    assert (found["miou_fixed"]["value"], found["miou_fixed"]["threshold"]) == (0.2, 0.5)
    assert (found["miou_best"]["value"], found["miou_best"]["threshold"]) == (0.45, 0.2)


def test_nothing_to_score_has_counts_and_no_means():
    summary = grounding.summarise({"a": {"question": part(0, 0, left_out=3), "answer": part(0, 0)}})
    assert summary["question"] == {"records": 0, "records_without_pairs": 1, "pairs": 0, "left_out": 3}


def test_differences_are_paired_over_common_records():
    rng = np.random.default_rng(0)
    level = rng.random(200)
    first = {str(n): {"question": part(2, v), "answer": part(0, 0)} for n, v in enumerate(level)}
    second = {str(n): {"question": part(2, v + 0.1), "answer": part(0, 0)} for n, v in enumerate(level[:150])}
    found = grounding.compare(first, second)
    assert found["question"]["records"] == 150 and "answer" not in found
    assert found["question"]["pointing"] == {"difference": 0.1, "interval_95": [0.1, 0.1]}


def test_weighted_intervals_equal_the_plain_ones_and_heavy_records_widen_them():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 1))
    equal = bootstrap_means(values, np.full(400, 3.0))
    half = 1.96 * values.std() / 20
    assert equal.value[0] == pytest.approx(values.mean())
    assert equal.low[0] == pytest.approx(values.mean() - half, abs=0.01)
    assert equal.high[0] == pytest.approx(values.mean() + half, abs=0.01)
    heavy = bootstrap_means(values, np.r_[np.full(20, 100.0), np.full(380, 1.0)])
    assert heavy.high[0] - heavy.low[0] > 2 * (equal.high[0] - equal.low[0])
    alone = bootstrap_means(np.array([[2.0]]), np.array([5.0]))
    assert (alone.value[0], alone.low[0], alone.high[0]) == (2.0, 2.0, 2.0)


def test_two_models_over_real_clips(tiny_model_dir, tmp_path, held_out, capsys):
    other = build_tiny_model(tmp_path / "other", seed=5)
    options = ["--model", str(tiny_model_dir), str(other), "--data", str(held_out), *BUDGET, "--layers", "0", "3"]
    assert command.main([*options, "--output", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_dir).eval()
    model.config.attention_supervision = {"layers": [0, 3]}
    settings = DataSettings(VisualBudget(max_frames=4, min_pixels=784, max_pixels=28224))
    collator = SwimCollator(AutoProcessor.from_pretrained(tiny_model_dir), model.config, settings)
    records = [parse_annotated(raw, "r", held_out.parent) for raw in json.loads(held_out.read_text())]
    expected = score_grounding(model, collator, [collator.read(record) for record in records], batch_size=1)
    found = report["models"][tiny_model_dir.name]["scores"]["all"]
    assert list(found["maps"]) == ["0", "3", "fused"] and found["pairs"] == expected.pairs
    assert found["maps"]["fused"]["pointing"]["value"] == pytest.approx(expected.pointing, abs=1e-4)
    assert found["maps"]["fused"]["inside"]["value"] == pytest.approx(expected.inside, abs=1e-4)
    assert found["chance"] == pytest.approx(expected.chance, abs=1e-4)
    values = [entry["scores"]["question"]["maps"]["fused"]["inside"]["value"] for entry in report["models"].values()]
    change = report["differences"][0]["fused"]["question"]["inside"]["difference"]
    assert change == pytest.approx(values[1] - values[0], abs=2e-4) and values[0] != values[1]
    assert "the sampler does not know which frames are annotated" in capsys.readouterr().out


def test_unreadable_records_are_listed_and_a_second_run_scores_what_is_missing(tiny_model_dir, tmp_path, held_out):
    raws = json.loads(held_out.read_text())[:3]
    for number, raw in enumerate(raws):
        raw.update(id=f"clip {number}", video=str(held_out.parent / raw["video"]))
    good = raws[1]["video"]
    raws[1]["video"] = str(tmp_path / "later.mp4")
    (tmp_path / "data.json").write_text(json.dumps(raws))
    options = ["--model", str(tiny_model_dir), "--data", str(tmp_path / "data.json"), *BUDGET]
    options += ["--output", str(tmp_path / "out")]
    assert command.main(options) == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())["models"][tiny_model_dir.name]
    assert list(report["errors"]) == ["clip 1"] and report["scores"]["question"]["records"] == 2
    (tmp_path / "later.mp4").write_bytes(open(good, "rb").read())
    parts = tmp_path / "out" / tiny_model_dir.name / "parts" / "00000.jsonl"
    before = parts.read_text()
    parts.write_text(before + '{"id": "clip 1", "answ')  # what a kill may leave
    assert command.main(options) == 0
    added = [json.loads(line)["id"] for line in parts.read_text().removeprefix(before).splitlines()[1:] if line]
    assert added == ["clip 1"]


def test_frames_without_annotation_are_counted_and_the_option_shows_them(tiny_model_dir, tmp_path, held_out):
    raw = json.loads(held_out.read_text())[0]
    raw["video"] = str(held_out.parent / raw["video"])
    raw["annotation"] = [{"0": frames["0"]} for frames in raw["annotation"]]
    (tmp_path / "data.json").write_text(json.dumps([raw]))
    budget = ["--max_frames", "1", "--min_pixels", "784", "--max_pixels", "28224"]
    options = ["--model", str(tiny_model_dir), "--data", str(tmp_path / "data.json"), *budget]
    for more, pairs in (([], False), (["--keep_annotated_frames"], True)):
        output = tmp_path / f"out_{pairs}"
        assert command.main([*options, *more, "--output", str(output)]) == 0
        report = json.loads((output / "report.json").read_text())
        scores = report["models"][tiny_model_dir.name]["scores"]["all"]
        assert (scores["pairs"] > 0, scores["records_without_pairs"]) == (pairs, 0 if pairs else 1)
        assert report["keep_annotated_frames"] is pairs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "{tmp}/none.json"], "no such file"),
        (["--data", "{tmp}/bare.json"], "no record has a usable mask"),
        (["--layers", "99"], "layers: expected indices from 0 to 3"),
        (["--model", "{model}", "{model}"], "--model: expected different models"),
        (["--model", "{tmp}/nowhere"], "cannot load the model"),
    ],
)
def test_errors_say_what_to_do(tiny_model_dir, tmp_path, held_out, capsys, options, message):
    raw = {**json.loads(held_out.read_text())[0], "annotation": []}
    (tmp_path / "bare.json").write_text(json.dumps([raw]))
    given = [option.format(tmp=tmp_path, model=tiny_model_dir) for option in options]
    base = ["--model", str(tiny_model_dir), "--data", str(held_out), "--output", str(tmp_path / "out"), *BUDGET]
    assert command.main([*base, *given]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_real_files_of_every_layout(test_data, real_processor_dir, tmp_path):
    for name in ("bench_q.json", "bench_d.json"):
        options = ["--model", str(real_processor_dir), "--data", str(test_data / "nl_refer_real" / name)]
        options += [
            "--video_root",
            str(test_data),
            "--max_frames",
            "4",
            "--max_pixels",
            "100352",
            "--output",
            str(tmp_path / name),
        ]
        assert command.main([*options, "--keep_annotated_frames"]) == 0
        report = json.loads((tmp_path / name / "report.json").read_text())
        raws = json.loads((test_data / "nl_refer_real" / name).read_text())
        assert report["records_without_annotation"] == sum(not raw["annotation"] for raw in raws)
        assert report["models"][real_processor_dir.name]["scores"]["question"]["pairs"] > 0
