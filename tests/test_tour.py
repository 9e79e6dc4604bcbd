"""The notebook of the tour runs from its first to its last cell on what training leaves."""

import json
from pathlib import Path

from PIL import Image

from swim.cli.train import main

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = json.loads((ROOT / "docs/tour.ipynb").read_text())
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
# The demo in small: enough steps for an answer, right or wrong.
SMALL = {"max_steps": 15, "demo.train_clips": 40, "demo.held_out_clips": 2, "warmup_steps": 0}


def test_the_tour_runs_on_a_small_demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [f"--{key}={value}" for key, value in SMALL.items()]
    assert main(["--config", str(ROOT / "run_scripts/configs/sft_demo.yaml"), *options]) == 0
    seen = {}
    for cell in CODE:
        exec(compile(cell, "tour.ipynb", "exec"), seen)
    assert isinstance(seen["answer"], str) and seen["answer"].strip()
    assert "<ins>" in seen["question"]
    with Image.open(tmp_path / "output/tour.png") as picture:
        assert picture.width > picture.height > 0 and len(picture.convert("L").getcolors()) > 16


def test_the_notebook_holds_no_outputs():
    assert all(cell["outputs"] == [] for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code")
