"""Published numbers to stand beside the measured ones, each with its source and, where there is one, its judge."""

from dataclasses import dataclass

PAPER = "See What I Mean, arXiv 2605.18018"


@dataclass(frozen=True)
class Published:
    """value: Bench-Q in per cent, Bench-D from 0 to 5."""

    model: str
    value: float
    source: str
    note: str = ""


_JUDGE = "judged by GPT-4o; published figures mix three judge settings, differences near 0.05 mean little"

# Items of the whole benchmarks: an accuracy of other items is no neighbour of the published one.
BENCH_Q_ITEMS, BENCH_D_ITEMS = 1000, 400

BENCH_Q = (
    Published("SWIM-7B", 78.3, PAPER, "Basic 83.8"),
    Published("Qwen2.5-VL-7B (base)", 71.8, PAPER),
    Published("VideoRefer-VideoLLaMA3-7B", 80.1, PAPER),
    Published("PixelRefer-7B", 79.4, PAPER),
    Published("VideoRefer-7B", 71.9, PAPER),
    Published("GPT-4o", 71.3, PAPER),
)
BENCH_D = (
    Published("SWIM-7B", 3.78, PAPER, f"Subject Correspondence 4.92; {_JUDGE}"),
    Published("Qwen2.5-VL-7B (base, same prompts)", 3.24, PAPER, _JUDGE),
    Published("VideoRefer-VideoLLaMA3-7B", 3.72, PAPER, _JUDGE),
    Published("PixelRefer-7B", 3.70, PAPER, _JUDGE),
    Published("DAM-8B", 3.68, PAPER, _JUDGE),
    Published("VideoRefer-7B", 3.46, PAPER, _JUDGE),
)
