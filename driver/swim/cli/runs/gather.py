"""Brings what a mixture needs into one folder."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from tqdm import tqdm

from swim.data.gather import MISSING, MIXTURE, gather, parts_of
from swim.data.mixture import load_mixture
from swim.errors import DataError
from swim.files import human_bytes
from swim.lock import alone_in

console = Console(soft_wrap=True)


def run(options: argparse.Namespace) -> int:
    folder = Path(options.output)
    try:
        mixture = load_mixture(options.config, options.seed)
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            parts = parts_of(mixture)
            brought = gather(mixture, parts, folder, options.concurrency)
            problems = list(tqdm(brought, total=sum(len(part.rows) for part in parts), desc="gathering", unit="record"))
    except (DataError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    missing = [problem for problem in problems if problem is not None]
    size = sum(path.stat().st_size for path in (folder / "videos").rglob("*") if path.is_file())
    console.print(f"{folder / MIXTURE}: {len(problems) - len(missing)} records, {human_bytes(size)} of videos")
    for problem in missing[:5]:
        console.print(f"  {problem}", style="red", markup=False)
    if missing:
        console.print(f"{len(missing)} record(s) are left out, see {folder / MISSING}", style="red")
    return int(bool(missing))
