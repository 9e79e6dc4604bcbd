"""Serves the viewer: ask about a clip, click a word, see where it looks."""

import argparse
import json
import os
import sys
from importlib.util import find_spec

from swim.cli.runs.demo_defaults import DEMO_CONFIG
from swim.cli.runs.reading import data_settings
from swim.demo.inputs import make_demo_inputs
from swim.errors import DataError
from swim.model_name import DEMO_MODEL, check_model_name
from swim.train.config import load_config

EXAMPLES = 4


def demo_examples() -> list[tuple[str, str]]:
    """(clip, tagged question) of the demo's first held-out clips, which are made when missing."""
    path = make_demo_inputs(load_config(DEMO_CONFIG).demo).held_out_json
    records = json.loads(path.read_text(encoding="utf-8"))[:EXAMPLES]
    questions = [record["conversations"][0]["value"].removeprefix("<video>\n") for record in records]
    return [(str((path.parent / record["video"]).resolve()), text) for record, text in zip(records, questions)]


def marking_of(options: argparse.Namespace):
    """Where marked objects go, None without --marks. Raises ValueError, DataError."""
    if options.marks is None:
        if options.mark_with is not None:
            raise ValueError("--mark_with needs --marks, the file of the records")
        return None
    from swim.construct.tracking import Tracker
    from swim.viewer.marking import Marking

    return Marking(options.marks, None if options.mark_with is None else Tracker(options.mark_with))


def run(options: argparse.Namespace) -> int:
    if find_spec("gradio") is None:
        print("error: the viewer needs Gradio; pip install -e 'driver[viewer]'", file=sys.stderr)
        return 2
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when Gradio is imported
    from swim.viewer.app import serve
    from swim.viewer.session import Session

    try:
        check_model_name(options.model)
        session = Session(options.model, data_settings(options), options.max_new_tokens, options.base, options.evidence)
        marking = marking_of(options)
    except (ValueError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    examples = demo_examples() if options.model == DEMO_MODEL else []
    title = " and ".join(session.names) + (": where they look" if options.base else ": where it looks")
    serve(session, title, examples, options.host, options.port, marking=marking)
    return 0
