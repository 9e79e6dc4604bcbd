"""Which layers of a model look at the object that is named?

    swim layers --model Qwen/Qwen2.5-VL-7B-Instruct --data refined-VideoRefer-Bench-D.json --video_root DIR --output DIR

Scores every layer and head on the tagged nouns of an annotated file (NL-Refer, Bench-D, Bench-Q), and looks for the set of
layers that points best together: each layer is the one that helps most, on one half of the records, and the set is judged
on the other half, beside the default layers. Writes report.json and layers.png; an interrupted run resumes when the same
command is rerun.
"""

from pathlib import Path

from swim.cli.options import add_data_options, add_root_options
from swim.command_line import command_parser
from swim.model_name import DEMO_MODEL


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim layers")
    parser.add_argument(
        "--model", default=str(Path(DEMO_MODEL) / "text_only"), help="checkpoint, LoRA folder or hub name"
    )
    parser.add_argument("--data", help="annotated JSON file (default: the demo's held-out records)")
    add_root_options(parser)
    parser.add_argument("--output", default="output/layers", help="folder of the report")
    parser.add_argument("--size", type=int, help="layers of the set (default: as many as are supervised by default)")
    parser.add_argument("--fusion", choices=("mean", "product"), help="of the set (default: the model's)")
    parser.add_argument(
        "--limit", type=int, default=200, help="the first N records only: their maps are kept on the disk"
    )
    parser.add_argument("--workers", type=int, default=0, help="processes that read videos ahead")
    add_data_options(parser)
    options = parser.parse_args(arguments)
    from swim.cli.runs.layers import run

    return run(options)
