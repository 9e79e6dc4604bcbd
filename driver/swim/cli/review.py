"""A page to judge NL-Refer records by eye: frames with outlined masks, and the text with each noun in its mask's colour.

    swim review output/nl_refer/refined-format-train-00000.json --video_root data --output review.html
    swim review FILE --video_root DIR --sample 50 --seed 1 --frames 6 --output review.html

Takes training records, Bench-D and Bench-Q items. The page is one file that needs nothing else. What rejected.jsonl in the
same folder holds is shown with its reasons. "reject" marks a record, "save" keeps all that are marked as skip_list.jsonl, which
`swim check --skip_list` and training's --skip_list leave out; show every record with a large --sample.
"""

from swim.cli.options import add_root_options
from swim.command_line import command_parser, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim review")
    parser.add_argument("file", help="NL-Refer records or bench items (.json, .jsonl, .gz)")
    add_root_options(parser, "the videos are")
    parser.add_argument("--output", default="review.html", help="the page to write")
    parser.add_argument("--sample", type=whole(1), default=20, help="records, and rejected ones, to show")
    parser.add_argument("--seed", type=whole(0), default=0, help="decides which records are drawn")
    parser.add_argument("--frames", type=whole(1), default=4, help="annotated frames of each record")
    options = parser.parse_args(arguments)
    from swim.cli.runs.review import run

    return run(options)
