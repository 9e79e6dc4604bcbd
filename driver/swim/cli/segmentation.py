"""Referring segmentation: the attention of a named object as its mask.

    swim segmentation --model BASE SWIM --data refined-VideoRefer-Bench-D.json --video_root DIR --output DIR

The fused map of each tagged object is scaled step by step, enlarged to the frame and cut at a threshold; the mask is scored
against the annotated one by DAVIS' J and F and by its box. The threshold is learnt on one half of the records and used on the
other, or taken from the report of another file (--threshold_from). With several models, differences with intervals. Writes
report.json, and for each model a folder with its maps; an interrupted run resumes when the same command is rerun.
"""

from swim.cli.options import add_keep_option, add_study_options
from swim.command_line import command_parser


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim segmentation")
    add_study_options(parser, "output/segmentation")
    add_keep_option(parser)
    parser.add_argument("--threshold_from", metavar="REPORT", help="report.json of another file, with the same models")
    options = parser.parse_args(arguments)
    from swim.cli.runs.segmentation import run

    return run(options)
