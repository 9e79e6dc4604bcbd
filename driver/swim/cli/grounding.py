"""Grounding: does a model look at the object that is named?

    swim grounding --model BASE SWIM --data refined-VideoRefer-Bench-D.json --video_root DIR --output DIR

Scores the attention of every tagged noun against the masks of an annotated file (NL-Refer, Bench-D, Bench-Q), for nouns
of the question and of the answer apart, at each layer and fused; with two models or more, the differences. Writes
report.json, and for each model a folder with one line per record; an interrupted run resumes when the same command is
rerun. Several processes: `accelerate launch`, or NPROC=8 with the launcher.
"""

from pathlib import Path

from swim.cli.options import add_data_options, add_root_options
from swim.command_line import command_parser
from swim.model_name import DEMO_MODEL


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim grounding")
    demo = [str(Path(DEMO_MODEL) / "text_only"), DEMO_MODEL]
    parser.add_argument("--model", nargs="+", default=demo, help="one or more; differences are against the first")
    parser.add_argument("--data", help="annotated JSON file (default: the demo's held-out records)")
    add_root_options(parser)
    parser.add_argument("--output", default="output/grounding", help="folder of the report")
    parser.add_argument("--layers", type=int, nargs="+", help="decoder layers (default: those of each checkpoint)")
    parser.add_argument("--limit", type=int, help="the first N records only")
    parser.add_argument("--workers", type=int, default=0, help="processes that read videos ahead, per process")
    parser.add_argument(
        "--keep_annotated_frames", action="store_true", help="tell the frame sampler which frames are annotated"
    )
    add_data_options(parser)
    options = parser.parse_args(arguments)
    from swim.cli.runs.grounding import run

    return run(options)
