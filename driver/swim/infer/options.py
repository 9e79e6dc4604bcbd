"""How a video is shown to the model: options shared by every command that asks one."""

import argparse
from dataclasses import replace
from pathlib import Path

from swim.data.sample import DataSettings
from swim.train.config import load_config
from swim.train.run_folder import CONFIG_FILE


def add_data_options(parser: argparse.ArgumentParser):
    """Frame budget and prompt; `data_settings` reads them."""
    trained = "(default: as the model was trained, else the paper's)"
    parser.add_argument("--max_frames", type=int, help=trained)
    parser.add_argument("--fps", type=float, help=f"greatest sampling rate {trained}")
    parser.add_argument("--min_pixels", type=int, help=f"of a frame {trained}")
    parser.add_argument("--max_pixels", type=int, help=f"of a frame {trained}")
    parser.add_argument("--total_pixels", type=int, help=f"of all frames {trained}")
    parser.add_argument("--system_prompt", help=trained)
    parser.add_argument("--released_timing", action="store_true", help="temporal steps of 1 s, as in the released code")


def data_settings(options: argparse.Namespace) -> DataSettings:
    """How videos are read: as given, else as the model was trained, else the paper's.

    Annotated frames are not told to the sampler: that would leak the answer.
    """
    trained = Path(options.model) / CONFIG_FILE
    base = load_config(trained).data_settings if trained.exists() else DataSettings()
    names = ("max_frames", "fps", "min_pixels", "max_pixels", "total_pixels")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return replace(
        base,
        budget=replace(base.budget, **given),
        system_prompt=base.system_prompt if options.system_prompt is None else options.system_prompt,
        released_timing=base.released_timing or options.released_timing,
        keep_annotated_frames=False,
        cache_gb=0.0,
    )
