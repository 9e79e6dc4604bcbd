"""NL-Refer records from videos and words, or clicks: SAM finds and follows the objects.

    swim from-words --model facebook/sam3 --video *.mp4 --phrases "the <ins>dog</ins> on the bed" --output output/dogs
    swim from-words --model facebook/sam2.1-hiera-large --objects clicks.json --video_root DIR --output output/clicked

SAM 3 takes words: every phrase is looked for in every video. SAM 2 takes clicks. FILE of --objects is a JSON list of {"video",
"phrase"}, with clicks also {"frame": number, "points": [[x, y], ...] in px, "labels"?: [1 on it, 0 beside it], "box"?: [left,
top, right, bottom]}. In a phrase "the <ins>dog</ins> on the bed" marks the noun; without tags all but a leading article.

By default one record names all objects of a video. With --caption_model any OpenAI-compatible model (key in OPENAI_API_KEY alone)
writes a description of each object, which becomes a record of its own. Replies are kept and never paid for twice.

Writes records.json, whose masks carry their confidence; rejected.jsonl, what was not found, not surely enough or more than once;
report.json. Each video is searched once: rerun an interrupted command to go on. Several processes: NPROC=8 with the launcher.
`swim review` shows the records, and keeps a list of those that you reject.
"""

from swim.cli.options import add_endpoint_options, add_root_options
from swim.command_line import above, command_parser, number, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim from-words")
    parser.add_argument(
        "--model", required=True, help="checkpoint or hub name of SAM 3 (words) or SAM 2 (clicks) for videos"
    )
    parser.add_argument("--video", nargs="+", default=[], help="videos, or folders of frames")
    parser.add_argument("--phrases", nargs="+", default=[], help="what is looked for in each of them")
    parser.add_argument("--objects", help="JSON file of videos with phrases, or clicks")
    add_root_options(parser, "the videos are")
    parser.add_argument("--output", required=True, help="folder of the records")
    parser.add_argument("--max_frames", type=whole(1), default=128, help="maximum frames of a video that are searched")
    parser.add_argument("--fps", type=above(0), default=4.0, help="maximum of them per second")
    parser.add_argument(
        "--min_confidence", type=number(0, 1), default=0.5, help="from 0 to 1; a mask below it is not written"
    )
    parser.add_argument(
        "--several",
        choices=("refuse", "best", "all"),
        default="refuse",
        help="a phrase that fits several objects: refuse it, take the surest, or all as one mask",
    )
    parser.add_argument("--caption_model", metavar="M", help="describes each object; it sees it outlined")
    parser.add_argument("--with_frames", type=whole(0), default=4, metavar="K", help="outlined frames that it sees")
    add_endpoint_options(parser)
    parser.add_argument("--device", help="such as cuda:0 (default: the process's GPU, else the CPU)")
    options = parser.parse_args(arguments)
    from swim.cli.runs.from_words import run

    return run(options)
