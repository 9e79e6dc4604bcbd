"""Draws the demo's clips: moving coloured shapes, with NL-Refer records about one shape each.

The objects of a clip have different colours, so that a phrase such as "red circle" names one of them.

    swim demo --output output/demo_data --train_clips 1000 --held_out_clips 100 --seed 0

The folder then holds ``train.json`` and ``held_out.json`` (NL-Refer records), ``train.yaml`` and ``held_out.yaml``
(data configurations), ``clips/<split>/*.mp4`` and, written last, ``manifest.json``. With ``--language_model`` the records
are conversations in sentences, and ``model/`` is the untrained model that can hold them.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from swim.command_line import command_parser, number, whole
from swim.demo.shapes import ClipSettings


def _switch(text: str) -> bool:
    """Read a command-line boolean: bool("false") would be True."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, found {text!r}")
    return text.lower() == "true"


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("Makes the demo's clips and records.", "swim demo")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--train_clips", type=whole(0), default=1000, help="clips to train on")
    parser.add_argument("--held_out_clips", type=whole(0), default=100, help="clips to score on")
    parser.add_argument("--seed", type=whole(0), default=0, help="decides what is drawn")
    parser.add_argument(
        "--language_model",
        choices=["smollm2"],
        help="conversations and a model that can talk (default: questions, no model)",
    )
    parser.add_argument(
        "--names_known",
        type=_switch,
        default=True,
        help="false: the model that can talk has yet to learn the words for the colours that it sees",
    )
    parser.add_argument("--workers", type=whole(1), help="processes (default: one per core)")
    types: dict[Any, Callable] = {bool: _switch, int: whole(1), float: number(0)}
    for field in fields(ClipSettings):
        read = types[field.type]
        parser.add_argument(f"--{field.name}", type=read, default=field.default, help=field.metadata["help"])
    args = parser.parse_args(arguments)
    talks = args.language_model is not None
    if not (talks or args.names_known):
        parser.error("--names_known false needs --language_model")
    from swim.demo.clips import make_demo_data
    from swim.demo.talking import build_talking_model, gguf_folder

    try:
        if talks:
            gguf_folder()  # before minutes of drawing
        settings = ClipSettings(**{field.name: getattr(args, field.name) for field in fields(ClipSettings)})
        counts = (args.train_clips, args.held_out_clips)
        data = make_demo_data(args.output, *counts, args.seed, settings, args.workers, "talking" if talks else "open")
        if talks:
            print(build_talking_model(data.data_root / "model", args.seed, args.names_known))
    except (RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(data.data_root)
    return 0
