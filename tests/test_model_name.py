"""What is said of a model's name or path that holds no model."""

import json

import pytest

from swim.cli.infer import main as infer
from swim.model_name import DEMO_MODEL, NoModel, check_model_name, short_names, weights_digest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("checkpoint-30", "checkpoint-4"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "config.json").write_text("{}")
    (tmp_path / "run" / "checkpoint-200").mkdir()  # killed while it was written
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("run", "a run that has not finished; its last checkpoint is run/checkpoint-30: name that"),
        ("empty", "no config.json in this folder"),
        ("file", "a file; expected a model's folder"),
        (DEMO_MODEL, "no model at output/demo yet: .*run_sft.sh; the path is relative to the folder you are in"),
        ("/none/such", "no such folder"),
        ("./none", "no such folder"),
        ("run/checkpoint-31", "no such folder"),
        ("output/a/b", "no such folder"),
        ("a path with spaces", "no such folder"),
        ("~/models/swim", "no such folder"),
    ],
)
def test_a_path_without_a_model_is_told_with_the_next_step(folder, name, told):
    with pytest.raises(NoModel, match=told):
        check_model_name(name)


@pytest.mark.parametrize("name", ["run/checkpoint-30", "Qwen/Qwen2.5-VL-7B-Instruct", "gpt2"])
def test_a_model_and_a_hubs_name_pass(folder, name):
    check_model_name(name)


def test_weights_are_told_apart_by_what_they_hold(tmp_path):
    """Not by their time: a copy of a folder is the same model."""
    assert weights_digest("Qwen/Qwen2.5-VL-7B-Instruct") is None
    for name, middle in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"header" + middle * 3_000_000)
    first, copy, other = (weights_digest(tmp_path / name) for name in "abc")
    assert first == copy != other


def test_short_names_tell_models_apart():
    assert short_names(["output/demo/text_only", "output/demo"]) == ["text_only", "demo"]
    assert short_names(["a/model", "b/model"]) == ["a_model", "b_model"]
    with pytest.raises(ValueError, match="expected different models"):
        short_names(["a/model", "a/model"])


def test_nothing_is_made_for_a_model_that_is_not_there(folder, capsys):
    """The demo's 2,200 clips were drawn into whatever folder a command without arguments was given in."""
    from swim.cli.bench_d import main as bench_d
    from swim.cli.bench_q import main as bench_q
    from swim.cli.grounding import main as grounding
    from swim.cli.viewer import main as viewer
    from swim.cli.visualize import main as visualize

    before = sorted(folder.rglob("*"))
    for command in (infer, visualize, bench_q, bench_d, grounding, viewer):
        assert command([]) == 2
        assert "run_scripts/run_sft.sh" in capsys.readouterr().err.splitlines()[-1], command
    assert sorted(folder.rglob("*")) == before
    assert json.loads((folder / "run/checkpoint-30/config.json").read_text()) == {}
