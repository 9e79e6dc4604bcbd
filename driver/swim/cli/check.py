"""Checks a mixture record by record before training meets it.

    swim check data_config/videorefer.yaml --train_config run_scripts/configs/sft_7b.yaml

Every record is taken as far along the data path as `--decode` says:

none    typed and complete, every phrase has its instance, files are there, masks decode to their own size
header  also: videos open, annotated frames lie within them, masks fit their frames (the default)
full    also: the sampled frames decode; exactly what training does

A read that a disk or network does not answer in time is retried, and never listed: the record is counted as not read,
and rerunning the command tries it again. A record that crashes its worker process is listed under that reason.

`--train_config` gives the budget, the system prompt and the model, whose processor then counts tokens and finds phrases
that own no token; without it the paper's budget is taken and tokens are not counted.

Writes to `--output`: report.json, skip_list.jsonl (for the training key `skip_list`) and progress.jsonl, from which the
same command resumes after a kill. Exits with status 1 if a record is bad or could not be read.
"""

import os
import sys
from pathlib import Path

from rich.table import Table

from swim.command_line import command_parser
from swim.data.check import LEVELS, ODD, WorkersDie, check, console
from swim.data.mixture import load_mixture
from swim.data.settings import DataSettings
from swim.errors import DataError
from swim.lock import alone_in


def print_report(report: dict, output: Path):
    table = Table(title=f"{report['records']:,} records, {report['bad']:,} bad")
    table.add_column("reason")
    table.add_column("records", justify="right")
    for reason, count in report["by_reason"].items():
        table.add_row(reason, f"{count:,}")
    for name, meaning in ODD.items():
        table.add_row(meaning, f"{report[name]:,}", style="dim")
    console.print(table)
    for reason, example in report["examples"].items():
        console.print(f"{reason}, for example {example}", markup=False, highlight=False)
    if "tokens" in report:
        console.print("tokens: " + ", ".join(f"{name} {value:,.0f}" for name, value in report["tokens"].items()))
    if report["not_read"]:
        console.print(f"{report['not_read']:,} records were not read, and are not listed: give the same command again")
    console.print(f"written: {output}/report.json, skip_list.jsonl")


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim check")
    parser.add_argument("config", help="mixture YAML")
    parser.add_argument("--train_config", help="training YAML: budget, system prompt, model")
    parser.add_argument("--decode", choices=LEVELS, default="header", help="how far each record is taken")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="worker processes; 0 checks in this process"
    )
    parser.add_argument("--output", help="folder (default: output/check/<name of the mixture>)")
    options = parser.parse_args(arguments)
    output = Path(options.output or f"output/check/{Path(options.config).stem}")
    try:
        settings, model = DataSettings(), None
        if options.train_config is not None:
            from swim.train.config import load_config  # the check itself stands below training

            training = load_config(options.train_config)
            settings, model = training.data_settings, training.model_name_or_path
        mixture = load_mixture(options.config)
        with alone_in(output):
            report = check(mixture, options.config, options.decode, settings, model, output, options.workers)
    except (DataError, ValueError, WorkersDie) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(report, output)
    return int(report["bad"] + report["not_read"] > 0)
