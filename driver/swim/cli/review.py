"""A page to judge NL-Refer records by eye: frames with outlined masks, and the text with each noun in its mask's colour.

    swim review output/nl_refer/refined-format-train-00000.json --video_root data --output review.html
    swim review FILE --video_root DIR --sample 50 --seed 1 --frames 6 --output review.html

Takes training records, Bench-D and Bench-Q items. The page is one file that needs nothing else. What rejected.jsonl in the
same folder holds is shown with its reasons.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from swim.cli.roots import add_root_options, root_of
from swim.command_line import command_parser
from swim.construct.review import console, sample_records, show_record, write_page
from swim.construct.run import REJECTED
from swim.errors import DataError
from swim.files import read_json_lines


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim review")
    parser.add_argument("file", help="NL-Refer records or bench items (.json, .jsonl, .gz)")
    add_root_options(parser, "the videos are")
    parser.add_argument("--output", default="review.html", help="the page to write")
    parser.add_argument("--sample", type=int, default=20, help="records, and rejected ones, to show")
    parser.add_argument("--seed", type=int, default=0, help="decides which records are drawn")
    parser.add_argument("--frames", type=int, default=4, help="annotated frames of each record")
    options = parser.parse_args(arguments)
    try:
        path = Path(options.file)
        if options.sample < 1 or options.frames < 1:
            raise ValueError("--sample and --frames must be 1 or more")
        root = root_of(options, path)
        chosen, total = sample_records(path, options.sample, options.seed)
        shown = [
            show_record(raw, f"{path}, record {position}", root, options.frames)
            for position, raw in tqdm(chosen, desc="drawing", unit="record")
        ]
        rejected = list(read_json_lines(path.parent / REJECTED))
        write_page(Path(options.output), path.name, shown, total, rejected, options.sample)
    except (DataError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(f"written: {options.output}, {len(shown)} of {total:,} records")
    return 0
