"""Benchmarks are scripts: their folder is where their modules are found."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "driver/benchmarks"
sys.path.insert(0, str(BENCHMARKS))
