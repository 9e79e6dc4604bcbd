"""Scores and maps of a model on clips, against loops over its own maps."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from swim.attention.grounding import ground, mean_maps, score_grounding
from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture
from swim.data.settings import DataSettings
from swim.demo.clips import make_demo_data
from swim.video.clip import VisualBudget


@pytest.fixture(scope="module")
def model(tiny_model_dir):
    return Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_dir).eval()


@pytest.fixture(scope="module")
def collator(model, tiny_model_dir):
    settings = DataSettings(budget=VisualBudget(min_pixels=784))
    return SwimCollator(AutoProcessor.from_pretrained(tiny_model_dir), model.config, settings)


@pytest.fixture(scope="module")
def samples(collator, tmp_path_factory):
    data = make_demo_data(tmp_path_factory.mktemp("demo"), train_clips=3, held_out_clips=0, workers=1)
    return [collator.reader(row) for row in load_mixture(data.train_config).dataset]


def test_scores_equal_loops_over_the_maps(model, collator, samples):
    points = inside = covered = pairs = left_out = 0
    for sample in samples:
        with torch.no_grad():
            rows = model(**collator([sample])).attention_maps[0]
        for row in rows:
            for step, mask in enumerate(sample.masks.shares[0]):
                on_object = torch.from_numpy(mask) >= 0.1
                if not on_object.any():
                    left_out += 1
                    continue
                highest = divmod(int(row[step].argmax()), row.shape[2])
                points += bool(on_object[highest])
                inside += float(row[step][on_object].sum() / row[step].sum())
                covered += float(on_object.float().mean())
                pairs += 1
    scores = score_grounding(model, collator, samples, batch_size=4)
    assert (scores.pairs, scores.left_out) == (pairs, left_out)
    assert scores.pointing == pytest.approx(points / pairs)
    assert scores.inside == pytest.approx(inside / pairs, rel=1e-5)
    assert scores.chance == pytest.approx(covered / pairs, rel=1e-5)


def test_nothing_to_score_is_an_error(model, collator, samples):
    turns = [replace(turn, spans=[], instances=[]) for turn in samples[0].record.turns]
    bare = [replace(samples[0], record=replace(samples[0].record, turns=turns, instances=[]), masks=None)] * 2
    with pytest.raises(ValueError, match="no .token, step. pair to score in 2 samples"):
        score_grounding(model, collator, bare)


def test_mean_maps_are_the_mean_over_a_samples_tokens(model, collator, samples):
    maps = mean_maps(model, collator, samples[:3])
    for sample, heat in zip(samples, maps):
        with torch.no_grad():
            alone = model(**collator([sample])).attention_maps[0].mean(0)
        assert heat.shape == sample.masks.shares.shape[1:]
        torch.testing.assert_close(heat, alone, rtol=1e-4, atol=1e-6)


def test_a_samples_scores_are_those_of_the_supervised_map(model, collator, samples):
    for sample in samples:
        expected = score_grounding(model, collator, [sample])
        result = ground(model, collator, sample)
        question, answer = result["question"], result["answer"]
        assert question["pairs"] + answer.get("pairs", 0) == expected.pairs
        assert question["left_out"] + answer["left_out"] == expected.left_out
        parts = [part for part in (question, answer) if part["pairs"]]
        for name, value in (("pointing", expected.pointing), ("inside", expected.inside)):
            mean = sum(part["maps"]["fused"][name] * part["pairs"] for part in parts) / expected.pairs
            assert mean == pytest.approx(value, abs=1e-5)
        assert sum(part["chance"] * part["pairs"] for part in parts) / expected.pairs == pytest.approx(expected.chance)


def test_question_and_answer_mentions_are_scored_apart(model, collator, samples):
    both = ground(model, collator, samples[0])
    asked, told = samples[0].record.turns
    untagged = replace(samples[0].record, turns=[asked, replace(told, spans=[], instances=[])])
    only_asked = ground(model, collator, replace(samples[0], record=untagged))
    assert only_asked["answer"] == {"pairs": 0, "left_out": 0}
    inside = (part["question"]["maps"]["fused"]["inside"] for part in (only_asked, both))
    assert next(inside) == pytest.approx(next(inside))
    assert both["answer"]["pairs"] > 0 and both["answer"]["maps"] != both["question"]["maps"]


def test_layers_are_scored_one_by_one_and_fused(model, collator, samples):
    scores = ground(model, collator, samples[0], layers=[1, 3])["question"]["maps"]
    assert list(scores) == ["1", "3", "fused"]
    assert list(ground(model, collator, samples[0], layers=[3])["question"]["maps"].values())[0] == scores["3"]
    with pytest.raises(ValueError, match="layers: expected indices from 0 to"):
        ground(model, collator, samples[0], layers=[99])


def test_a_finer_mask_counts_the_same_cells(model, collator, samples):
    fine = SwimCollator(collator.processor, model.config, replace(collator.settings, mask_resolution=2))
    again = fine.reader.read(samples[0].record)
    assert ground(model, fine, again) == ground(model, collator, samples[0])
