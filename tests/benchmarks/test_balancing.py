"""The simulated gain: none where nothing can be gained, and what can be told by hand."""

import json
import random
import subprocess
import sys

import balancing
import pytest

from .conftest import BENCHMARKS


def test_nothing_is_gained_from_one_length_nor_from_one_micro_step():
    rng = random.Random(0)
    assert balancing.simulate([100] * 64, 4, 4, rng) == {"unsorted": 1.0, "sorted": 1.0, "gain": 1.0}
    lengths = [rng.randint(1, 9000) for _ in range(64)]
    result = balancing.simulate(lengths, 4, 1, rng)
    assert result["unsorted"] == result["sorted"] > 1


def test_two_lengths_in_equal_numbers_need_no_waiting_when_each_step_has_both():
    """65,000 tokens cost twice as much as their number: a micro-step with one of them and a free one lasts twice the mean."""
    lengths, order = [65_000, 0] * 4, [0, 1, 2, 3, 4, 5, 6, 7]
    assert balancing.cost(65_000) == 130_000
    assert balancing.duration(order, lengths, processes=2) == 4 * 130_000
    assert balancing.duration([0, 2, 1, 3, 4, 6, 5, 7], lengths, processes=2) == 2 * 130_000


@pytest.mark.parametrize("own", [False, True])
def test_it_prints_the_gain_of_each_mixture(tmp_path, own):
    command = [sys.executable, str(BENCHMARKS / "balancing.py"), "--samples", "2000", "--accumulation", "4"]
    path = tmp_path / "lengths.json"
    path.write_text(json.dumps({"files": {"0": {"file": "a.json", "tokens": [500, 9000, None, -1] * 64}}}))
    done = subprocess.run([*command, *(["--lengths", str(path)] if own else [])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["computed"]
    assert len(found) == (1 if own else 3) and all(result["gain"] > 1 for result in found.values())
