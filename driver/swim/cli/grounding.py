"""Grounding: does a model look at the object that is named?

    swim grounding --model BASE SWIM --data refined-VideoRefer-Bench-D.json --video_root DIR --output DIR

Scores the attention of every tagged noun against the masks of an annotated file (NL-Refer, Bench-D, Bench-Q), for nouns
of the question and of the answer apart, at each layer and fused; with two models or more, the differences. Writes
report.json, and for each model a folder with one line per record; an interrupted run resumes when the same command is
rerun. Several processes: `accelerate launch`, or NPROC=8 with the launcher.
"""

from swim.cli.options import add_keep_option, add_study_options
from swim.command_line import command_parser, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim grounding")
    add_study_options(parser, "output/grounding")
    add_keep_option(parser)
    parser.add_argument("--layers", type=whole(0), nargs="+", help="decoder layers (default: those of each checkpoint)")
    options = parser.parse_args(arguments)
    from swim.cli.runs.grounding import run

    return run(options)
