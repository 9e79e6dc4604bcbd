"""What the studies of attention share: annotated records, models, and how a study ends."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from swim.cli.runs.demo_defaults import DEMO_CONFIG
from swim.cli.runs.roots import root_of
from swim.data.bench import parse_annotated
from swim.data.records import Record
from swim.data.root import DataRoot
from swim.demo.inputs import make_demo_inputs
from swim.errors import DataError, Reason
from swim.eval.items import console, read_items
from swim.infer.questions import ItemFile
from swim.model_name import check_model_name, short_names
from swim.train.config import load_config


def run_study(
    options: argparse.Namespace,
    evaluate: Callable[[argparse.Namespace], dict | None],
    print_report: Callable[[dict, Path], None],
) -> int:
    """The exit status: 2 for what cannot be studied, 1 where a record could not be read.

    evaluate: the report; None on every process but the first. Raises ValueError, DataError.
    """
    try:
        report = evaluate(options)
    except (DataError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if report is None:
        return 0
    print_report(report, Path(options.output))
    failed = [entry for entry in report["models"].values() if entry["errors"]]
    for entry in failed:
        what = (
            f"{entry['model']}: {len(entry['errors'])} record(s) could not be read, see {entry['folder']}/errors.jsonl"
        )
        console.print(what, style="red")
    return int(bool(failed))


def named_models(options: argparse.Namespace) -> dict[str, str]:
    """The models by their short names. Raises ValueError for one that is given twice, NoModel."""
    names = short_names(options.model)
    for model in options.model:
        check_model_name(model)
    return dict(zip(names, options.model))


def annotated_file(options: argparse.Namespace) -> tuple[ItemFile, int]:
    """(the records of --data that have masks, by default the demo's, how many have none). Raises DataError."""
    path = options.data or make_demo_inputs(load_config(DEMO_CONFIG).demo).held_out_json
    whole = read_items(path, root_of(options, path), _parse, options.limit)
    file = replace(whole, items={key: record for key, record in whole.items.items() if record is not None})
    if not file.items:
        raise DataError("no record has a usable mask: nothing to score", str(path))
    return file, len(whole.items) - len(file.items)


def _parse(raw: dict, where: str, root: DataRoot) -> Record | None:
    """The record, None for one without masks."""
    try:
        return parse_annotated(raw, where, root)
    except DataError as error:
        if error.reason == Reason.NO_MASK:
            return None
        raise
