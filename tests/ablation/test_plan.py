"""An ablation's file: which trainings it asks for, and which of them are the same."""

import shutil

import pytest
import yaml

from swim.ablation.plan import AblationFile, identity, read_ablation
from swim.cli.runs.ablate import plan_cells
from swim.cli.runs.demo_defaults import with_demo_inputs
from swim.errors import DataError
from swim.train.config import ConfigError, load_config

from ..conftest import REPOSITORY


@pytest.fixture
def written(tmp_path, tiny_model_dir, demo_data):
    """`written(axes, base={...}, **more)`: the path of an ablation of a tiny training."""

    def write(axes: dict, base: dict | None = None, **more):
        keys = {"output_dir": "unused", "model_name_or_path": str(tiny_model_dir), "max_steps": 2}
        keys |= {"data_config": str(demo_data.train_config), "bf16": False, **(base or {})}
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs/base.yaml").write_text(yaml.safe_dump(keys))
        path = tmp_path / "ablation.yaml"
        path.write_text(yaml.safe_dump({"base": "configs/base.yaml", "axes": axes, **more}, sort_keys=False))
        return path

    return write


def cells_of(path, tmp_path):
    return plan_cells(read_ablation(path), tmp_path / "out")


def test_what_is_the_same_is_trained_once(written, tmp_path):
    path = written(
        {
            "loss": {"bce": {"attention_supervision.loss": "bce"}, "dice": {"attention_supervision.loss": "dice"}},
            "supervision": {"before": None, "off": {"attention_supervision.mask_loss_weight": 0}, "on": {}},
            "rate": {"its own": {"learning_rate": 2e-5}, "other": {"learning_rate": 1e-3}},
            "masks": {"all": {"mask_share": 1.0}, "half": {"mask_share": 0.5}},
            "words": {"others": {"words": {"circle": "disc"}}},
        },
        base={"learning_rate": 2e-5},
        seeds=[0, 5],
    )
    cells = cells_of(path, tmp_path)
    trained = [cell for cell in cells.values() if cell.trains]
    assert len(trained) == 2 * 5 and len(cells) == 2 * 6  # base, dice, off, other, half; and the start
    base = next(cell for cell in trained if cell.seed == 5)
    assert base.needed_by == [
        f"{row}, seed 5" for row in ("supervision: on", "loss: bce", "rate: its own", "masks: all", "words: others")
    ]
    assert base.words == [(), (("circle", "disc"),)] and base.config.arguments["seed"] == 5
    assert {cell.config.mask_share for cell in trained} == {0.5, 1.0}


def test_a_default_that_is_spelt_out_makes_no_other_training_and_a_changed_base_does(written, tmp_path):
    def names(**base) -> set[str]:
        return set(cells_of(written({"a": {"b": {}}}, base=base), tmp_path))

    plain = names()
    assert names(max_grad_norm=1.0, mask_share=1.0, attention_supervision={"fusion": "mean", "eps": "auto"}) == plain
    changes = ({"max_steps": 3}, {"max_grad_norm": 0.5}, {"attention_supervision": {"eps": 1e-6}}, {"mask_share": 0.1})
    found = [names(**change) for change in changes]
    assert all(some.isdisjoint(plain) for some in found) and len(set.union(*found)) == len(changes)


def test_a_model_with_other_options_or_weights_is_another_training(tmp_path, demo_data, make_tiny_model):
    def identity_from(folder, **keys) -> str:
        path = tmp_path / "one.yaml"
        keys |= {"output_dir": "unused", "data_config": str(demo_data.train_config)}
        path.write_text(yaml.safe_dump({"model_name_or_path": str(folder), **keys}))
        return identity(load_config(path))

    model = make_tiny_model()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    first = identity_from(folder)
    model.config.attention_supervision = {"loss": "dice"}
    model.save_pretrained(folder)
    dice = identity_from(folder)
    assert dice != first and identity_from(folder, attention_supervision={"loss": "bce"}) == first
    model.lm_head.weight.data += 1
    model.save_pretrained(folder)
    assert identity_from(folder) != dice


def test_other_data_is_another_training_and_the_same_elsewhere_is_not(written, tmp_path, demo_data):
    plain = set(cells_of(written({"a": {"b": {}}}), tmp_path))

    def elsewhere(name: str, change) -> set[str]:
        folder = tmp_path / name
        shutil.copytree(demo_data.train_config.parent, folder)
        records = folder / demo_data.train_json.name
        records.write_text(change(records.read_text()))
        base = {"data_config": str(folder / demo_data.train_config.name)}
        return set(cells_of(written({"a": {"b": {}}}, base=base), tmp_path))

    assert elsewhere("copy", str) == plain
    assert elsewhere("other", lambda text: text + "\n").isdisjoint(plain)


