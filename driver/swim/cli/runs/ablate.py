"""Runs the trainings of an ablation that have not run yet, measures them, and writes the tables."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from rich.console import Console
from tqdm import tqdm

from swim.ablation.plan import Ablation, Variant, digest, identity, read_ablation
from swim.ablation.table import Row, Scores, as_markdown, plot
from swim.cli.runs.demo_defaults import with_demo_inputs
from swim.cli.runs.measuring import Measuring
from swim.cli.runs.train import in_one_line
from swim.command_line import whole
from swim.concurrently import killed_with_parent, run_concurrently
from swim.files import write_atomically
from swim.lock import FolderInUse, alone_in
from swim.model_name import weights_digest
from swim.train.checkpoints import Checkpoints
from swim.train.config import ConfigError, TrainConfig
from swim.train.run import train

INCOMPLETE = 3  # exit status: the rest is under way elsewhere, or was not asked for
IN_USE = 75  # of the process of one training: another has claimed it
SCORES_FILE = "scores.json"

Words = tuple[tuple[str, str], ...]

console = Console(soft_wrap=True)


@dataclass
class Cell:
    """One training, or the model before it, and what is asked of it.

    config: with model and data; of a start only its model counts.
    measuring: what is measured.
    variants: the rows of the tables that need it.
    """

    name: str
    config: TrainConfig
    seed: int
    trains: bool
    folder: Path
    measuring: Measuring
    variants: list[Variant] = field(default_factory=list)

    @property
    def words(self) -> list[Words]:
        """Those that its variants exchange, each once."""
        return list(dict.fromkeys(variant.words for variant in self.variants))

    @property
    def needed_by(self) -> list[str]:
        """Its rows, for people."""
        return [f"{variant.axis}: {variant.name}, seed {self.seed}" for variant in self.variants]

    @property
    def model(self) -> str:
        return str(self.folder / "run") if self.trains else self.config.model

    def scores(self) -> dict[Words, Scores]:
        """What was measured, as it would be now, of the weights that are there now."""
        path = self.folder / SCORES_FILE
        if not path.exists():
            return {}
        kept = json.loads(path.read_text())
        if (kept["weights"], kept["yardsticks"]) != (weights_digest(self.model), self.measuring.identity):
            return {}
        return {tuple((old, new) for old, new in entry["words"]): entry["scores"] for entry in kept["measured"]}

    def is_complete(self) -> bool:
        return set(self.words) <= set(self.scores())


def run(options: argparse.Namespace) -> int:
    return in_one_line(lambda: _run_cell(options) if options.only else _run_all(options))


def _processes() -> int:
    """Of each training, from NPROC. Raises ConfigError."""
    try:
        return whole(1)(os.environ.get("NPROC") or "1")
    except argparse.ArgumentTypeError as error:
        raise ConfigError(f"NPROC: {error}") from None


def _run_all(options: argparse.Namespace) -> int:
    _processes()  # for its error, which every training would end in
    ablation = read_ablation(options.file)
    output = _output(options)
    cells = plan_cells(ablation, output)
    if options.dry_run:
        _list(cells)
        return 0
    output.mkdir(parents=True, exist_ok=True)
    open_cells = [cell for cell in cells.values() if not cell.is_complete()]
    if options.tables_only:
        write_tables(ablation, cells, output)
        return INCOMPLETE if open_cells else 0
    console.print(
        f"{len(cells)} trainings and starts for {len(ablation.variants)} variants and {len(ablation.file.seeds)} seeds, "
        f"{len(open_cells)} of them to be run or measured; {output}/cells"
    )
    statuses = _run_cells(open_cells, options, output)
    write_tables(ablation, cells, output)
    failed = [cell for cell, status in statuses.items() if status not in (0, IN_USE)]
    for name in failed:
        places = ", ".join(cells[name].needed_by)
        sys.stderr.write(f"error: {name} ({places}) failed; its output is in {output}/cells/{name}/log.txt\n")
    elsewhere = [cell for cell, status in statuses.items() if status == IN_USE and not cells[cell].is_complete()]
    if elsewhere:
        console.print(
            f"{len(elsewhere)} are run by other processes; whoever ends last writes the whole tables, or give the same "
            "command again"
        )
    return 1 if failed else INCOMPLETE if elsewhere else 0


def plan_cells(ablation: Ablation, output: Path) -> dict[str, Cell]:
    """Every different training and start of the file, by name, the base's first."""
    cells: dict[str, Cell] = {}
    for seed in ablation.file.seeds:
        for variant in sorted(ablation.variants, key=lambda variant: not variant.is_base):
            with ablation.naming(variant):
                config = with_demo_inputs(ablation.config(seed, variant.changes or {}))
                name = identity(config)
            trains = variant.changes is not None
            name = name if trains else f"start-{name}"
            if name not in cells:
                cells[name] = Cell(name, config, seed, trains, output / "cells" / name, Measuring(ablation, config))
            cells[name].variants.append(variant)
    return cells


