"""Checks a mixture record by record, before training.

    swim check data_config/videorefer.yaml --train_config run_scripts/configs/sft_7b.yaml

Every record is taken as far along the data path as `--decode` says:

none    typed and complete, every phrase has its instance, files are there, masks decode to their own size
header  also: videos open, annotated frames lie within them, masks fit their frames (the default)
full    also: the sampled frames decode; exactly what training does

A read that a disk or network does not answer in time is retried, and never listed: the record is counted as not read,
and rerunning the command tries it again. A record that crashes its worker process is listed under that reason.

`--train_config` gives the budget, the system prompt and the model, whose processor then counts tokens and finds phrases
that own no token; and the seed, by which a random strategy draws records. Without it the paper's budget is taken and
tokens are not counted.

Writes to `--output`: report.json, skip_list.jsonl (for the training key `skip_list`), with tokens also lengths.json (for
the key `lengths`), and progress.jsonl, from which the same command resumes after a kill. Exits with status 1 if a record is bad or could not be read.
"""

import os

from swim.command_line import command_parser, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim check")
    parser.add_argument("config", help="mixture YAML")
    parser.add_argument("--train_config", help="training YAML: budget, system prompt, model")
    parser.add_argument(
        "--decode", choices=("none", "header", "full"), default="header", help="how far each record is taken"
    )
    parser.add_argument(
        "--workers", type=whole(0), default=os.cpu_count(), help="worker processes; 0 checks in this process"
    )
    parser.add_argument(
        "--skip_list",
        help="records to leave out, such as those rejected in a review; the list that is written has them too",
    )
    parser.add_argument("--output", help="folder (default: output/check/<name of the mixture>)")
    options = parser.parse_args(arguments)
    from swim.cli.runs.check import run

    return run(options)
