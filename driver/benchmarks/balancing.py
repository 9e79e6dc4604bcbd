"""What the training key `lengths` saves: the time that processes wait for the one with the longest sample, simulated.

    python driver/benchmarks/balancing.py                                         # three made-up mixtures
    python driver/benchmarks/balancing.py --lengths output/check/my/lengths.json  # one's own, as swim check measured it

A micro-step lasts as long as its longest sample takes. A sample of L tokens takes L + L^2 / 65,000 units: in the 7B's
language model attention between tokens costs 2 * 28 * 3584 operations per pair under a causal mask, the rest 13e9 per token.
Steps are drawn at random, as a shuffled epoch does. Nothing is measured here: the numbers are computed. The last line of
output is one JSON object.
"""

import argparse
import json
import random
from pathlib import Path

from swim.data.lengths import measured_tokens
from swim.train.balancing import SortedSteps

# 32 frames: at 720p under the budget's limit of pixels, at 360p below it; words come on top.
FULL, SMALL, WORDS = 11_800, 4_700, (100, 400)
MIXTURES = {
    "720p, a fifth of shorter clips": [(0.8, (FULL, FULL)), (0.2, (2_000, FULL))],
    "half 720p, half 360p": [(0.5, (FULL, FULL)), (0.5, (SMALL, SMALL))],
    "720p, 360p, pictures and text": [(0.5, (FULL, FULL)), (0.3, (SMALL, SMALL)), (0.2, (0, 1_500))],
}


def draw(mixture: list[tuple[float, tuple[int, int]]], rng: random.Random) -> int:
    """Tokens of a sample. mixture: (share, lowest and highest number of visual tokens)."""
    (bounds,) = rng.choices([bounds for _, bounds in mixture], [share for share, _ in mixture])
    return rng.randint(*bounds) + rng.randint(*WORDS)


def cost(tokens: int) -> float:
    return tokens + tokens**2 / 65_000


def duration(order: list[int], lengths: list[int], processes: int) -> float:
    """Of an epoch in this order of its rows: that of the longest sample of each micro-step, summed."""
    costs = [cost(lengths[row]) for row in order]
    return sum(max(costs[first : first + processes]) for first in range(0, len(costs), processes))


def simulate(lengths: list[int], processes: int, accumulation: int, rng: random.Random) -> dict[str, float]:
    """Durations relative to one without any waiting, of rows in random order and sorted within each step."""
    order = rng.sample(range(len(lengths)), len(lengths) - len(lengths) % (processes * accumulation))
    least = sum(cost(lengths[row]) for row in order) / processes
    plain = duration(order, lengths, processes) / least
    ordered = duration(list(SortedSteps(order, lengths, processes, accumulation)), lengths, processes) / least
    return {"unsorted": round(plain, 3), "sorted": round(ordered, 3), "gain": round(plain / ordered, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--accumulation", type=int, nargs="+", default=[1, 4, 8], help="micro-steps of a step")
    parser.add_argument("--samples", type=int, default=100_000, help="of each made-up mixture")
    parser.add_argument("--lengths", type=Path, help="lengths.json of one's own mixture")
    options = parser.parse_args()
    rng = random.Random(0)
    if options.lengths is None:
        mixtures = {name: [draw(mixture, rng) for _ in range(options.samples)] for name, mixture in MIXTURES.items()}
    else:
        mixtures = {str(options.lengths): measured_tokens(options.lengths)}
    found = {}
    print(f"{options.processes} processes; 1 is a run in which nobody waits (computed)")
    for name, lengths in mixtures.items():
        for accumulation in options.accumulation:
            result = simulate(lengths, options.processes, accumulation, rng)
            found[f"{name}, accumulation {accumulation}"] = result
            print(
                f"{name}, accumulation {accumulation}: " + ", ".join(f"{key} {value}" for key, value in result.items())
            )
    report = {
        "benchmark": "balancing",
        "computed": found,
        "settings": vars(options) | {"lengths": str(options.lengths)},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
