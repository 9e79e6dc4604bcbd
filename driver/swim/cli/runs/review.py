"""A page to judge NL-Refer records by eye: frames with outlined masks, and the text with each noun in its mask's colour."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from swim.cli.runs.roots import root_of
from swim.construct.review import console, sample_records, show_record, write_page
from swim.construct.run import REJECTED
from swim.errors import DataError
from swim.files import read_json_lines


def run(options: argparse.Namespace) -> int:
    try:
        path = Path(options.file)
        root = root_of(options, path)
        chosen, total = sample_records(path, options.sample, options.seed)
        shown = [
            show_record(raw, path, position, root, options.frames)
            for position, raw in tqdm(chosen, desc="drawing", unit="record")
        ]
        rejected = list(read_json_lines(path.parent / REJECTED))
        write_page(Path(options.output), path, shown, total, rejected, options.sample)
    except (DataError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(f"written: {options.output}, {len(shown)} of {total:,} records")
    return 0
