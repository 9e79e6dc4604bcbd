"""Which layers of a model look at the object that is named?

    swim layers --model Qwen/Qwen2.5-VL-7B-Instruct --data refined-VideoRefer-Bench-D.json --video_root DIR --output DIR

Scores every layer and head on the tagged nouns of an annotated file (NL-Refer, Bench-D, Bench-Q), and looks for the set of
layers that points best together: each layer is the one that helps most, on one half of the records, and the set is judged
on the other half, beside the default layers. Writes report.json and layers.png; an interrupted run resumes when the same
command is rerun.
"""

from swim.cli.options import add_study_options
from swim.command_line import command_parser, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim layers")
    add_study_options(parser, "output/layers", several=False, limit=200)
    parser.add_argument("--size", type=whole(1), help="layers of the set (default: as many as are supervised)")
    parser.add_argument("--fusion", choices=("mean", "product"), help="of the set (default: the model's)")
    options = parser.parse_args(arguments)
    from swim.cli.runs.layers import run

    return run(options)
