"""NL-Refer records from an own video and its masks, with phrases by hand, from a CSV or by a model.

    swim from-masks --video dog.mp4 --masks masks/ --output dog.json --phrase "1=the white dog"
    swim from-masks --video judo/ --masks judo_masks/ --output judo.json --phrases phrases.csv
    swim from-masks --video sav_000001.mp4 --masks sav_000001_manual.json --frame_step 4         --output sav.json --model gpt-4o-mini --captions captions.csv

Masks: a folder of palette PNGs (00000.png, the pixel's index is the instance), of PNGs per object (00000_mask_1.png, or
1/00000.png), a COCO RLE JSON ({"instance": {"frame": RLE}}, or a list of {"instance", "frame", "segmentation"}) or an SA-V
JSON. They are kept pixel by pixel. Number N in a mask's name means frame N * --frame_step of the video.
A CSV has the columns instance, phrase and, if you like, caption; `--captions` one of instance and caption. In a phrase
"the <ins>dog</ins> on the bed" marks the noun; without tags all but a leading article is marked. An instance without a
phrase is left out, and named. Each caption becomes a record of its own; without captions one record names all instances.
"""

from swim.cli.options import add_endpoint_options
from swim.command_line import command_parser, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim from-masks")
    parser.add_argument("--video", required=True, help="a video file or a folder of frames")
    parser.add_argument("--masks", required=True, help="a folder of PNGs or a JSON file")
    parser.add_argument("--output", required=True, help="JSON file of the records")
    parser.add_argument(
        "--frame_step", type=whole(1), default=1, help="frames of the video from one mask number to the next"
    )
    parser.add_argument("--video_root", help="what the record's video is relative to (default: the video's folder)")
    parser.add_argument(
        "--phrase",
        action="append",
        default=[],
        metavar="INSTANCE=PHRASE",
        help="what an instance is called; may be repeated",
    )
    parser.add_argument("--phrases", metavar="FILE.csv", help="a table with the columns instance and phrase")
    parser.add_argument("--captions", metavar="FILE.csv", help="a table with the columns instance and caption")
    parser.add_argument("--model", help="writes the phrases; it sees the outlined frames")
    parser.add_argument(
        "--with_frames", type=whole(0), default=4, metavar="K", help="outlined frames that the model sees"
    )
    add_endpoint_options(parser)
    options = parser.parse_args(arguments)
    from swim.cli.runs.from_masks import run

    return run(options)
