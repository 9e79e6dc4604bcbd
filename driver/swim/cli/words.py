"""Which words look at the object: nouns, attributes, relations?

    swim words --model BASE SWIM --data refined-VideoRefer-Bench-D.json --video_root DIR --output DIR

The words of each referring phrase (English) are classed by a tagger: the tagged head noun, its attributes, relation words and
what they relate to, function words. Pointing, inside and entropy of each class at every layer and fused, with 95 % intervals;
with several models side by side. Writes report.json and words.png, and a folder for each model; an interrupted run resumes
when the same command is rerun.
"""

from swim.cli.options import add_study_options
from swim.command_line import command_parser


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim words")
    add_study_options(parser, "output/words")
    options = parser.parse_args(arguments)
    from swim.cli.runs.words import run

    return run(options)
