"""Shows where a model looks: pictures, an overlay video and the raw maps of the words of a question and its answer.

    swim visualize --model output/demo --video clip.mp4 --prompt "What does the <ins>dog</ins> do?"
    swim visualize --model SWIM --base BASE --records train.json --record 12 --words

Tagged nouns are shown. If only the record's answer has tags, the model is given that answer (teacher forcing), as in
training; `--teacher_forced` does so for any record. `--phrase` adds any words of the question or the answer, `--words`
every word of the answer. With `--records` an annotated file (NL-Refer, Bench-D, Bench-Q) gives clip, question and the
masks to outline. With `--base` the same words are shown for both models. Without arguments: the demo's model and its
text-only control on a held-out clip.

Writes into --output: sheet.png (words by frames), layers_N.png (layers by frames, for each word), overlay.mp4, and
maps.npz with maps.json: the raw maps, float32[Q, L, T, H, W] of each model, and what they are maps of.
"""

from swim.cli.options import add_data_options, add_root_options
from swim.command_line import above, command_parser, whole
from swim.model_name import DEMO_MODEL


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim visualize")
    parser.add_argument("--model", default=DEMO_MODEL, help="checkpoint, LoRA folder or hub name")
    parser.add_argument("--base", help="a second model to show beside the first")
    parser.add_argument("--video", help="video file, folder of frames, image or URL")
    parser.add_argument("--image", help="image file or URL")
    parser.add_argument("--folder_fps", type=above(0), help="rate of a frame folder")
    parser.add_argument("--prompt", help="the question; tagged nouns are shown")
    parser.add_argument("--records", help="annotated JSON file instead of --video and --prompt")
    parser.add_argument("--record", default="0", help="id, index or position in --records")
    add_root_options(parser)
    parser.add_argument(
        "--phrase", action="append", default=[], help="words of the question or the answer; may be repeated"
    )
    parser.add_argument("--words", action="store_true", help="every word of the answer")
    parser.add_argument("--layers", help='"all" or numbers such as 2,7,12 (default: those of the checkpoint)')
    parser.add_argument(
        "--normalise",
        choices=("share", "clipped", "relative"),
        help="what the colours mean (default: share, or clipped where a few cells would darken all others)",
    )
    parser.add_argument("--teacher_forced", action="store_true", help="show the record's answer, with its tags")
    parser.add_argument(
        "--keep_annotated_frames", action="store_true", help="sample the annotated frames, whose masks are outlined"
    )
    parser.add_argument("--max_new_tokens", type=whole(1), default=128, help="maximum tokens of an answer")
    parser.add_argument("--output", default="output/attention", help="folder of the pictures and maps")
    add_data_options(parser)
    options = parser.parse_args(arguments)
    from swim.cli.runs.visualize import run

    return run(options)
