"""Ablations: variants of one training over several seeds, in one table.

    swim ablate run_scripts/ablations/demo.yaml
    sbatch --array=0-7 ... swim ablate run_scripts/ablations/paper_7b.yaml    # each task takes what no other does

FILE names a base configuration, axes of variants and seeds (docs/ablation.md). Every different training runs once, whatever
rows of the tables need it, and only if it has not run yet: rerun the command to go on after a kill, to add variants or
seeds, or start it several times to share the work. With NPROC=8 each training runs on 8 processes.

Writes ablation.md, ablation.json and ablation.png into the output folder, and each training into cells/ID there.

Exit status: 0 when the tables are complete, 1 when a training failed or the file does not fit, 3 when others still run,
and of --tables_only when something is not measured yet.
"""

from swim.command_line import command_parser, whole


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser(__doc__, "swim ablate")
    parser.add_argument("file", help="the ablation")
    parser.add_argument("--output", help="folder (default: output/ablations/NAME OF THE FILE)")
    parser.add_argument(
        "--workers", type=whole(1), default=1, help="trainings side by side, each with its share of the cores"
    )
    parser.add_argument("--only", metavar="ID", help="run this training alone, and write no tables")
    parser.add_argument("--dry_run", action="store_true", help="list the trainings and which of them have run")
    parser.add_argument(
        "--tables_only", action="store_true", help="write the tables of what is measured so far, and train nothing"
    )
    options = parser.parse_args(arguments)
    from swim.cli.runs.ablate import run

    return run(options)
