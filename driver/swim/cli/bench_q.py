"""VideoRefer-Bench-Q: multiple-choice questions about named objects.

    swim bench-q --model output/demo --questions bench_q.json --output output/bench_q

Writes answers.jsonl, items.jsonl (each answer with the letter that was read from it) and report.json; an interrupted
run resumes when the same command is rerun. Several processes: `accelerate launch`, or NPROC=8 with the launcher.
"""

from swim.cli.options import add_model_options
from swim.command_line import command_parser
from swim.eval.letters import PARSERS
from swim.prompts import BENCH_Q_PROMPT


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim bench-q")
    parser.add_argument("--parser", choices=PARSERS, default="strict", help="how a letter is read from an answer")
    parser.add_argument("--prompt", default=BENCH_Q_PROMPT, help="with {question} and {options}")
    parser.add_argument(
        "--published", action="store_true", help="also print the paper's numbers, as is done for all 1,000 items"
    )
    add_model_options(parser, "output/bench_q", max_new_tokens=128)
    options = parser.parse_args(arguments)
    from swim.cli.runs.bench_q import run

    return run(options)
