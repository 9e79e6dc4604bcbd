"""Serves the viewer: ask about a clip, click a word, see where it looks.

    swim viewer                                    # the demo's checkpoint, with its held-out clips as examples
    swim viewer --base output/demo/text_only       # beside it a second model: the same words, the same clip
    swim viewer --model output/swim-7b --host 0.0.0.0 --port 7860
    swim viewer --marks output/marks/records.json --mark_with facebook/sam2.1-hiera-large    # mark objects for training

Both models are shown at the words of the question and of the first one's answer; the second one's answer is printed.
Needs Gradio: pip install -e 'driver[viewer]'. Nothing is loaded from other hosts, nothing is sent to them.
"""

from swim.cli.options import add_data_options
from swim.command_line import command_parser, whole
from swim.model_name import DEMO_MODEL


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim viewer")
    parser.add_argument("--model", default=DEMO_MODEL, help="checkpoint, LoRA folder or hub name")
    parser.add_argument("--base", help="a second model to show beside the first")
    parser.add_argument(
        "--evidence",
        metavar="FILE",
        help="evidence.json that swim evidence wrote for --model: marks nouns that it was asked about, or said, without looking",
    )
    parser.add_argument("--marks", metavar="FILE", help="lets you mark objects; their records go into this JSON file")
    parser.add_argument(
        "--mark_with", metavar="M", help="SAM 2 for videos, which follows what you click; without it you outline"
    )
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=whole(0), default=7860, help="port to listen at")
    parser.add_argument("--max_new_tokens", type=whole(1), default=128, help="maximum tokens of an answer")
    add_data_options(parser)
    options = parser.parse_args(arguments)
    from swim.cli.runs.viewer import run

    return run(options)
