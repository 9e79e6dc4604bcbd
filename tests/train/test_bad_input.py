"""Bad input ends the command with status 1 and one line that names the place and the remedy."""

import json
import subprocess
import sys

import pytest
import torch

from swim.cli.runs.train import run as main

from .conftest import DEMO_YAML, REPOSITORY


@pytest.fixture
def run(tiny_model_dir, demo_data, tmp_path, capsys):
    """Function: runs the command on a changed copy of the demo's first record; returns (status, stderr)."""

    def execute(change=None, json_text=None, yaml_text=None, **keys):
        record = json.loads(demo_data.train_json.read_text())[0]
        if change is not None:
            change(record)
        (tmp_path / "train.json").write_text(json.dumps([record]) if json_text is None else json_text)
        mixture = {"datasets": [{"json_path": "train.json", "data_root": str(demo_data.data_root)}]}
        (tmp_path / "train.yaml").write_text(json.dumps(mixture) if yaml_text is None else yaml_text)
        keys = {
            "model_name_or_path": tiny_model_dir,
            "data_config": tmp_path / "train.yaml",
            "output_dir": tmp_path / "out",
            "max_steps": 1,
            "disable_tqdm": True,
            **keys,
        }
        status = main(["--config", str(DEMO_YAML), *(f"--{key}={value}" for key, value in keys.items())])
        return status, capsys.readouterr().err

    return execute


def question(text):
    def change(record):
        record["conversations"][0]["value"] = text

    return change


def second_instance(record):
    record["annotation"] *= 2
    record["conversations"][0]["value"] = "<video>\nIs the <ins>a</ins> or the <ins>b</ins> left of the <ins>c</ins>?"


def video(name):
    def change(record):
        record["video"] = name

    return change


CASES = {
    "unclosed tag": (
        {"change": question("<video>\nWhere is the <ins>dog?")},
        "record 0 (videorefer_demo_0): unclosed <ins>",
    ),
    "nested tag": ({"change": question("<ins>a <ins>dog</ins></ins>")}, "record 0 (videorefer_demo_0): nested <ins>"),
    "phrases do not fit": ({"change": second_instance}, "do not fit 2 annotated instances"),
    "missing video": ({"change": video("no.mp4")}, "record 0 (videorefer_demo_0): no such video"),
    "unreadable video": ({"change": video("train.json")}, "record 0 (videorefer_demo_0): unreadable video"),
    "missing field": ({"change": lambda record: record.pop("conversations")}, "conversations: Field required"),
    "malformed JSON": ({"json_text": "[{"}, "train.json, record 0: malformed JSON"),
    "malformed YAML": ({"yaml_text": "datasets: ["}, "train.yaml: malformed YAML"),
    "unknown mixture key": ({"yaml_text": "datasets: [{json: a}]"}, "train.yaml: datasets.0.json"),
    "missing JSON": ({"yaml_text": "datasets: [{json_path: no.json}]"}, "no.json: no such file"),
    "missing data config": ({"data_config": "no.yaml"}, "no.yaml: no such data config"),
    "unknown key": ({"learning_rat": 1}, "unknown key 'learning_rat'"),
    "layer beyond the model": ({"attention_supervision.layers": "[1, 4]"}, "layers: expected indices from 0 to 3"),
    "unknown option": ({"attention_supervision.layer": "[1]"}, "unknown option layer"),
    "missing model": (
        {"model_name_or_path": "no/such/folder"},
        "model_name_or_path: cannot load the model no/such/folder: no such folder",
    ),
    "bad trainer argument": ({"lr_scheduler_type": "square"}, "the trainer refuses its arguments"),
    "nothing to resume": ({"resume_from_checkpoint": "true"}, "holds no complete checkpoint"),
}


@pytest.mark.parametrize(("arguments", "message"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_one_clear_line(run, monkeypatch, arguments, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, error = run(**arguments)
    assert status == 1
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0], error
    assert "Traceback" not in error


def test_an_error_in_a_data_worker_is_as_clear(run):
    status, error = run(change=video("train.json"), dataloader_num_workers=1)
    assert status == 1
    assert "error: " in error and "unreadable video" in error.splitlines()[-1] and "Traceback" not in error


def test_the_command_line_itself():
    """A real process: status 1, one line, no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "swim", "train", "--config", str(DEMO_YAML), "--no_such_key", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ") and "no_such_key" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"attention_supervision.layres": "[1]"},
            "attention_supervision: unknown option layres, did you mean 'layers'?",
        ),
        ({"yaml_text": "datasets: [{json_pth: a}]"}, "datasets.0.json_pth: unknown key; did you mean 'json_path'?"),
        ({"yaml_text": "dataset: [{json_path: a}]"}, "dataset: unknown key; did you mean 'datasets'?"),
        (
            {"attn_implementation": "flash_attention_2"},
            "flash_attention_2 cannot run here, no GPU is there; bash setup.sh --flash-attn builds FlashAttention 2 for a "
            "GPU; kernels-community/flash-attn2 is fetched ready-made from the hub (pip install kernels); "
            "--attn_implementation auto does without",
        ),
        (
            {"attn_implementation.text_config": "flash_attention_3"},
            "flash_attention_3 cannot run here, no GPU is there",
        ),
        (
            {"attn_implementation.vison_config": "sdpa"},
            "attn_implementation: no part 'vison_config'; expected text_config or vision_config",
        ),
        ({"change": video("no.mp4")}, "no.mp4; fix the record, or data_root (--video_root)"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is missing without a GPU")
def test_a_message_has_the_next_step(run, monkeypatch, arguments, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    status, error = run(**arguments)
    assert status == 1 and "Traceback" not in error
    assert message in error.splitlines()[-1], error


def test_the_papers_configuration_without_data_names_the_download_before_anything_is_loaded(tmp_path):
    """It waited for DeepSpeed and for the hub, and then named no remedy."""
    config = REPOSITORY / "run_scripts/configs/sft_7b.yaml"
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-m",
            "swim",
            "train",
            "--config",
            str(config),
            "--output_dir",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 1
    last = next(line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "no file fits this pattern; fetch the data with bash " in last
    assert "run_scripts/download.sh, or fix json_path" in last
    assert "deepspeed.runtime" not in done.stderr  # which takes half a minute to import


def test_an_interrupted_runs_folder_names_its_checkpoint(run, tmp_path):
    (tmp_path / "old" / "checkpoint-30").mkdir(parents=True)
    (tmp_path / "old" / "checkpoint-30" / "config.json").write_text("{}")
    status, error = run(model_name_or_path=str(tmp_path / "old"))
    assert status == 1 and f"its last checkpoint is {tmp_path}/old/checkpoint-30: name that" in error.splitlines()[-1]
