"""General ability: what fine-tuning costs in plain chat, and in questions about whole clips.

    swim general --model Qwen/Qwen2.5-VL-7B-Instruct output/swim-7b --output output/general

An item has a question and its answer, and may have a video, a type, and accept, the words one of which a right answer
contains. Of each model: the perplexity of the answers, and how often its own contain those words. An interrupted run
resumes when the same command is rerun. Several processes: `accelerate launch`, or NPROC=8 with the launcher.
"""

from swim.cli.options import add_model_options
from swim.command_line import command_parser


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim general")
    add_model_options(parser, "output/general", max_new_tokens=48, questions="thirty of plain chat", servers=False)
    options = parser.parse_args(arguments)
    from swim.cli.runs.general import run

    return run(options)
