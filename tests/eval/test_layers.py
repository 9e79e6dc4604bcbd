"""Which layers look at the object: known answers on attention made by hand, and the command on a tiny model."""

import json

import pytest
import torch

from swim.cli import main
from swim.data.mixture import load_mixture
from swim.demo.clips import make_demo_data
from swim.eval.layers import BEST, SUPERVISED, Pairs, choose, layers_of, study

CELLS, OBJECT = 10, (2, 3)


def looking_at(*cells: int) -> torch.Tensor:
    """float32[K]: nearly all attention on these cells."""
    row = torch.full((CELLS,), 1e-3)
    row[list(cells)] = 1.0
    return (row / row.sum()).log()


def record(*layers: torch.Tensor, pairs: int = 2) -> tuple[dict, Pairs]:
    """The scores and pairs of a record whose layers look so, in each of its pairs."""
    on_object = torch.zeros(pairs, CELLS, dtype=torch.bool)
    on_object[:, list(OBJECT)] = True
    rows = torch.stack(layers).expand(pairs, -1, -1)
    points = [[float(int(row.argmax()) in OBJECT)] * 2 for row in layers]  # one head, and the mean of heads
    return {"pairs": pairs, "pointing": points, "average_precision": points}, Pairs(rows, on_object)


# Layer 0 always looks beside the object; 1 and 2 each look at half of it, and at something else; 3 is flat.
BESIDE, ONE, OTHER, FLAT = looking_at(7), looking_at(2, 8), looking_at(3, 9), looking_at(*range(CELLS))


def test_the_greedy_choice_takes_what_helps_what_is_chosen():
    pairs = [record(BESIDE, ONE, OTHER, FLAT)[1]]
    # alone 1 and 2 are equal, the first is taken; together they raise both cells of the object in a product alone
    assert choose(pairs, 2, "product") == [1, 2]
    assert choose(pairs, 1, "product") == [1] and choose(pairs, 9, "mean")[-1] == 0
    assert sorted(choose(pairs, 9, "mean")) == [0, 1, 2, 3]


def test_one_half_chooses_and_the_other_judges():
    """Layer 1 is right on the records of even place, layer 2 on those of odd place: the choice fails on the other half."""
    right, wrong = looking_at(2, 3), looking_at(7, 8)
    found = {str(n): record(wrong, right, wrong) if n % 2 == 0 else record(wrong, wrong, right) for n in range(6)}
    scores, pairs = ({key: each[place] for key, each in found.items()} for place in (0, 1))
    report = study(scores, pairs, 1, "mean", [2])
    assert (report["chosen_on"], report["judged_on"], report["pairs"], report["records"]) == (3, 3, 12, 6)
    assert report["sets"][BEST]["layers"] == [1] and report["sets"][BEST]["pointing"]["value"] == 0
    assert report["sets"][SUPERVISED]["layers"] == [2] and report["sets"][SUPERVISED]["pointing"]["value"] == 1
    assert report["sets"][SUPERVISED]["average_precision"] == {"value": 1.0, "interval_95": [1.0, 1.0]}
    assert report["layers"]["pointing"] == [0.0, 0.5, 0.5] and report["chance"] == 0.2
    assert report["heads"]["pointing"] == [[0.0], [0.5], [0.5]]


def test_records_weigh_by_their_pairs_and_those_without_any_do_not_count():
    right, wrong = looking_at(2, 3), looking_at(7, 8)
    found = {"a": record(right, pairs=3), "b": record(wrong, pairs=1)}
    scores, pairs = ({key: each[place] for key, each in found.items()} for place in (0, 1))
    report = study(scores | {"none": {"pairs": 0}}, pairs, 1, "mean", [0])
    assert report["layers"]["pointing"] == [0.75] and report["records"] == 2
    with pytest.raises(ValueError, match="1 record.s. with a scored pair"):
        study({"a": scores["a"]}, pairs, 1, "mean", [0])


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("clips"), train_clips=4, held_out_clips=4, workers=1)


def test_scores_of_layers_are_those_of_ground(tiny_model_dir, clips):
    """The mean of heads is what `swim grounding` scores as a layer."""
    from swim.attention.grounding import ground
    from swim.data.collator import SwimCollator
    from swim.data.settings import DataSettings
    from swim.infer.load import load_for_inference
    from swim.video.clip import VisualBudget

    model, processor = load_for_inference(str(tiny_model_dir))
    collator = SwimCollator(processor, model.config, DataSettings(budget=VisualBudget(min_pixels=784)))
    sample = collator.reader(load_mixture(clips.train_config).dataset[0])
    found, pairs = layers_of(model, collator, sample)
    every = list(range(model.config.text_config.num_hidden_layers))
    parts = [part for part in ground(model, collator, sample, every).values() if part["pairs"]]
    assert found["pairs"] == sum(part["pairs"] for part in parts) == len(pairs.on_object) > 0
    for layer in every:
        for name in ("pointing", "average_precision"):
            expected = sum(part["pairs"] * part["maps"][str(layer)][name] for part in parts) / found["pairs"]
            assert found[name][layer][-1] == pytest.approx(expected, abs=1e-5)
            assert len(found[name][layer]) == model.config.text_config.num_attention_heads + 1


def test_the_command_reports_and_resumes(tiny_model_dir, clips, tmp_path, capsys):
    command = ["layers", "--model", str(tiny_model_dir), "--data", str(clips.held_out_json), "--output", str(tmp_path)]
    command += ["--min_pixels", "784", "--size", "2"]
    assert main(command) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (
        len(report["sets"][BEST]["layers"]) == 2
        and [each["errors"] for each in report["models"].values()] == [{}]
        and report["records"] == 4
    )
    assert "best together" in capsys.readouterr().out and (tmp_path / "layers.png").stat().st_size > 5_000
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    assert main(command) == 0
    assert parts == {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()} and len(parts) == 4
    assert json.loads((tmp_path / "report.json").read_text())["sets"] == report["sets"]
