"""Consolidates what training left into one checkpoint that everything loads."""

import argparse
import sys

from swim.errors import DataError
from swim.train.export import DTYPES, export, upload


def run(options: argparse.Namespace) -> int:
    try:
        folder = export(options.source, options.output, DTYPES[options.dtype])
        print(f"written: {folder}")
        if options.push_to_hub:
            print(f"uploaded: {upload(folder, options.push_to_hub)}")
    except (DataError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
