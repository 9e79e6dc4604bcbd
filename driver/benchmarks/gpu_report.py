"""Everything that only a GPU can show, in one report: `bash run_scripts/gpu_report.sh`.

    bash run_scripts/gpu_report.sh                  # one GPU of 80 GB, at most ten minutes
    bash run_scripts/gpu_report.sh --rehearse       # the same commands on a CPU, narrow shapes, two minutes

The parts, each a command of its own that can be given alone:

tests          tests/transformers/test_gpu.py: the fork on the GPU against the CPU
overhead       attention_overhead.py: what supervision costs
training_step  training_step.py: the whole step against TRL's SFTTrainer on stock transformers
maps           attention_maps.py: generation and attention maps at 16 steps of 720p
feeding        feeding.py: samples per second by number of data workers

Writes gpu_report.json and gpu_report.md into --output behind each part, so that a kill leaves what was measured. A part
that fails or no longer fits into --minutes is named in both and does not stop the others; the command then ends with 1.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import torch
import transformers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NARROW = ["--device", "cpu", "--layers", "4", "--tokens", "400"]
# By part: the arguments on a GPU, and those of a rehearsal.
PARTS = {
    "tests": ([], []),
    "overhead": (["--tokens", "4000", "12000", "--repeats", "5"], [*NARROW, "--repeats", "2"]),
    "training_step": (["--tokens", "4000", "12000", "--repeats", "5"], [*NARROW, "--repeats", "1"]),
    "maps": (["--tokens", "12000"], [*NARROW, "--words", "2", "--repeats", "1"]),
    "feeding": ([], ["--device", "cpu", "--workers", "1", "--samples", "1", "--frames", "40"]),
}
FILES = {"overhead": "attention_overhead.py", "maps": "attention_maps.py"}


def run_part(part: str, options, seconds: float) -> dict:
    """What a part measured. Raises RuntimeError saying why it did not."""
    if part == "tests":
        return run_tests(options.output / "tests.xml", seconds)
    arguments = list(PARTS[part][options.rehearse])
    if part == "training_step" and options.stock is not None:
        arguments += ["--stock", str(options.stock.resolve())]
    lines = run([sys.executable, str(HERE / FILES.get(part, f"{part}.py")), *arguments], seconds)
    try:
        return json.loads(lines[-1])
    except (ValueError, IndexError):
        raise RuntimeError("it printed no result") from None


def run_tests(report: Path, seconds: float) -> dict:
    """Counts of passed, failed and skipped GPU tests."""
    command = [sys.executable, "-m", "pytest", "tests/transformers/test_gpu.py", "-q", "-p", "no:cacheprovider"]
    run([*command, f"--junit-xml={report}"], seconds, accepted=(0, 1))
    suite = ElementTree.parse(report).getroot().find("testsuite")
    counts = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    bad = [case.get("name") for case in suite.iter("testcase") if {"failure", "error"} & {child.tag for child in case}]
    return {"passed": counts["tests"] - len(bad) - counts["skipped"], "failed": bad, "skipped": counts["skipped"]}


def run(command: list[str], seconds: float, accepted: tuple[int, ...] = (0,)) -> list[str]:
    """A command's lines, shown as they come. Raises RuntimeError when it fails or takes longer."""
    print(f"\n$ {' '.join(command)}", flush=True)
    paths = [str(ROOT / "driver"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    out_of_time, lines = threading.Event(), []
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(seconds, lambda: (out_of_time.set(), process.kill()))
        timer.start()
        try:
            for line in process.stdout:
                lines.append(line)
                print(line, end="", flush=True)
        finally:
            timer.cancel()
    if out_of_time.is_set():
        raise RuntimeError(f"out of time after {seconds:.0f} s")
    if process.returncode not in accepted:
        raise RuntimeError(f"ended with {process.returncode}")
    return lines


def environment() -> dict:
    """The machine and the versions that a number belongs to."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__}
    found |= {"cuda": torch.version.cuda, "cores": len(os.sched_getaffinity(0)), "gpu": None}
    try:
        import flash_attn

        found["flash_attn"] = flash_attn.__version__
    except ImportError:
        found["flash_attn"] = None
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        found |= {"gpu": facts.name, "gpu_memory_gb": round(facts.total_memory / 1e9, 1)}
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        found["driver"] = subprocess.run(query, capture_output=True, text=True).stdout.strip().split("\n")[0]
    return found


# ----------------------------------------------------------------------------------------------------------------------
# The table
# ----------------------------------------------------------------------------------------------------------------------


def markdown(report: dict) -> str:
    """The report as a page for people."""
    facts = report["environment"]
    where = f"{facts['gpu']}, {facts['gpu_memory_gb']} GB, driver {facts['driver']}" if facts["gpu"] else "no GPU"
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "cuda", "transformers", "flash_attn"))
    lines = ["# GPU report", "", f"{where}; {facts['cores']} CPU cores. {versions}."]
    if report["rehearsal"]:
        lines += ["", "**A rehearsal on a CPU with narrow shapes: the commands run, their numbers mean nothing.**"]
    for part, found in report["parts"].items():
        lines += ["", *TABLES[part](found)]
    if report["did_not_run"]:
        lines += ["", "Did not run:", *(f"- {part}: {why}" for part, why in report["did_not_run"].items())]
    return "\n".join(lines) + "\n"


def _table(header: list[str], rows: list[list]) -> list[str]:
    return [f"| {' | '.join(map(str, row))} |" for row in (header, ["---"] * len(header), *rows)]


def _gb(found: float | None) -> str:
    return "" if found is None else f"{found / 1e9:.1f}"


def _tests(found: dict) -> list[str]:
    failed = f", failed: {', '.join(found['failed'])}" if found["failed"] else ""
    return [f"GPU tests: {found['passed']} passed, {found['skipped']} skipped{failed}."]


def _overhead(found: dict) -> list[str]:
    rows = []
    for result in found["results"]:
        for way, seconds in result["seconds"].items():
            ratios = [result[f"{what}_ratio"].get(way, 1.0) for what in ("time", "memory")]
            rows.append([result["tokens"], way, seconds, _gb(result["peak_bytes"][way]), *ratios])
        rows += [[result["tokens"], way, "does not fit", "", "", ""] for way in result["left_out"]]
    title = f"Forward and backward, {found['settings']['attention']}; peaks above weights and batch"
    return [title, "", *_table(["tokens", "way", "s", "peak GB", "time", "memory"], rows)]


def _training_step(found: dict) -> list[str]:
    rows = []
    for result in found["results"]:
        for way, row in result["ways"].items():
            numbers = [row["seconds"], row["tokens_per_second"], row["tflops"], _gb(row["peak_bytes"])]
            rows.append([result["tokens"], way, *numbers, result["swim_to"].get(way, "")])
    peak = found["peak_tflops"]
    title = "Whole training step; TFLOP/s computed" + (f", the card's peak in bf16 is {peak}" if peak else "")
    missing = [f"{way}: {why}" for way, why in found["did_not_run"].items()]
    header = ["tokens", "way", "s", "tokens/s", "TFLOP/s", "peak GB", "speed-up over TRL"]
    return [title, "", *_table(header, rows), *(["", *missing] if missing else [])]


def _maps(found: dict) -> list[str]:
    rows = []
    for result in found["results"]:
        rows += [[result["tokens"], way, s, _gb(result["peak_bytes"][way])] for way, s in result["seconds"].items()]
    return ["Attention maps and generation", "", *_table(["tokens", "way", "s", "peak GB"], rows)]


def _feeding(found: dict) -> list[str]:
    return [
        "Feeding",
        "",
        *_table(["workers", "samples/s"], [list(row) for row in found["samples_per_second"].items()]),
    ]


TABLES = {"tests": _tests, "overhead": _overhead, "training_step": _training_step, "maps": _maps, "feeding": _feeding}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/gpu_report"), help="folder (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="for all parts together (%(default)s)")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--stock", type=Path, help="folder with stock transformers; default: the fork's release")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, narrow shapes")
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        print("error: no GPU is here; --rehearse runs the same commands on the CPU", file=sys.stderr)
        return 1
    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    report = {
        "rehearsal": options.rehearse,
        "environment": environment(),
        "parts": {},
        "did_not_run": {},
        "seconds": {},
    }
    for part in options.parts:
        start = time.monotonic()
        left = options.minutes * 60 - (start - began)
        try:
            if left < 1:
                raise RuntimeError("no time was left")
            report["parts"][part] = run_part(part, options, left)
        except RuntimeError as error:
            report["did_not_run"][part] = str(error)
            print(f"{part}: {error}", file=sys.stderr)
        report["seconds"][part] = round(time.monotonic() - start, 1)
        (options.output / "gpu_report.json").write_text(json.dumps(report, indent=1) + "\n")
        (options.output / "gpu_report.md").write_text(markdown(report))
    print("\n" + markdown(report) + f"\nwritten: {options.output / 'gpu_report.json'} and gpu_report.md")
    return 1 if report["did_not_run"] or report["parts"].get("tests", {}).get("failed") else 0


if __name__ == "__main__":
    sys.exit(main())
