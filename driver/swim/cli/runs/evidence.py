"""Does attention tell what the video supports from what it does not?"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from swim.attention.evidence import FEATURES, write_fits
from swim.cli.runs.demo_defaults import DEMO_CONFIG
from swim.cli.runs.reading import data_settings
from swim.cli.runs.roots import root_of
from swim.cli.runs.studies import named_models, run_study
from swim.demo.bench import write_evidence_items
from swim.demo.inputs import make_demo_inputs
from swim.eval.evidence import fits_of, parse_evidence, score_item, study
from swim.eval.items import console, read_items, today
from swim.eval.records import score_records
from swim.eval.stats import interval_words
from swim.files import write_atomically
from swim.train.config import load_config


def run(options: argparse.Namespace) -> int:
    return run_study(options, evaluate, print_report)


def evaluate(options: argparse.Namespace) -> dict | None:
    """The report; None on every process but the first. Raises ValueError, DataError."""
    path = options.items or write_evidence_items(make_demo_inputs(load_config(DEMO_CONFIG).demo).held_out_json)
    file = read_items(path, root_of(options, path), parse_evidence, options.limit)
    items = list(file.items.values())
    records = replace(file, items={key: item.record for key, item in file.items.items()})
    settings = replace(data_settings(options), keep_annotated_frames=False)
    output = Path(options.output)
    models: dict[str, dict] = {}

    def score(model, collator, sample, place) -> dict:
        return score_item(model, collator, sample, items[place])

    for name, model in named_models(options).items():
        found = score_records(model, records, settings, output / name, options.workers, score)
        if found is None:
            continue
        scores, errors = found
        kinds = study(file.items, scores)
        write_fits(output / name / "evidence.json", model, fits_of(file.items, scores, kinds))
        models[name] = {"model": model, "folder": str(output / name), "kinds": kinds, "errors": errors}
    if not models:
        return None
    report = {"study": "evidence", "date": today(), "data": file.facts, "models": models}
    write_atomically(output / "report.json", json.dumps(report, indent=1) + "\n")
    return report


def print_report(report: dict, output: Path):
    table = Table(title=f"AUROC, {report['data']['file']}")
    for column in ("", "words", "evidence", "probability", "difference"):
        table.add_column(column)
    for name, entry in report["models"].items():
        for kind, found in entry["kinds"].items():
            cells = [
                f"{found[each]['auroc']:.3f} ({interval_words(found[each]['interval_95'], '.3f')})"
                for each in ("evidence", "probability")
            ]
            gain = found["difference"]
            cells.append(f"{gain['value']:+.3f} ({interval_words(gain['interval_95'], '+.3f')})")
            table.add_row(f"{name}: {kind}", f"{found['words']:,}", *cells)
        table.add_section()
    console.print(table)
    console.print(
        f"each of {', '.join(FEATURES)}: {output}/report.json. For swim infer --evidence: {output}/MODEL/evidence.json"
    )
