"""Captions of named objects, scored against references: HC-STVG, Ref-L4, or a list of one's own.

    swim captions --model BASE SWIM --questions hcstvg_v2_val.json --video_root DIR --output DIR

FILE is HC-STVG's JSON object ({video: {"English": caption, ...}}), Ref-L4's .parquet, or a JSON list of {"video" or "image",
"caption" or "captions", "subject"?, "id"?}. Rows with the same image and "bbox" are one object with several captions. The question
names the object by "subject", else by the noun that its caption begins with and the adjectives before it (English).

Scores BLEU, ROUGE-L and CIDEr, and METEOR where Java runs; without Java words are split otherwise than in published numbers.
Writes answers.jsonl, items.jsonl (each answer with its scores) and report.json. An interrupted run resumes when the same
command is rerun. Without arguments: the demo's models on its held-out clips.
"""

from swim.cli.options import add_model_options
from swim.command_line import command_parser
from swim.prompts import CAPTION_PROMPT


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim captions")
    parser.add_argument(
        "--prompt",
        help=f'what is asked, with {{subject}} and {{visual}} ("video" or "image") or without (default: "{CAPTION_PROMPT}")',
    )
    add_model_options(parser, "output/captions", max_new_tokens=256)
    options = parser.parse_args(arguments)
    from swim.cli.runs.captions import run

    return run(options)
