"""VideoRefer-Bench-D: descriptions of named objects, graded by a judge.

    swim bench-d --model output/demo --questions bench_d.json --output output/bench_d --judge gpt-4o-2024-11-20

First the model describes, then the judge grades; both resume where an interrupted run stopped, and no judgement is paid
for twice. The judge's key comes from OPENAI_API_KEY alone. `--dry_run` ends before the judge is asked, with an estimate of
tokens and cost. Writes answers.jsonl, scores.jsonl and report.json. Below `--min_coverage` there is no headline number
and the status is 1.
"""

from swim.cli.options import add_model_options
from swim.command_line import above, command_parser, number, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim bench-d")
    add_model_options(parser, "output/bench_d", max_new_tokens=1024)
    parser.add_argument(
        "--judge",
        help="the judge's model name (default: gpt-4o-2024-11-20; of the demo's items a judge that knows their scenes)",
    )
    parser.add_argument("--judge_base_url", help="of the judge's API (default: OpenAI's)")
    parser.add_argument("--judge_temperature", type=number(0), default=0.0, help="of the judge's replies")
    parser.add_argument("--judge_concurrency", type=whole(1), default=8, help="requests to the judge at a time")
    parser.add_argument("--judge_timeout_s", type=above(0), help="of one request to the judge (default: --timeout_s)")
    parser.add_argument("--judge_attempts", type=whole(1), default=6, help="of one request, with exponential back-off")
    parser.add_argument("--judge_backoff_s", type=number(0), default=1.0, help="first wait")
    parser.add_argument("--usd_per_million", type=number(0), nargs=2, metavar=("IN", "OUT"), help="the judge's prices")
    parser.add_argument("--max_usd", type=number(0), help="stop judging at this cost")
    parser.add_argument("--max_requests", type=whole(0), help="stop judging after so many requests")
    parser.add_argument(
        "--min_coverage", type=number(0, 1), default=1.0, help="share of the items that must be judged for a mean"
    )
    parser.add_argument(
        "--published", action="store_true", help="also print the paper's numbers, as is done for all 400 items"
    )
    parser.add_argument("--dry_run", action="store_true", help="answers and an estimate, no judging")
    options = parser.parse_args(arguments)
    from swim.cli.runs.bench_d import run

    return run(options)
