"""Serves the viewer: ask about a clip, click a word, see where it looks.

    swim viewer                                    # the demo's checkpoint, with its held-out clips as examples
    swim viewer --model output/swim-7b --host 0.0.0.0 --port 7860

Needs Gradio: pip install -e 'driver[viewer]'. Nothing is loaded from other hosts, nothing is sent to them.
"""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from swim.cli.demo_defaults import DEMO_CONFIG
from swim.cli.reading import add_data_options, data_settings
from swim.command_line import command_parser
from swim.demo.inputs import make_demo_inputs
from swim.errors import DataError
from swim.model_name import DEMO_MODEL
from swim.train.config import load_config

EXAMPLES = 4


def demo_examples() -> list[tuple[str, str]]:
    """(clip, tagged question) of the demo's first held-out clips, which are made when missing."""
    path = make_demo_inputs(load_config(DEMO_CONFIG).demo).held_out_json
    records = json.loads(path.read_text(encoding="utf-8"))[:EXAMPLES]
    questions = [record["conversations"][0]["value"].removeprefix("<video>\n") for record in records]
    return [(str((path.parent / record["video"]).resolve()), text) for record, text in zip(records, questions)]


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim viewer")
    parser.add_argument("--model", default=DEMO_MODEL, help="checkpoint, LoRA folder or hub name")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at")
    parser.add_argument("--max_new_tokens", type=int, default=128, help="longest answer, in tokens")
    add_data_options(parser)
    options = parser.parse_args(arguments)
    if find_spec("gradio") is None:
        print("error: the viewer needs Gradio; pip install -e 'driver[viewer]'", file=sys.stderr)
        return 2
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
    from swim.viewer.app import serve
    from swim.viewer.session import Session

    try:
        session = Session(options.model, data_settings(options), options.max_new_tokens)
    except (ValueError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    examples = demo_examples() if options.model == DEMO_MODEL else []
    serve(session, f"{Path(options.model).name}: where it looks", examples, options.host, options.port)
    return 0
