"""Does attention tell what the video supports from what it does not?

    swim evidence --model BASE SWIM --items FILE --video_root DIR --output DIR

An item of FILE (a JSON list) judges one word: {"video", "prompt": "What does the <ins>dog</ins> do?", "supported": true or
false} the tagged noun of the question, which is in the video or not; with "answer" and "word" that word of a given answer,
which is right or not; "kind" names it in the report. How much, how sharply and how steadily the word looks becomes one score,
fitted on one half of the videos and judged on the other by AUROC, beside the probability that the model gives its words.

Writes report.json, and for each model a folder with evidence.json, which `swim infer --evidence` takes. An interrupted run
resumes when the same command is rerun. Without --items: the demo's held-out clips.
"""

from swim.cli.options import add_study_options
from swim.command_line import command_parser


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim evidence")
    what = ("--items", "JSON file of judged words (default: about the demo's held-out clips)")
    add_study_options(parser, "output/evidence", file=what)
    options = parser.parse_args(arguments)
    from swim.cli.runs.evidence import run

    return run(options)
