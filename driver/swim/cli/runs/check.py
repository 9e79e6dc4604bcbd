"""Checks a mixture record by record before training meets it."""

import argparse
import sys
from pathlib import Path

from rich.table import Table

from swim.data.check import ODD, WorkersDie, check, console
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
        console.print(f"{report['not_read']:,} records could not be read, and are not listed: rerun the same command")
    lengths = ", lengths.json" if "tokens" in report else ""
    console.print(f"written: {output}/report.json, skip_list.jsonl{lengths}")


def run(options: argparse.Namespace) -> int:
    output = Path(options.output or f"output/check/{Path(options.config).stem}")
    try:
        settings, model, seed = DataSettings(), None, 0
        if options.train_config is not None:
            from swim.train.arguments import SFT  # the check itself stands below training
            from swim.train.config import TrainConfig, load_config

            training: TrainConfig = load_config(options.train_config)
            settings, model = training.data_settings, training.model_name_or_path
            seed = training.arguments.get("seed", SFT.defaults()["seed"])
        mixture, how = load_mixture(options.config, seed, options.skip_list), (options.decode, settings, model)
        with alone_in(output):
            report = check(mixture, options.config, *how, output, options.workers, seed, options.skip_list)
    except (DataError, ValueError, WorkersDie) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(report, output)
    return int(report["bad"] + report["not_read"] > 0)
