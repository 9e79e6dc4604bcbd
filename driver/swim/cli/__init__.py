"""The command line, one file a verb: arguments, a call and a table. Nothing below this room knows of it."""

import sys
from importlib import import_module

from swim.command_line import end_in_one_line

# verb: (its file here, what it does)
VERBS = {
    "train": ("train", "train with attention supervision; without data, the demo"),
    "grpo": ("grpo", "train by reinforcement (GRPO) while attention stays on the object"),
    "ablate": ("ablate", "train variants over several seeds and compare them in tables"),
    "infer": ("infer", "ask a model about a video or an image"),
    "visualize": ("visualize", "show where a model looks: pictures, an overlay video, raw maps"),
    "viewer": ("viewer", "the same, in the browser"),
    "check": ("check", "check every record of a mixture before training"),
    "export": ("export", "export a run as one checkpoint that everything loads"),
    "bench-q": ("bench_q", "VideoRefer-Bench-Q: multiple-choice questions"),
    "bench-d": ("bench_d", "VideoRefer-Bench-D: descriptions graded by a judge"),
    "captions": ("captions", "captions of named objects: CIDEr, BLEU, METEOR"),
    "general": ("general", "what training costs in plain chat and about whole clips"),
    "grounding": ("grounding", "score attention maps against masks"),
    "segmentation": ("segmentation", "score attention as masks: J, F and boxes"),
    "layers": ("layers", "which layers and heads look at the object"),
    "words": ("words", "which words look at the object: nouns, attributes, relations"),
    "evidence": ("evidence", "whether attention tells what a video supports"),
    "compare": ("compare", "compare evaluations item by item"),
    "construct": ("construct", "build NL-Refer from VideoRefer with an OpenAI-compatible model"),
    "review": ("review", "make a page to judge NL-Refer records by eye"),
    "from-masks": ("from_masks", "make records from videos with masks"),
    "from-words": ("from_words", "make records from videos and words or clicks (SAM)"),
    "llava": ("llava", "make the LLaVA-Video supplement"),
    "gather": ("gather", "bring a mixture's records and videos into one folder"),
    "download": ("download", "fetch weights and data from the hub"),
    "demo": ("demo", "draw the demo's clips and records"),
    "tiny-model": ("tiny_model", "make a tiny random model"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs `swim VERB [arguments]` and returns its status: 2 for a verb that does not exist."""
    sys.excepthook = end_in_one_line
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else 2
    if arguments[0] not in VERBS:
        print(f"error: no verb {arguments[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    return import_module(f"swim.cli.{VERBS[arguments[0]][0]}").main(arguments[1:]) or 0


def usage() -> str:
    lines = [f"  {verb:<12} {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(["usage: swim VERB [arguments]; swim VERB --help says more", "", *lines])
