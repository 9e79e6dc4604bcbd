"""--video_root and --untrusted: where the videos of a file are, and whether the file is trusted."""

import argparse
from pathlib import Path

from swim.data.root import DataRoot


def add_root_options(parser: argparse.ArgumentParser, what: str = "the records' videos are", required: bool = False):
    """--video_root and --untrusted, for `root_of`."""
    default = "" if required else " (default: the file's folder)"
    parser.add_argument("--video_root", required=required, help=f"what {what} relative to{default}")
    parser.add_argument(
        "--untrusted",
        action="store_true",
        help="others made the file: refuse URLs, and paths that lead out of --video_root (default: allow both)",
    )


def root_of(options: argparse.Namespace, file: str | Path) -> DataRoot:
    """What the options of `add_root_options` say for a file."""
    return DataRoot(Path(options.video_root or Path(file).parent), options.untrusted)
