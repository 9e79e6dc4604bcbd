"""Brings what a mixture needs into one folder: its records, and of their videos what these name.

    swim gather data_config/first_try.yaml --output data/first_try

The strategies of the mixture say which records (`first:100`). Their videos may lie in tar archives or on object stores: only the
members that are needed are read, by range. Writes NAME.json, videos/NAME/..., mixture.yaml, which names both, and missing.jsonl,
the records that are left out because their video cannot be had; the status is then 1. What is there already is not fetched
again: rerun the command after a kill.
"""

from swim.command_line import command_parser, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim gather")
    parser.add_argument("config", help="mixture YAML")
    parser.add_argument("--output", required=True, help="folder of records and videos")
    parser.add_argument("--seed", type=whole(0), default=0, help="decides which records a random strategy draws")
    parser.add_argument("--concurrency", type=whole(1), default=8, help="videos at a time")
    options = parser.parse_args(arguments)
    from swim.cli.runs.gather import run

    return run(options)
