"""--video_root and --untrusted: where the videos of a file are, and whether the file is trusted."""

import argparse
from pathlib import Path

from swim.data.root import DataRoot, place_of
from swim.video.remote import refuse_credentials


def root_of(options: argparse.Namespace, file: str | Path) -> DataRoot:
    """What the options of `add_root_options` say for a file."""
    refuse_credentials(str(options.video_root or ""))
    return DataRoot(place_of(str(options.video_root or Path(file).parent)), options.untrusted)
