"""The LLaVA-Video supplement: records whose videos can be read, one question and answer each, sampled and reported.

    swim llava --input LLaVA-Video-178K/*/*_oe_*.json --video_root LLaVA-Video-178K \
        --path "{data_source}/{video}" --sample 100000 --by duration,source \
        --output data/train/filtered_valid_llava_video_178k_0.json

A record stays when two frames of its video decode. Of a longer conversation the first question and answer stay. `--path`
makes the path below `--video_root` from the record's keys. `--sample N` draws N at random, with `--by` evenly from each
duration, source, or pair of both; what turns out unreadable is replaced by another of its kind. Duration and source come
from `data_source` ("0_30_s_youtube_v0_1"); without one there the duration is the video's. Writes the output and, beside
it, NAME.report.json.
"""

import argparse
import sys
from pathlib import Path

from rich.table import Table

from swim.cli.runs.roots import root_of
from swim.construct.llava import console, filter_records
from swim.errors import DataError


def print_report(report: dict, output: Path):
    table = Table(title=f"{report['records']:,} records, {report['kept']:,} kept")
    table.add_column("")
    table.add_column("records", justify="right")
    for name, count in report["kept_by_duration_and_source"].items():
        table.add_row(name, f"{count:,}")
    table.add_section()
    for reason, count in report["dropped"].items():
        table.add_row(reason, f"{count:,}", style="dim")
    table.add_row("not drawn", f"{report['not_drawn']:,}", style="dim")
    console.print(table)
    console.print(f"{report['shortened_to_one_turn']:,} conversations shortened to one turn. Written: {output}")


def run(options: argparse.Namespace) -> int:
    try:
        files = [Path(path) for path in options.input]
        report = filter_records(
            files,
            root_of(options, files[0]),
            Path(options.output),
            options.path,
            options.sample,
            [name for name in options.by.split(",") if name],
            options.seed,
            options.workers,
        )
    except (DataError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(report, Path(options.output))
    return 0
