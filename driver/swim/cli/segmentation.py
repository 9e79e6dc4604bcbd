"""Referring segmentation: the attention of a named object as its mask.

    swim segmentation --model BASE SWIM --data refined-VideoRefer-Bench-D.json --video_root DIR --output DIR

The fused map of each tagged object is scaled step by step, enlarged to the frame and cut at a threshold; the mask is scored
against the annotated one by DAVIS' J and F and by its box. The threshold is learnt on one half of the records and used on the
other, or taken from the report of another file (--threshold_from). With several models, differences with intervals. Writes
report.json, and for each model a folder with its maps; an interrupted run resumes when the same command is rerun.
"""

from pathlib import Path

from swim.cli.options import add_data_options, add_root_options
from swim.command_line import command_parser
from swim.model_name import DEMO_MODEL


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim segmentation")
    demo = [str(Path(DEMO_MODEL) / "text_only"), DEMO_MODEL]
    parser.add_argument("--model", nargs="+", default=demo, help="one or more; differences are against the first")
    parser.add_argument("--data", help="annotated JSON file (default: the demo's held-out records)")
    add_root_options(parser)
    parser.add_argument("--output", default="output/segmentation", help="folder of the report")
    parser.add_argument("--threshold_from", metavar="REPORT", help="report.json of another file, with the same models")
    parser.add_argument("--limit", type=int, help="the first N records only")
    parser.add_argument("--workers", type=int, default=0, help="processes that read videos ahead")
    parser.add_argument(
        "--keep_annotated_frames", action="store_true", help="tell the frame sampler which frames are annotated"
    )
    add_data_options(parser)
    options = parser.parse_args(arguments)
    from swim.cli.runs.segmentation import run

    return run(options)
