"""Asks a model about a video or an image: one question, or a file of many.

    swim infer --model output/demo --video clip.mp4 --prompt "Describe the <ins>dog</ins>."
    swim infer --model output/demo --batch questions.jsonl --output output/infer

--video takes a video file, a folder of frames, an image or a URL; tags are optional. The answer is streamed to stdout.
Without arguments the demo's checkpoint is asked about one of its held-out clips.

A line of --batch: {"video" or "image": ..., "prompt": ..., "id"?: ..., "fps"?: rate of a frame folder}. Videos are
relative to --video_root. answers.jsonl holds {"id", "answer"} in the order of the file, errors.jsonl {"id", "error"}
for what could not be read or answered; the status is then 1. An interrupted run resumes when the same command is
rerun, and asks again what failed. Several processes: `accelerate launch`, or NPROC=8 with the launcher.
"""

from swim.cli.options import add_answer_options, add_root_options
from swim.command_line import above, command_parser


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim infer")
    parser.add_argument("--video", help="video file, folder of frames, image or URL")
    parser.add_argument("--image", help="image, or the URL of one whose name does not say so")
    parser.add_argument("--prompt", help="the question; <ins> tags are optional")
    parser.add_argument("--folder_fps", type=above(0), help="rate of a folder of frames (default: 24)")
    parser.add_argument(
        "--evidence",
        metavar="FILE",
        help="evidence.json of swim evidence: says of each tagged noun and each noun of the answer (English) whether the model "
        "looked at something while it said it",
    )
    parser.add_argument("--batch", help=".jsonl file of questions")
    add_root_options(parser, "the videos of --batch are")
    parser.add_argument("--output", default="output/infer", help="folder of the answers to --batch")
    add_answer_options(parser, max_new_tokens=512)
    options = parser.parse_args(arguments)
    from swim.cli.runs.infer import run

    return run(options)
