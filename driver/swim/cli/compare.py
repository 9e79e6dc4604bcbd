"""Two or more evaluations of the same items, joined by item.

    swim compare output/base/bench_q output/swim/bench_q --output output/compare

Each folder is what bench_q or bench_d left. The first is compared with each other one: wins and losses by type, a paired
bootstrap of the difference, McNemar's exact test for right and wrong answers, and the items that changed. Prints
Markdown; writes compare.md and compare.json into `--output`.
"""

import sys
from pathlib import Path

from swim.command_line import command_parser
from swim.eval.compare import compare, read_run, write_comparison


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim compare")
    parser.add_argument(
        "folders", nargs="+", type=Path, help="output folders of bench_q or bench_d, the reference first"
    )
    parser.add_argument("--output", type=Path, default=Path("output/compare"), help="folder of the comparison")
    options = parser.parse_args(arguments)
    try:
        if len(options.folders) < 2:
            raise ValueError("expected at least two folders")
        first, *others = [read_run(folder) for folder in options.folders]
        results = [compare(first, other) for other in others]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(write_comparison(options.output, results))
    return 0
