"""NL-Refer from VideoRefer: a model turns `<objectN> <region>` into natural phrases, checked record by record.

    swim construct --input videorefer-*.json --output output/nl_refer --model gpt-4o-mini --dry_run
    swim construct --input videorefer-*.json --output output/nl_refer --model gpt-4o-mini --max_usd 20
    swim construct --input VideoRefer-Bench-*.json --output output/nl_refer --model M --synonyms --with_frames 4
    swim construct --input train.json --output output/nl_refer --model M --base_url http://localhost:8000/v1

Reads detailed captions, QA, Bench-D and Bench-Q. Any OpenAI-compatible server will do; the key comes from OPENAI_API_KEY
alone. `--dry_run` ends with an estimate. A stopped run resumes where it was: replies are kept in
`replies.sqlite` and never paid for twice. Writes into `--output` refined-format-NAME-00000.json, ... (a bench:
refined-NAME.json and, with `--synonyms`, refined-NAME-synonym.json), rejected.jsonl with a reason for each record that
is missing there, and, last, provenance.json. The status is 2 when the service ended the run early.
"""

from swim.cli.options import add_endpoint_options, add_root_options
from swim.command_line import command_parser, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim construct")
    parser.add_argument("--input", nargs="+", required=True, help="VideoRefer-layout files (.json, .jsonl, .gz)")
    parser.add_argument("--output", required=True, help="folder of the refined files")
    parser.add_argument("--model", required=True, help="name of the model that is asked")
    add_root_options(parser, "the videos are")
    parser.add_argument(
        "--with_frames", type=whole(0), default=0, metavar="K", help="outlined frames to show with a record"
    )
    parser.add_argument("--synonyms", action="store_true", help="a synonym variant of the benches too")
    parser.add_argument("--shard_size", type=whole(1), default=10_000, help="records in one output file")
    parser.add_argument("--limit", type=whole(1), help="the first N records of each file only")
    parser.add_argument("--dry_run", action="store_true", help="an estimate, nothing asked")
    add_endpoint_options(parser)
    options = parser.parse_args(arguments)
    from swim.cli.runs.construct import run

    return run(options)
