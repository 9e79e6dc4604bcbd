"""Which words look at the object: nouns, attributes, relations?

    swim words --model BASE SWIM --data refined-VideoRefer-Bench-D.json --video_root DIR --output DIR

The words of each referring phrase (English) are classed by a tagger: the tagged head noun, its attributes, relation words and
what they relate to, function words. Pointing, inside and entropy of each class at every layer and fused, with 95 % intervals;
with several models side by side. Writes report.json and words.png, and a folder for each model; an interrupted run resumes
when the same command is rerun.
"""

from pathlib import Path

from swim.cli.options import add_data_options, add_root_options
from swim.command_line import command_parser
from swim.model_name import DEMO_MODEL


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim words")
    demo = [str(Path(DEMO_MODEL) / "text_only"), DEMO_MODEL]
    parser.add_argument("--model", nargs="+", default=demo, help="one or more")
    parser.add_argument("--data", help="annotated JSON file (default: the demo's held-out records)")
    add_root_options(parser)
    parser.add_argument("--output", default="output/words", help="folder of the report")
    parser.add_argument("--limit", type=int, help="the first N records only")
    parser.add_argument("--workers", type=int, default=0, help="processes that read videos ahead")
    add_data_options(parser)
    options = parser.parse_args(arguments)
    from swim.cli.runs.words import run

    return run(options)
