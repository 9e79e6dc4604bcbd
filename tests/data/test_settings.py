"""How videos are read is found beside the weights, wherever they are."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from swim.data.settings import READING_FILE, DataSettings, describe_reading, find_reading, write_reading
from swim.errors import DataError
from swim.video.clip import VisualBudget

from ..hub import Hub

SETTINGS = DataSettings(
    VisualBudget(max_frames=4, min_pixels=784, max_pixels=28224, total_pixels=10**6, fps=2.5),
    system_prompt="Describe the 狗.",
    mask_resolution=2,
    max_length=500,
    released_timing=True,
    video_reader="decord",
)
FLAT = {"max_frames": 4, "min_pixels": 784, "max_pixels": 28224, "total_pixels": 10**6, "fps": 2.5, "max_length": 500}
FLAT |= {"system_prompt": "Describe the 狗.", "mask_resolution": 2, "released_timing": True, "video_reader": "decord"}


def test_what_is_written_is_found_again(tmp_path):
    write_reading(tmp_path, SETTINGS)
    assert find_reading(tmp_path) == (SETTINGS, str(tmp_path / READING_FILE))
    assert json.loads((tmp_path / READING_FILE).read_text()) == FLAT


def test_what_belongs_to_the_machine_or_to_training_is_not_written(tmp_path):
    write_reading(tmp_path, DataSettings(cache_gb=2.0, time_limit_s=5.0, keep_annotated_frames=False))
    assert find_reading(tmp_path)[0] == DataSettings()


def test_nothing_is_found_where_nothing_says_it(tmp_path):
    assert find_reading(tmp_path) is None
    assert find_reading(tmp_path / "none") is None
    assert find_reading("nobody/has-this-model") is None


def test_an_earlier_run_and_its_checkpoints_have_their_configuration(tmp_path):
    (tmp_path / "train_config.yaml").write_text(yaml.safe_dump({**FLAT, "output_dir": "x", "lora": None}))
    checkpoint, other = tmp_path / "checkpoint-30", tmp_path / "other"
    for folder in (checkpoint, other):
        folder.mkdir()
    where = str(tmp_path / "train_config.yaml")
    assert find_reading(tmp_path) == find_reading(checkpoint) == (SETTINGS, where)
    assert find_reading(other) is None
    write_reading(checkpoint, DataSettings())
    assert find_reading(checkpoint) == (DataSettings(), str(checkpoint / READING_FILE))


def test_an_adapter_without_the_file_is_read_as_its_base_is(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir(), adapter.mkdir()
    write_reading(base, SETTINGS)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert find_reading(adapter) == (SETTINGS, str(base / READING_FILE))
    write_reading(adapter, DataSettings())
    assert find_reading(adapter) == (DataSettings(), str(adapter / READING_FILE))


@pytest.mark.parametrize("base", [None, 3, "", "itself"])
def test_an_adapter_of_nobody_has_none(tmp_path, base):
    base = str(tmp_path) if base == "itself" else base
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    assert find_reading(tmp_path) is None


BROKEN = {
    "no JSON": ("{", "malformed JSON"),
    "a list": ("[]", "expected an object, found list"),
    "an unknown key": ('{"frames": 4}', "frames: Extra inputs are not permitted"),
    "a text": ('{"max_frames": "4"}', "max_frames: Input should be a valid integer, found '4'"),
    "no frame": ('{"max_frames": 0}', "max_frames: "),
    "no number": ('{"fps": NaN}', "fps: "),
    "a number for the prompt": ('{"system_prompt": 3}', "system_prompt: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_does_not_fit_is_named(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / READING_FILE).write_text(content)
    with pytest.raises(DataError) as error:
        find_reading(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / READING_FILE}: ") and message in str(error.value)


def test_the_line_for_people():
    assert describe_reading(SETTINGS) == (
        "at most 4 frames of 784 to 28,224 px, 1,000,000 px in all, 2.5 frames a second, 500 tokens, steps of 1 s, "
        "files read by decord, system prompt 'Describe the 狗.'"
    )


def test_a_model_of_a_hub_has_its_file_there(tmp_path):
    write_reading(tmp_path, SETTINGS)
    content = {READING_FILE: (tmp_path / READING_FILE).read_bytes()}
    code = "from swim.data.settings import find_reading; print(find_reading('me/swim')[0], find_reading('me/base'))"
    with Hub({"models/me/swim": content, "models/me/base": {"config.json": b"{}"}}) as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | own, capture_output=True, text=True)
    assert done.stdout == f"{SETTINGS} None\n", done.stderr[-2000:]
