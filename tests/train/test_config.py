"""YAML, overrides, unknown keys."""

from pathlib import Path

import pytest

from swim.cli.runs.train import load_training
from swim.models.supervision import AttentionSupervisionConfig
from swim.train.config import ConfigError, TrainConfig, differing_keys, load_config, parse_overrides
from swim.train.grpo_config import GRPOTrainConfig

REPOSITORY = Path(__file__).resolve().parents[2]


def write(folder, text):
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_overrides_are_yaml_and_nest():
    given = parse_overrides(["--a.b", "[1, 2]", "--c=1e-4", "--flag", "--text", "x y", "--d", "null"])
    assert given == {"a": {"b": [1, 2]}, "c": 1e-4, "flag": True, "text": "x y", "d": None}


def test_an_override_keeps_its_neighbours(tmp_path):
    path = write(tmp_path, "output_dir: o\nattention_supervision: {layers: [1], eps: 0.5}\nlearning_rate: 1.0e-3\n")
    config = load_config(path, ["--attention_supervision.layers", "[2]", "--seed", "3"])
    assert config.attention_supervision == {"layers": [2], "eps": 0.5}
    assert config.arguments == {"learning_rate": 1e-3, "seed": 3}


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("output_dir: o\nlerning_rate: 1\n", [], "unknown key 'lerning_rate'; did you mean 'learning_rate'"),
        ("output_dir: o\n", ["--max_step", "3"], "^command line: unknown key 'max_step'; did you mean 'max_steps'"),
        ("output_dir: o\nlora: {dropuot: 3}\n", [], "config.yaml: lora.dropuot: unknown key; did you mean 'dropout'"),
        ("output_dir: o\ndemo: {train_clip: 3}\n", [], "demo.train_clip: unknown key; did you mean 'train_clips'"),
        ("output_dir: o\n", ["--max_frames", "0"], "^--max_frames: Input should be greater"),
        ("output_dir: o\n", ["--seed", "3", "--seed.x", "4"], "--seed.x: seed has a value of its own"),
        ("output_dir: o\nmax_frames: many\n", [], "max_frames"),
        ("output_dir: o\nremove_unused_columns: true\n", [], "remove_unused_columns is set by the trainer"),
        ("output_dir: [\n", [], "malformed YAML"),
        ("- a\n", [], "expected keys and values, found list"),
        ("max_steps: 3\n", [], "output_dir"),
        ("output_dir: o\n", ["max_steps"], "expected --key value, found 'max_steps'"),
    ],
)
def test_bad_configuration(tmp_path, text, overrides, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace("[", r"\[")):
        load_config(write(tmp_path, text), overrides)


def test_keys_that_do_not_go_together_are_one_short_line(tmp_path):
    path = write(tmp_path, "output_dir: o\nmin_pixels: 100352\n")
    with pytest.raises(ConfigError) as error:
        load_config(path, ["--max_pixels", "50000", "--seed", "3"])
    assert str(error.value) == f"{path}: min_pixels, 100352, is more than max_pixels, 50000; give both"
    with pytest.raises(ConfigError, match=r"learning_rates: merger is frozen; add it to train$"):
        load_config(path, ["--learning_rates.merger", "1e-4"])


def test_a_rate_of_a_part_without_its_value_is_no_rate(tmp_path):
    path = write(tmp_path, "output_dir: o\ntrain: [language_model, merger]\n")
    with pytest.raises(ConfigError, match="^--learning_rates: expected a value, not a switch"):
        load_config(path, ["--learning_rates.merger"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere.yaml: no such configuration"):
        load_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("given", ["--model_name_or_path=m", "--data_config=d", "--max_steps=3"])
def test_a_training_other_than_the_files_gets_no_report_and_says_so(tmp_path, monkeypatch, capsys, given):
    command = ["--config", str(write(tmp_path, "output_dir: o\ndemo_report: true\nmax_steps: 9\n"))]
    for own in ([], ["--learning_rate=1"], [given, "--report=true"], [given, "--demo_report=true"]):
        assert load_training(command + own).report
    assert load_training([*command, given, "--report=false"]).report is False
    assert capsys.readouterr().out == ""
    assert not load_training([*command, given]).report
    assert f"no report (comparison, pictures, summary.json): with {given.partition('=')[0]} " in capsys.readouterr().out
    monkeypatch.setenv("RANK", "1")
    assert not load_training([*command, given]).report and capsys.readouterr().out == ""


def test_several_processes_make_no_report_and_say_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ["--config", str(write(tmp_path, "output_dir: o\n")), "--report", "true"]
    assert not load_training(command).report
    assert capsys.readouterr().out == "no report (comparison, pictures, summary.json): it needs a single process\n"


def test_a_file_without_a_report_is_silent(tmp_path, capsys):
    assert not load_training(["--config", str(write(tmp_path, "output_dir: o\n")), "--max_steps=3"]).report
    assert capsys.readouterr().out == ""


def test_differing_keys_ignore_what_changes_no_result():
    old = {"learning_rate": 1, "seed": 2, "resume_from_checkpoint": None, "demo_report": True}
    new = {"learning_rate": 2, "seed": 2, "resume_from_checkpoint": "x", "lora": None, "max_steps": 3}
    assert differing_keys(old, new) == ["learning_rate", "max_steps"]


@pytest.mark.parametrize(("group", "lacking"), [("demo", "family"), ("lora", "dropout")])
def test_a_run_of_a_release_that_lacked_a_key_of_a_group_resumes(group, lacking):
    new = load_config(REPOSITORY / "run_scripts/configs/sft_demo.yaml", ["--lora.r", "4"]).to_flat()
    old = {**new, group: {key: value for key, value in new[group].items() if key != lacking}}
    assert differing_keys(old, new) == []
    assert differing_keys({**old, group: {**new[group], lacking: 0.9}}, new) == [group]


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "run_scripts/configs").glob("*.yaml")), ids=lambda path: path.stem
)
def test_shipped_configurations_load(path):
    kind = GRPOTrainConfig if path.stem.startswith("grpo") else TrainConfig
    assert load_config(path, kind=kind).output_dir.startswith("output/")


@pytest.mark.parametrize(("name", "decoder_layers"), [("sft_7b", 28), ("sft_qwen3_vl_8b", 36)])
def test_the_papers_layers_are_every_fifth(name, decoder_layers):
    given = load_config(REPOSITORY / f"run_scripts/configs/{name}.yaml").attention_supervision["layers"]
    assert given == list(AttentionSupervisionConfig().layers_of(decoder_layers)) == list(range(2, decoder_layers, 5))


def test_the_two_configurations_of_the_7b_train_the_same():
    """They may differ in where the states are, and in nothing that changes the result."""
    offloaded, on_gpus = (
        load_config(REPOSITORY / f"run_scripts/configs/{name}.yaml") for name in ("sft_7b", "sft_7b_80gb")
    )
    assert differing_keys(offloaded.to_flat(), on_gpus.to_flat()) == ["deepspeed", "output_dir"]


def test_resolved_configuration_reads_back(tmp_path):
    config = load_config(REPOSITORY / "run_scripts/configs/sft_demo.yaml", ["--lora.r", "4"])
    import yaml

    again = load_config(write(tmp_path, yaml.safe_dump(config.to_flat())))
    assert again == config
