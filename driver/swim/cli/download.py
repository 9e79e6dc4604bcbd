"""Brings weights and data from the hub: `swim download --help`.

Everything goes below --dir: data/NL-Refer (benchmarks, scripts), data/SWIM_data (training records), models/SWIM-7B and
models/Qwen2.5-VL-7B-Instruct (what training starts from). HF_ENDPOINT names a mirror, HF_TOKEN an account. What is there
already stays; an interrupted download resumes when the same command is rerun.
"""

import sys
from pathlib import Path

from swim.command_line import RawHelp, command_parser, whole
from swim.download import HubError, chosen, download


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "download.sh")
    parser.description, parser.formatter_class = __doc__, RawHelp
    parser.add_argument("--model", action="store_true", help="SWIM-7B and Qwen2.5-VL-7B-Instruct, 17 GB each")
    parser.add_argument("--data", action="store_true", help="benchmarks and training records")
    parser.add_argument("--bench-only", action="store_true", help="of the data the benchmarks alone")
    subset = "of the data the first N shards of each kind, for a first try"
    parser.add_argument("--subset", type=whole(1), metavar="N", help=subset)
    parser.add_argument("--dir", type=Path, default=Path(), help="where everything goes")
    options = parser.parse_args(arguments)
    if options.data and options.bench_only:
        parser.error("--data and --bench-only: give one of them")
    try:
        repositories = chosen(options.model, options.data, options.bench_only, options.subset)
        download(repositories, options.dir, options.subset)
    except HubError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
