"""Which words look: known answers on attention made by hand, and the command on tiny models."""

import json
from dataclasses import replace

import pytest
import torch

from swim.cli import main
from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture
from swim.data.settings import DataSettings
from swim.demo.clips import make_demo_data
from swim.eval import words
from swim.eval.words import SCORES, score_words, summarise
from swim.infer.load import load_for_inference
from swim.video.clip import VisualBudget

BUDGET = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "28224"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("clips"), train_clips=2, held_out_clips=4, workers=1)


@pytest.fixture(scope="module")
def loaded(tiny_model_dir):
    model, processor = load_for_inference(str(tiny_model_dir))
    return model, SwimCollator(processor, model.config, DataSettings(budget=VisualBudget(min_pixels=784)))


def test_attention_made_by_hand_has_known_scores(loaded, clips, monkeypatch):
    """The colour looks at one cell of the object, the shape evenly everywhere, other words at one cell beside it."""
    model, collator = loaded
    sample = collator.reader(load_mixture(clips.train_config).dataset[0])
    [question] = [turn for turn in sample.record.turns[-2:-1]]
    named = question.text[question.spans[0].start : question.spans[0].end].split()
    assert len(named) == 2, "the demo tags colour and shape"
    shares = torch.from_numpy(sample.masks.shares)[question.instances[0]]
    first, read = question.spans[0].start, []
    real = words.read_words

    def keep(*arguments, **options):
        reading = real(*arguments, **options)
        read.append(reading)
        return reading

    def by_hand(_, inputs, spans, layers=None):
        starts = {word.start: word.at for word in read[-1].words}
        maps = torch.zeros(len(spans), 1 if layers is None else len(layers), *shares.shape)
        for row, (start, _) in zip(maps, spans):
            at = starts[start]
            for step in range(len(shares)):
                flat = shares[step].flatten()
                cell = int(flat.argmax() if at == first else flat.argmin())
                if at == first + len(named[0]) + 1:
                    row[:, step] = 1.0
                else:
                    row[:, step].view(len(row), -1)[:, cell] = 1.0
        return maps

    monkeypatch.setattr(words, "read_words", keep)
    monkeypatch.setattr(words, "extract", by_hand)
    found = score_words(model, collator, sample)
    steps = int((torch.from_numpy(sample.masks.index)[question.instances[0]] & (shares.flatten(1) >= 0.1).any(1)).sum())
    covered = (shares.flatten(1) >= 0.1).float().mean(1)[:steps]
    assert {kind: part["words"] for kind, part in found.items()} == {"function": 1, "attribute": 1, "head": 1}
    assert found["attribute"]["pairs"] == steps
    for map_number in range(model.config.text_config.num_hidden_layers + 1):
        values = {kind: {score: part[score][map_number] for score in SCORES} for kind, part in found.items()}
        assert values["attribute"] == pytest.approx({"pointing": 1, "inside": 1, "entropy": 0}, abs=1e-4)
        assert values["function"] == pytest.approx({"pointing": 0, "inside": 0, "entropy": 0}, abs=1e-4)
        even = {"pointing": float(covered.mean()), "inside": float(covered.mean()), "entropy": 1}
        assert values["head"] == pytest.approx(
            even, abs=0.02
        )  # in float32 equal cells are equal up to the fusion's rounding


def test_a_record_without_masks_or_tags_says_nothing(loaded, clips):
    model, collator = loaded
    sample = collator.reader(load_mixture(clips.train_config).dataset[0])
    assert score_words(model, collator, replace(sample, masks=None)) == {}
    turns = [replace(turn, spans=[], instances=[]) for turn in sample.record.turns]
    assert score_words(model, collator, replace(sample, record=replace(sample.record, turns=turns))) == {}


def test_means_are_over_pairs_and_classes_stay_apart():
    def part(pairs: int, value: float) -> dict:
        return {"pairs": pairs, "words": 1, **{score: [value, value / 2] for score in SCORES}}

    summary = summarise({"a": {"head": part(1, 1.0)}, "b": {"head": part(3, 0.2), "relation": part(2, 0.5)}, "c": {}})
    assert list(summary) == ["head", "relation"] and summary["head"]["records"] == 2 and summary["head"]["pairs"] == 4
    assert summary["head"]["maps"]["0"]["inside"]["value"] == pytest.approx(0.4)
    assert summary["head"]["maps"]["fused"]["inside"]["value"] == pytest.approx(0.2)
    assert summary["relation"]["maps"]["0"]["entropy"] == {"value": 0.5, "interval_95": None}
    with pytest.raises(ValueError, match="nothing to score"):
        summarise({"c": {}})


def test_the_command_reports_and_resumes(tiny_model_dir, clips, tmp_path, capsys):
    command = ["words", "--model", str(tiny_model_dir), "--data", str(clips.held_out_json), "--output", str(tmp_path)]
    assert main([*command, *BUDGET]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    [entry] = report["models"].values()
    assert {"head", "attribute", "function"} <= set(entry["classes"]) and entry["classes"]["head"]["words"] == 4
    assert list(entry["classes"]["head"]["maps"]) == ["0", "1", "2", "3", "fused"]
    assert "attribute" in capsys.readouterr().out and (tmp_path / "words.png").stat().st_size > 10_000
    assert main([*command, *BUDGET]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["models"] == report["models"]
