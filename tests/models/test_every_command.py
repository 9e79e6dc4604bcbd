"""A family beside the demo's own: every command takes a model that was trained from it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from swim.cli import bench_d, bench_q, check, export, general, grounding, infer, visualize
from swim.cli.runs.held_out import evaluate, read_held_out
from swim.data.settings import find_reading
from swim.demo.bench import write_benches
from swim.eval.judge import DIMENSIONS
from swim.models import MODEL_TYPES
from swim.models.family import family_named
from swim.train.config import load_config
from swim.train.run import train
from swim.viewer.session import Session

from ..chat_server import ChatServer

DEMO_YAML = Path(__file__).resolve().parents[2] / "run_scripts/configs/sft_demo.yaml"


@pytest.fixture(scope="module", params=MODEL_TYPES[1:])
def model_type(request):
    return request.param


@pytest.fixture(scope="module")
def grid(model_type) -> tuple[int, int, int]:
    """Of the maps of a demo clip: four frames, two to a step, of 168 x 168 px."""
    pixels = family_named(model_type).tiny.pixels
    side = round(168 / (pixels["patch_size"] * pixels["merge_size"]))
    return 2, side, side


@pytest.fixture(scope="module")
def run(model_type, tiny_model_dirs, demo_data, tmp_path_factory) -> Path:
    """The folder of a short training run."""
    folder = tmp_path_factory.mktemp("run") / "out"
    train(configuration(folder, tiny_model_dirs[model_type], demo_data))
    return folder


def configuration(folder, model, demo_data, **changes):
    keys = {
        "output_dir": folder,
        "model_name_or_path": model,
        "data_config": demo_data.train_config,
        "eval_grounding": demo_data.held_out_json,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "warmup_steps": 0,
        "logging_steps": 1,
        "disable_tqdm": True,
        "report": False,
        **changes,
    }
    return load_config(DEMO_YAML, [f"--{key}={value}" for key, value in keys.items()])


@pytest.fixture(scope="module")
def held_out(demo_data):
    return demo_data.held_out_json


@pytest.fixture(scope="module")
def benches(held_out):
    return write_benches(held_out)


def test_training_learns_the_language_model_alone(run, model_type, tiny_model_dirs):
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model_dirs[model_type], run))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    part_of = family_named(model_type).part_of
    assert {part_of(name) for name in changed} == {"language_model"}
    assert {part_of(name) for name in before} == {"language_model", "merger", "visual"}
    log = json.loads((run / "trainer_state.json").read_text())["log_history"]
    assert all(entry["mask_loss"] > 0 for entry in log if "mask_loss" in entry)
    assert any("eval_grounding" in key or "pointing" in key for entry in log for key in entry)


def test_the_merger_has_a_rate_of_its_own_and_lora_adapts_the_language_model(
    tmp_path, model_type, tiny_model_dirs, demo_data
):
    model = tiny_model_dirs[model_type]
    parts = {"train": "language_model,merger", "learning_rates.merger": 1e-2, "max_steps": 1}
    train(configuration(tmp_path / "merger", model, demo_data, **parts))
    before, after = (load_file(folder / "model.safetensors") for folder in (model, tmp_path / "merger"))
    part_of = family_named(model_type).part_of
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    mergers = {name for name in before if part_of(name) == "merger"}
    assert mergers <= changed and {part_of(name) for name in changed} == {"language_model", "merger"}
    train(configuration(tmp_path / "adapter", model, demo_data, **{"lora.r": 4, "max_steps": 1}))
    adapted = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    layers = sum(1 for name in before if name.endswith("q_proj.weight"))
    assert len(adapted) == layers * 7 * 2 and not any("visual" in name for name in adapted)
    assert export.main([str(tmp_path / "adapter"), "--output", str(tmp_path / "merged")]) == 0
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == before.keys()


def test_the_check_says_how_long_samples_are(run, grid, demo_data, tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text((run / "train_config.yaml").read_text())
    assert check.main([str(demo_data.train_config), "--train_config", str(config), "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["bad"] == 0 and report["tokens"]["lowest"] > np.prod(grid)


def test_a_question_is_answered_and_where_it_looks_is_shown(run, grid, held_out, tmp_path, capsys):
    record = json.loads(held_out.read_text())[0]
    video = str(held_out.parent / record["video"])
    options = [
        "--model",
        str(run),
        "--video",
        video,
        "--prompt",
        "What <ins>red circle</ins>?",
        "--max_new_tokens",
        "4",
    ]
    assert infer.main(options) == 0
    assert "as " in capsys.readouterr().err
    shown = ["--model", str(run), "--records", str(held_out), "--layers", "all", "--max_new_tokens", "4"]
    assert visualize.main([*shown, "--output", str(tmp_path)]) == 0
    arrays = np.load(next(tmp_path.rglob("maps.npz")))
    assert arrays["maps"].shape[2:] == grid and arrays["maps"].max() > 0
    settings, _ = find_reading(run)
    session = Session(str(run), settings, max_new_tokens=4)
    seen = session.ask(video, "What pattern does the <ins>red circle</ins> have?")
    (found,) = session.look(seen, 0, None, "share")
    assert found.heat.shape == grid


def test_the_report_reads_held_out_clips_in_cells_of_the_family(run, grid, held_out):
    settings, _ = find_reading(run)
    scores = evaluate(str(run), read_held_out(held_out, settings, str(run)), settings)
    assert all(tuple(heat.shape) == grid for heat in scores.maps) and 0 <= scores.grounding.pointing <= 1


def test_the_benches_take_it(run, benches, held_out, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    model = ["--model", str(run), "--max_new_tokens", "4"]
    assert bench_q.main([*model, "--questions", str(benches.bench_q), "--output", str(tmp_path / "q")]) == 0
    assert general.main([*model, "--questions", str(benches.general), "--output", str(tmp_path / "g")]) == 0
    with ChatServer(lambda request: json.dumps(dict.fromkeys(DIMENSIONS, 3))) as server:
        judge = ["--judge", "j", "--judge_base_url", server.url]
        assert bench_d.main([*model, "--questions", str(benches.bench_d), "--output", str(tmp_path / "d"), *judge]) == 0
    looked = ["--model", str(run), "--data", str(held_out), "--output", str(tmp_path / "looks")]
    assert grounding.main(looked) == 0
    summaries = {name: (tmp_path / name / "report.json").is_file() for name in ("q", "g", "d", "looks")}
    assert all(summaries.values())


def test_the_export_is_a_plain_checkpoint(run, model_type, tmp_path):
    assert export.main([str(run), "--output", str(tmp_path / "out")]) == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert type(model) is family_named(model_type).model_class and model.dtype == torch.bfloat16
    assert type(AutoProcessor.from_pretrained(tmp_path / "out")) is family_named(model_type).processor_class


def test_steps_of_one_second_are_refused_before_training(tmp_path, model_type, tiny_model_dirs, demo_data):
    with pytest.raises(ValueError, match="released_timing: .* is told each step's time in words"):
        train(configuration(tmp_path / "out", tiny_model_dirs[model_type], demo_data, released_timing=True))
