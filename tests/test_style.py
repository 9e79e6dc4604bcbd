"""Lint, format and types, as .ruff.toml and driver/pyproject.toml say."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("check", [["check"], ["format", "--check", "--diff"]], ids=["lint", "format"])
def test_ruff_finds_nothing(check):
    done = subprocess.run([sys.executable, "-m", "ruff", *check, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"{done.stdout[-6000:]}\n{done.stderr[-500:]}\nruff check --fix . and ruff format . mend most"
    )


def test_mypy_finds_nothing():
    """Of the driver alone: the fork's files are typed as upstream's are."""
    command = [sys.executable, "-m", "mypy", "--config-file", "driver/pyproject.toml", "driver/swim"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-500:]}"
