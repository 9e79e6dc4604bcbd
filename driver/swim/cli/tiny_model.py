"""Writes a tiny, randomly initialised model with its processor, small enough to be trained on two CPU cores.

    swim tiny-model --output output/tiny_model
    swim tiny-model --output output/tiny_model --tokenizer path/to/Qwen2.5-VL-7B-Instruct

The folder is a complete checkpoint, which transformers loads offline.
Without ``--tokenizer`` the model gets a byte-level BPE of its own, learnt from the demo's texts, with Qwen's
pre-tokenisation and special tokens. With it, the same model is built around the real tokenizer and chat template.
"""

import sys

from swim.command_line import command_parser, whole
from swim.models import MODEL_TYPES


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("Writes a tiny random checkpoint of Qwen2.5-VL or Qwen3-VL.", "swim tiny-model")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--tokenizer", help="folder with Qwen's own tokenizer and chat template")
    parser.add_argument("--family", choices=MODEL_TYPES, default=MODEL_TYPES[0], help="what the model is")
    parser.add_argument("--seed", type=whole(0), default=0, help="decides the weights")
    args = parser.parse_args(arguments)
    from swim.demo.model import build_tiny_model

    try:
        print(build_tiny_model(args.output, args.tokenizer, seed=args.seed, model_type=args.family))
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
