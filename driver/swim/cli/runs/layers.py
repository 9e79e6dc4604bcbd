"""Which layers of a model look at the object that is named?"""

import argparse
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from swim.cli.runs.reading import data_settings
from swim.cli.runs.studies import annotated_file, run_study
from swim.eval.items import console, today
from swim.eval.layers import read_pairs, score_layers, study, write_study
from swim.eval.stats import interval_words
from swim.model_name import check_model_name, short_names
from swim.models.load import load_config
from swim.models.supervision import supervision_of

TOLD_HEADS = 5


def run(options: argparse.Namespace) -> int:
    return run_study(options, evaluate, print_report)


def evaluate(options: argparse.Namespace) -> dict | None:
    """The report; None on every process but the first. Raises ValueError, DataError."""
    check_model_name(options.model)
    config = load_config(options.model)
    supervised = supervision_of(config).layers_of(config.text_config.num_hidden_layers)
    size = len(supervised) if options.size is None else options.size
    file, without_masks = annotated_file(options)
    output = Path(options.output)
    settings = replace(data_settings(options), keep_annotated_frames=False)
    found = score_layers(options.model, file, settings, output, options.workers)
    if found is None:
        return None
    scores, errors = found
    places = {key: number for number, key in enumerate(file.items)}
    keys = [key for key, each in scores.items() if each["pairs"]]
    pairs = dict(zip(keys, read_pairs(output, [places[key] for key in keys])))
    fusion = options.fusion or supervision_of(config).fusion or "mean"
    report = {
        "study": "layers",
        "date": today(),
        "data": file.facts,
        "records_without_annotation": without_masks,
        "models": {short_names([options.model])[0]: {"model": options.model, "folder": str(output), "errors": errors}},
        **study(scores, pairs, size, fusion, supervised),
    }
    write_study(output, report)
    return report


def print_report(report: dict, output: Path):
    heads = report["heads"]["pointing"]
    best = sorted(
        ((value, layer, head) for layer, row in enumerate(heads) for head, value in enumerate(row)), reverse=True
    )
    told = ", ".join(f"layer {layer} head {head} {value:.2f}" for value, layer, head in best[:TOLD_HEADS])
    console.print(
        f"{report['pairs']:,} (noun token, step) pairs of {report['records']} records; chance {report['chance']:.2f}"
    )
    console.print("pointing by layer: " + ", ".join(f"{n} {v:.2f}" for n, v in enumerate(report["layers"]["pointing"])))
    console.print(f"heads that point best: {told}")
    table = Table(
        title=f"sets of layers, {report['fusion']}; chosen on {report['chosen_on']} records, judged on {report['judged_on']}"
    )
    for column in ("", "layers", "pointing", "average precision"):
        table.add_column(column)
    for name, each in report["sets"].items():
        cells = (
            f"{each[score]['value']:.3f} ({interval_words(each[score]['interval_95'], '.3f')})"
            for score in ("pointing", "average_precision")
        )
        table.add_row(name, ", ".join(map(str, each["layers"])), *cells)
    console.print(table)
    console.print(f"Written: {output}/report.json, layers.png")
