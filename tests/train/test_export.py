"""What is exported is what was trained, in one folder that everything loads."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration

from swim.cli import export
from swim.cli.infer import main as infer
from swim.infer.load import load_for_inference
from swim.train.run import train

from ..hub import Hub


@pytest.fixture
def exported(tmp_path):
    """Function: the folder of a successful export, and its weights."""

    def run(source, *options: str) -> tuple[Path, dict[str, torch.Tensor]]:
        output = tmp_path / "exported"
        assert export.main([str(source), "--output", str(output), *options]) == 0
        return output, load_file(output / "model.safetensors")

    return run


def test_a_run_becomes_bf16_with_processor_and_card(configure, exported, tiny_model_dir):
    config = configure(max_steps=1)
    train(config)
    folder, weights = exported(config.output_dir)
    trained = load_file(Path(config.output_dir) / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert set(weights) == set(trained) == set(load_file(tiny_model_dir / "model.safetensors"))
    assert all(torch.equal(weights[name], trained[name].bfloat16()) for name in trained)
    assert {name.split(".")[0] for name in weights} <= {"visual", "model", "lm_head"}  # as released, for vLLM too
    assert AutoConfig.from_pretrained(folder).attention_supervision["layers"] == [1, 2]
    processor = AutoProcessor.from_pretrained(folder)
    assert processor.chat_template == AutoProcessor.from_pretrained(tiny_model_dir).chat_template
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "pipeline_tag: video-text-to-text" in card and "CC BY-NC 4.0" in card
    finished = json.loads((Path(config.output_dir) / "finished.json").read_text())
    assert f"| steps | {finished['steps']} |" in card and "| learning_rate |" in card and "train.json" in card
    assert str(config.output_dir) not in card
    model, _ = load_for_inference(folder)
    assert model.config.attention_supervision["layers"] == [1, 2]


@pytest.mark.parametrize("lora", [{}, {"lora.r": 4}], ids=["whole", "adapter"])
def test_a_run_its_checkpoint_and_its_export_answer_alike(configure, demo_data, tmp_path, capsys, lora):
    """Every folder says how its model reads videos: the demo's way is far from the paper's."""
    config = configure(max_steps=2, save_strategy="steps", save_steps=2, **lora)
    train(config)
    run, out = Path(config.output_dir), tmp_path / "exported"
    assert export.main([str(run / "checkpoint-2"), "--output", str(out), "--dtype", "float32"]) == 0
    video = json.loads(demo_data.held_out_json.read_text())[0]["video"]
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"video": video, "prompt": "What pattern does the red circle have?"}) + "\n")
    moved = Path(shutil.copytree(run / "checkpoint-2", tmp_path / "elsewhere" / "model"))
    answers, readings = set(), []
    for number, folder in enumerate((run, run / "checkpoint-2", moved, out)):
        store = tmp_path / f"answers_{number}"
        arguments = ["--batch", str(questions), "--video_root", str(demo_data.held_out_json.parent)]
        capsys.readouterr()
        assert infer(["--model", str(folder), *arguments, "--max_new_tokens", "8", "--output", str(store)]) == 0
        assert "at most 4 frames of 784 to 28,224 px" in (said := capsys.readouterr().err)
        assert f"as {folder / 'reading_settings.json'} says" in said
        answers.add((store / "answers.jsonl").read_text())
        readings.append(json.loads((store / "settings.json").read_text())["data"])
    assert len(answers) == 1 and all(reading == readings[0] for reading in readings)
    assert readings[0]["system_prompt"] == config.system_prompt and readings[0]["budget"]["max_frames"] == 4


def test_a_folder_that_does_not_say_how_videos_are_read_is_named(tiny_model_dir, demo_data, capsys):
    video = json.loads(demo_data.held_out_json.read_text())[0]["video"]
    path = demo_data.held_out_json.parent / video
    assert infer(["--model", str(tiny_model_dir), "--video", str(path), "--prompt", "What?", "--max_frames", "2"]) == 0
    said = capsys.readouterr().err
    assert (
        f"{tiny_model_dir} has no reading_settings.json, so the paper's settings hold, but --max_frames as given"
        in said
    )


def test_pixels_that_contradict_each_other_are_refused(tiny_model_dir, demo_data, capsys):
    """The paper's minimum won over a smaller --max_pixels: every frame had more than the user allowed."""
    video = json.loads(demo_data.held_out_json.read_text())[0]["video"]
    path = demo_data.held_out_json.parent / video
    asked = ["--model", str(tiny_model_dir), "--video", str(path), "--prompt", "What?", "--max_pixels", "50000"]
    assert infer(asked) == 2
    assert "min_pixels, 100352, is more than max_pixels, 50000; give both" in capsys.readouterr().err


