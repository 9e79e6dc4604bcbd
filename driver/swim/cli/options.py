"""Options that several verbs share."""

import argparse
from pathlib import Path

from swim.command_line import above, number, whole
from swim.model_name import DEMO_MODEL
from swim.video import READERS


def add_root_options(parser: argparse.ArgumentParser, what: str = "the records' videos are", required: bool = False):
    """--video_root and --untrusted, for `root_of`."""
    default = "" if required else " (default: the file's folder)"
    parser.add_argument("--video_root", required=required, help=f"what {what} relative to{default}")
    parser.add_argument(
        "--untrusted",
        action="store_true",
        help="others made the file: refuse URLs, and paths that lead out of --video_root (default: allow both)",
    )


def add_data_options(parser: argparse.ArgumentParser):
    """Frame budget and prompt; `data_settings` reads them."""
    trained = "(default: as the model was trained, else the paper's)"
    parser.add_argument("--max_frames", type=whole(1), help=f"maximum frames per clip {trained}")
    parser.add_argument("--fps", type=above(0), help=f"maximum sampling rate, in frames per second {trained}")
    parser.add_argument("--min_pixels", type=whole(1), help=f"minimum pixels of a resized frame {trained}")
    parser.add_argument("--max_pixels", type=whole(1), help=f"maximum pixels of a resized frame {trained}")
    parser.add_argument("--total_pixels", type=whole(1), help=f"maximum pixels of all frames together {trained}")
    parser.add_argument("--system_prompt", help=f"system prompt of the conversation {trained}")
    parser.add_argument("--video_reader", choices=READERS, help=f"library that reads video files {trained}")
    parser.add_argument("--released_timing", action="store_true", help="temporal steps of 1 s, as in the released code")


def add_study_options(
    parser: argparse.ArgumentParser,
    output: str,
    several: bool = True,
    limit: int | None = None,
    file: tuple[str, str] = ("--data", "annotated JSON file (default: the demo's held-out records)"),
):
    """What a study of attention asks for: --model, one or `several`, its file, and how the videos are read.

    By default the demo's text-only control and its model, on its held-out records; of one model the control.
    file: the option that names it, and its help.
    """
    control = str(Path(DEMO_MODEL) / "text_only")
    if several:
        what = "one or more; differences are against the first"
        parser.add_argument("--model", nargs="+", default=[control, DEMO_MODEL], help=what)
    else:
        parser.add_argument("--model", default=control, help="checkpoint, LoRA folder or hub name")
    parser.add_argument(file[0], help=file[1])
    add_root_options(parser)
    parser.add_argument("--output", default=output, help="folder of the report")
    parser.add_argument("--limit", type=whole(1), default=limit, help="the first N records only")
    parser.add_argument("--workers", type=whole(0), default=0, help="processes that read videos ahead, per process")
    add_data_options(parser)


def add_keep_option(parser: argparse.ArgumentParser):
    """--keep_annotated_frames, of a study whose records' masks may choose the frames."""
    parser.add_argument(
        "--keep_annotated_frames", action="store_true", help="tell the frame sampler which frames are annotated"
    )


def add_answer_options(
    parser: argparse.ArgumentParser, max_new_tokens: int, several: bool = False, servers: bool = True
):
    """--model and everything else that decides its answers.

    several: models may stand side by side. servers: a server may answer too.
    """
    what = "checkpoint, LoRA folder or hub name" + ("; or the server's model" if servers else "")
    if several:
        what += "; several are compared with the last (default: the demo's, before training, text only, and supervised)"
        parser.add_argument("--model", nargs="+", help=what)
    else:
        parser.add_argument("--model", default=DEMO_MODEL, help=what)
    add_data_options(parser)
    parser.add_argument("--max_new_tokens", type=whole(1), default=max_new_tokens, help="maximum tokens of an answer")
    parser.add_argument("--workers", type=whole(0), default=0, help="processes that read videos ahead, per process")
    if not servers:
        return
    parser.add_argument("--batch_size", type=whole(1), default=1, help="questions answered together, by a local model")
    parser.add_argument("--backend", choices=("local", "openai"), default="local", help="openai: any compatible server")
    parser.add_argument("--base_url", help="of the server, such as http://localhost:8000/v1")
    parser.add_argument("--concurrency", type=whole(1), default=8, help="requests at a time")
    parser.add_argument("--timeout_s", type=above(0), default=120.0, help="seconds for one request, first to last byte")


def add_model_options(
    parser: argparse.ArgumentParser,
    output: str,
    max_new_tokens: int,
    questions: str = "the demo's",
    servers: bool = True,
):
    """--questions, --model and everything that decides its answers. questions: what is asked by default, in words."""
    parser.add_argument("--questions", help=f"the benchmark's JSON file (default: {questions})")
    add_answer_options(parser, max_new_tokens, several=True, servers=servers)
    add_root_options(parser, "the items' videos are")
    parser.add_argument("--output", default=output, help="folder of answers and report")
    parser.add_argument("--limit", type=whole(1), help="the first N items only")


def add_endpoint_options(parser: argparse.ArgumentParser):
    """Who is asked, and how much at most."""
    parser.add_argument("--base_url", help="of the API, such as http://localhost:8000/v1 (default: OpenAI's)")
    parser.add_argument("--temperature", type=number(0), default=0.0, help="of the replies; 0 is the most repeatable")
    parser.add_argument("--max_tokens", type=whole(1), default=2048, help="of one reply")
    parser.add_argument("--timeout_s", type=above(0), default=120.0, help="of one request")
    parser.add_argument("--concurrency", type=whole(1), default=8, help="requests at a time")
    parser.add_argument(
        "--attempts", type=whole(1), default=3, help="replies for one record, each refusal with its reason"
    )
    parser.add_argument(
        "--request_attempts", type=whole(1), default=6, help="of one request, with exponential back-off"
    )
    parser.add_argument("--backoff_s", type=number(0), default=1.0, help="first wait")
    parser.add_argument("--usd_per_million", type=number(0), nargs=2, metavar=("IN", "OUT"), help="the model's prices")
    parser.add_argument("--max_usd", type=number(0), help="stop at this cost")
    parser.add_argument("--max_requests", type=whole(0), help="stop after so many requests")
