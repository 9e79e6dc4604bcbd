"""The LLaVA-Video supplement: records whose videos can be read, one question and answer each, sampled and reported.

    swim llava --input LLaVA-Video-178K/*/*_oe_*.json --video_root LLaVA-Video-178K         --path "{data_source}/{video}" --sample 100000 --by duration,source         --output data/train/filtered_valid_llava_video_178k_0.json

A record stays when two frames of its video decode. Of a longer conversation the first question and answer stay. `--path`
makes the path below `--video_root` from the record's keys. `--sample N` draws N at random, with `--by` evenly from each
duration, source, or pair of both; what turns out unreadable is replaced by another of its kind. Duration and source come
from `data_source` ("0_30_s_youtube_v0_1"); without one there the duration is the video's. Writes the output and, beside
it, NAME.report.json.
"""

import os

from swim.cli.options import add_root_options
from swim.command_line import command_parser, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim llava")
    parser.add_argument("--input", nargs="+", required=True, help="LLaVA-Video files (.json, .jsonl, .gz)")
    add_root_options(parser, "the videos are", required=True)
    parser.add_argument("--output", required=True, help="a .json file")
    parser.add_argument(
        "--path", default="{video}", help='of a video below --video_root, such as "{data_source}/{video}"'
    )
    parser.add_argument("--sample", type=whole(1), help="how many to keep (default: all that can be read)")
    parser.add_argument("--by", default="", help="duration, source or duration,source: draw evenly from each")
    parser.add_argument("--seed", type=whole(0), default=0, help="decides which records are drawn")
    parser.add_argument("--workers", type=whole(1), default=os.cpu_count(), help="videos opened at a time")
    options = parser.parse_args(arguments)
    from swim.cli.runs.llava import run

    return run(options)