def _run_cells(cells: Sequence[Cell], options: argparse.Namespace, output: Path) -> dict[str, int]:
    """The exit status of each cell's process."""
    threads = max(1, torch.get_num_threads() // options.workers)

    def run_one(cell: Cell) -> int:
        cell.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "swim", "ablate", options.file, "--output", str(output), "--only", cell.name]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        with (cell.folder / "log.txt").open("a") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=environment, preexec_fn=killed_with_parent
            )
            return process.wait()

    done = run_concurrently(cells, run_one, options.workers)
    told = tqdm(done, total=len(cells), unit="training", disable=not cells)
    return {cell.name: status for cell, status in told}


def _run_cell(options: argparse.Namespace):
    """Trains and measures one cell, alone in its folder. Exits with IN_USE where another process does."""
    ablation = read_ablation(options.file)
    cells = plan_cells(ablation, _output(options))
    if options.only not in cells:
        raise ConfigError(
            f"--only: {options.file} needs no training {options.only}; --dry_run lists those that it does"
        )
    cell = cells[options.only]
    try:
        with alone_in(cell.folder):
            if cell.trains:
                _train(cell)
            _measure(cell)
    except FolderInUse as error:
        print(error)
        raise SystemExit(IN_USE) from None


def _train(cell: Cell):
    """Trains, or resumes; returns at once if it is finished. Of a finished training the weights stay, not checkpoints."""
    config = cell.config.model_copy(update={"output_dir": str(cell.folder / "run"), "report": False})
    count = _processes()
    if count == 1:
        train(config)
    else:
        path = cell.folder / "cell.yaml"
        write_atomically(path, json.dumps(config.to_flat()))  # which is YAML too
        launch = [sys.executable, "-m", "swim.launch", "--nproc_per_node", str(count), "--standalone"]
        done = subprocess.run([*launch, "-m", "swim", "train", "--config", str(path)], preexec_fn=killed_with_parent)
        if done.returncode:
            raise ConfigError(f"the training ended with status {done.returncode}")
    Checkpoints(config.output_dir).delete_all()


def _measure(cell: Cell):
    """Measures what is missing; the scores of each set of words are kept as they come."""
    measuring = cell.measuring
    found = cell.scores()
    for words in cell.words:
        if words in found:
            continue
        folder = cell.folder / "answers" / digest({"yardsticks": measuring.identity, "words": words})
        found[words] = measuring.scores(cell.model, folder, dict(words))
        measured = [{"words": list(words), "scores": scores} for words, scores in found.items()]
        kept = {"weights": weights_digest(cell.model), "yardsticks": measuring.identity, "measured": measured}
        write_atomically(cell.folder / SCORES_FILE, json.dumps(kept, indent=1) + "\n")


def write_tables(ablation: Ablation, cells: dict[str, Cell], output: Path):
    """Writes what is measured so far, and prints it."""
    measured = [(cell, cell.scores()) for cell in cells.values()]
    rows = []
    for variant in ablation.variants:
        found = ((cell.seed, scores.get(variant.words)) for cell, scores in measured if variant in cell.variants)
        rows.append(Row(variant, {seed: scores for seed, scores in found if scores is not None}))
    table = as_markdown(rows, ablation.file.seeds)
    results = [
        {"axis": row.variant.axis, "variant": row.variant.name, "seed": seed, "scores": scores}
        for row in rows
        for seed, scores in row.scores.items()
    ]
    summary = {
        "file": str(ablation.path),
        "ablation": ablation.file.model_dump(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "results": results,
    }
    write_atomically(output / "ablation.json", json.dumps(summary, indent=1) + "\n")
    write_atomically(output / "ablation.md", f"# {output.name}\n\n{table}")
    plot(rows, output / "ablation.png")
    print(table)


def _list(cells: dict[str, Cell]):
    for cell in cells.values():
        state = "done" if cell.is_complete() else "to do"
        console.print(f"{state}  {cell.name}  {'; '.join(cell.needed_by)}")


def _output(options: argparse.Namespace) -> Path:
    return Path(options.output or Path("output/ablations") / Path(options.file).stem)