def test_another_bench_makes_other_scores_and_no_other_training(written, tmp_path, demo_data):
    def asked(text: str, **more) -> tuple[str, str]:
        (tmp_path / "questions.json").write_text(text)
        given = {"file": "questions.json", **more}
        path = written({"a": {"b": {}}}, yardsticks=["bench_q"], bench_q=given)
        [cell] = cells_of(path, tmp_path).values()
        return cell.name, cell.measuring.identity

    first, longer, other = asked("[]"), asked("[] "), asked("[]", types=["Basic Questions"])
    assert {name for name, _ in (first, longer, other)} == {first[0]}
    assert len({identity for _, identity in (first, longer, other)}) == 3 and asked("[]") == first


def test_options_that_do_not_fit_the_model_are_refused_before_any_training(written, tmp_path):
    path = written({"layers": {"own": {}, "beyond": {"attention_supervision.layers": [1, 99]}}})
    with pytest.raises(ConfigError, match=r"axes\.layers\.beyond: .*layers: expected indices from 0 to 3 .* \[99\]"):
        cells_of(path, tmp_path)


def test_each_seed_of_a_demo_has_clips_and_weights_of_its_own(tmp_path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"output_dir": "x", "demo": {"dir": str(tmp_path / "in")}}))
    path = tmp_path / "ablation.yaml"
    small = {"demo": {"train_clips": 2, "held_out_clips": 1}}
    path.write_text(yaml.safe_dump({"base": "base.yaml", "set": small, "seeds": [1, 2], "axes": {"a": {"b": {}}}}))
    ablation = read_ablation(path)
    configs = [with_demo_inputs(ablation.config(seed, {})) for seed in (1, 2)]
    assert [config.demo.seed for config in configs] == [1, 2]
    assert len({config.data_config for config in configs}) == len({config.model for config in configs}) == 2


BAD = {
    "no such base": ({"base": "none.yaml", "axes": {"a": {"b": {}}}}, "none.yaml: no such configuration"),
    "no axes": ({"base": "configs/base.yaml", "axes": {}}, "axes: expected at least one"),
    "an empty axis": ({"base": "configs/base.yaml", "axes": {"a": {}}}, "each with at least one variant"),
    "unknown key": ({"base": "configs/base.yaml", "axis": {}}, "axis: unknown key; did you mean 'axes'"),
    "unknown training key": (
        {"base": "configs/base.yaml", "axes": {"rates": {"high": {"learning_rat": 1}}}},
        r"axes\.rates\.high: .*unknown key 'learning_rat'.*learning_rate",
    ),
    "bad value": (
        {"base": "configs/base.yaml", "axes": {"masks": {"many": {"mask_share": 2}}}},
        r"axes\.masks\.many: .*mask_share: .*less than or equal to 1",
    ),
    "words that are none": (
        {"base": "configs/base.yaml", "axes": {"a": {"b": {"words": ["disc"]}}}},
        r"axes\.a\.b\.words: expected \{word: other word\}",
    ),
    "a seed twice": ({"base": "configs/base.yaml", "axes": {"a": {"b": {}}}, "seeds": [1, 1]}, "stands twice"),
    "against in no axis": (
        {"base": "configs/base.yaml", "axes": {"masks": {"b": {}}}, "against": {"mask": {"b": "b"}}},
        r"against: no axis 'mask'; did you mean 'masks'",
    ),
    "against no variant": (
        {"base": "configs/base.yaml", "axes": {"a": {"ten": {}}}, "against": {"a": {"ten": "tne"}}},
        r"against\.a: no variant 'tne' in this axis; did you mean 'ten'",
    ),
    "against itself": (
        {"base": "configs/base.yaml", "axes": {"a": {"b": {}}}, "against": {"a": {"b": "b"}}},
        r"against\.a: a variant is compared with itself",
    ),
    "no seeds": ({"base": "configs/base.yaml", "axes": {"a": {"b": {}}}, "seeds": []}, "seeds: "),
    "unknown yardstick": (
        {"base": "configs/base.yaml", "axes": {"a": {"b": {}}}, "yardsticks": ["bench_x"]},
        r"yardsticks\.0: ",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_does_not_fit_is_refused_with_its_place(written, name):
    content, message = BAD[name]
    path = written({"a": {"b": {}}})
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message) as caught:
        read_ablation(path)
    assert "ablation.yaml" in str(caught.value) or name == "no such base"


def test_malformed_yaml_and_a_missing_file_are_named(tmp_path):
    path = tmp_path / "ablation.yaml"
    path.write_text("base: [")
    with pytest.raises(ConfigError, match=r"ablation\.yaml: malformed YAML"):
        read_ablation(path)
    with pytest.raises(DataError, match=r"none\.yaml: no such file; run_scripts/ablations has examples"):
        read_ablation(tmp_path / "none.yaml")


def test_the_shipped_files_fit():
    found = {path.name: read_ablation(path) for path in (REPOSITORY / "run_scripts/ablations").glob("*.yaml")}
    assert {"demo.yaml", "effect.yaml", "effect_talking.yaml", "paper_7b.yaml"} == set(found)
    for ablation in found.values():
        assert isinstance(ablation.file, AblationFile)
        references = [axis for axis, some in ablation.file.axes.items() if {} not in some.values()]
        assert not references, "every axis has the base beside it"