def push(source, output, hub: Hub | None, home, token: str | None = "hf_secret") -> subprocess.CompletedProcess:
    """Exports and uploads against a hub of one's own; None: one that is not there."""
    command = [
        sys.executable,
        "-m",
        "swim",
        "export",
        str(source),
        "--output",
        str(output),
        "--push_to_hub",
        "me/tiny",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9",
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
    }
    environment |= {"HF_TOKEN": token} if token else {}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_an_upload_is_private_and_whole(tmp_path, tiny_model_dir):
    with Hub({}) as hub:
        done = push(tiny_model_dir, tmp_path / "out", hub, tmp_path / "home")
    assert done.returncode == 0, done.stderr[-2000:]
    assert [(made["name"], made["visibility"]) for made in hub.made] == [("tiny", "private")]
    uploaded, written = hub.files["models/me/tiny"], tmp_path / "out"
    assert uploaded == {path.name: path.read_bytes() for path in written.iterdir()} and "README.md" in uploaded


@pytest.mark.parametrize(
    ("reachable", "token"), [(True, None), pytest.param(False, "hf_secret", marks=pytest.mark.slow)]
)
def test_an_upload_that_fails_says_so_and_keeps_the_folder(tmp_path, tiny_model_dir, reachable, token):
    with Hub({}) as hub:
        done = push(tiny_model_dir, tmp_path / "out", hub if reachable else None, tmp_path / "home", token)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert (
        f"error: me/tiny: not uploaded; {tmp_path / 'out'} is complete" in done.stderr
        and "hf_secret" not in done.stderr
    )
    assert load_file(tmp_path / "out/model.safetensors")


def test_an_adapter_is_merged_into_its_base(configure, exported, tiny_model_dir):
    config = configure(max_steps=2, **{"lora.r": 4, "learning_rate": 0.02})
    train(config)
    folder, weights = exported(config.output_dir, "--dtype", "float32")
    merged, _ = load_for_inference(config.output_dir)
    alone = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    assert merged.config.attention_supervision == alone.config.attention_supervision
    for (name, ours), theirs in zip(alone.named_parameters(), merged.parameters()):
        torch.testing.assert_close(ours, theirs, msg=name)
    base = load_file(tiny_model_dir / "model.safetensors")
    assert any(not torch.allclose(weights[name], base[name]) for name in base)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("nowhere", "no such folder"), ("empty", "neither weights"), ("same", "would overwrite what is exported")],
)
def test_what_cannot_be_exported_is_named(tmp_path, tiny_model_dir, capsys, kind, message):
    (tmp_path / "empty").mkdir()
    source = {"nowhere": tmp_path / "nowhere", "empty": tmp_path / "empty", "same": tiny_model_dir}[kind]
    output = tiny_model_dir if kind == "same" else tmp_path / "out"
    assert export.main([str(source), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {source}") and message in error


def test_cut_weights_are_named(tmp_path, tiny_model_dir, capsys):
    source = tmp_path / "cut"
    shutil.copytree(tiny_model_dir, source)
    weights = load_file(source / "model.safetensors")
    save_file(weights, source / "model.safetensors")
    whole = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    assert export.main([str(source), "--output", str(tmp_path / "out")]) == 2
    assert f"error: {source}: cannot be exported" in capsys.readouterr().err
