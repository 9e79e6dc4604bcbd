"""A small benchmark over real demo clips, and commands as users give them."""

import json

import pytest

from swim.demo.bench import Benches, write_benches
from swim.demo.clips import make_demo_data


@pytest.fixture(scope="session")
def benches(tmp_path_factory) -> Benches:
    """Bench-Q (15 questions) and Bench-D (3) files about three held-out clips."""
    data = make_demo_data(tmp_path_factory.mktemp("bench"), train_clips=0, held_out_clips=3, workers=1)
    return write_benches(data.held_out_json)


@pytest.fixture
def small(tiny_model_dir):
    """Function: options of a quick run of the tiny model."""
    budget = ["--max_frames", "4", "--min_pixels", "784", "--max_pixels", "28224", "--max_new_tokens", "6"]
    return lambda *more: ["--model", str(tiny_model_dir), "--batch_size", "4", *budget, *more]


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]
