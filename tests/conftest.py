"""What the tests share: the options of pytest, test data, tiny models and their processors.

`tests` and `tests/transformers` are packages, so that pytest calls a test module `tests.transformers.test_mrope`.
As `transformers.test_mrope` it would take the place of the real transformers.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# `python -m pytest` inside tests/ puts this folder on the path, and tests/transformers before the real one.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from transformers import AutoProcessor  # noqa: E402

from swim.demo.clips import DemoData, make_demo_data  # noqa: E402
from swim.demo.model import DEMO_FAMILY, build_tiny_model  # noqa: E402
from swim.models import MODEL_TYPES  # noqa: E402

from .transformers import inputs  # noqa: E402

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch.set_num_threads(1)
hypothesis.settings.register_profile("swim", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("swim")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: "train" not in item.path.parts)  # the longest first: two processes end together
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: runs with --slow"))


@pytest.fixture(scope="session", autouse=True)
def swim_cache(tmp_path_factory) -> Path:
    """$SWIM_CACHE of all tests and of the processes that they start: never the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("swim_cache")
        patch.setenv("SWIM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real clips and the real tokenizer: $SWIM_TEST_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("SWIM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set SWIM_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_model_dirs(tmp_path_factory) -> dict[str, Path]:
    """By family: checkpoint folder of the demo's tiny model with a tokenizer of its own."""
    root = tmp_path_factory.mktemp("tiny_models")
    return {name: build_tiny_model(root / name, model_type=name) for name in MODEL_TYPES}


@pytest.fixture(scope="session")
def tiny_model_dir(tiny_model_dirs) -> Path:
    return tiny_model_dirs[DEMO_FAMILY]


@pytest.fixture(scope="session")
def tiny_processor(tiny_model_dir):
    return AutoProcessor.from_pretrained(tiny_model_dir, local_files_only=True)


@pytest.fixture(scope="session")
def real_processor_dirs(tmp_path_factory, test_data) -> dict[str, Path]:
    """By family: checkpoint folder of the demo's tiny model built around Qwen's real tokenizer."""
    tokenizer = test_data / "qwen_tokenizer"
    if not (tokenizer / "tokenizer.json").is_file():
        pytest.skip(f"no real Qwen tokenizer at {tokenizer}")
    root = tmp_path_factory.mktemp("real_tokenizers")
    return {name: build_tiny_model(root / name, tokenizer_dir=tokenizer, model_type=name) for name in MODEL_TYPES}


@pytest.fixture(scope="session")
def real_processor_dir(real_processor_dirs) -> Path:
    return real_processor_dirs[DEMO_FAMILY]


@pytest.fixture(scope="session")
def real_processor(real_processor_dir):
    return AutoProcessor.from_pretrained(real_processor_dir, local_files_only=True)


@pytest.fixture(scope="session")
def make_tiny_config():
    """Function: the configuration of a small random Qwen2.5-VL, see tests/transformers/inputs.py."""
    return inputs.make_tiny_config


@pytest.fixture(scope="session")
def make_tiny_model():
    """Function: a small random Qwen2.5-VL, see tests/transformers/inputs.py."""
    return inputs.make_tiny_model


@pytest.fixture(params=inputs.FAMILIES)
def each_family(request) -> Iterator[inputs.TinyFamily]:
    """Small models and their batches are of each family in turn."""
    with inputs.of_family(request.param) as family:
        yield family


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory) -> DemoData:
    return make_demo_data(tmp_path_factory.mktemp("demo"), train_clips=6, held_out_clips=2, workers=1)


@pytest.fixture
def data_of(demo_data, tmp_path):
    """Function: the data config of these records, changed ones of the demo's, with its videos."""

    def make(records: list[dict]) -> Path:
        (tmp_path / "train.json").write_text(json.dumps(records))
        mixture = {"datasets": [{"json_path": "train.json", "data_root": str(demo_data.data_root)}]}
        (tmp_path / "train.yaml").write_text(json.dumps(mixture))
        return tmp_path / "train.yaml"

    return make


@pytest.fixture
def small_disk(tmp_path):
    """Function: a file system of so many bytes, mounted."""
    mounted = []

    def make(size: int) -> Path:
        place = tmp_path / "small"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.decode().strip()}")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)
