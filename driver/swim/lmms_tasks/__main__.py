"""Runs lmms-eval on a checkpoint, with the two VideoRefer tasks beside its own.

    python -m swim.lmms_tasks --model output/swim-7b --tasks mvbench,videomme,activitynetqa
    python -m swim.lmms_tasks --model output/demo --tasks videorefer_bench_q --limit 4 --device cpu

Videos are read as the model was trained to read them, as far as lmms-eval can: what it cannot do is printed. Further
arguments go to lmms_eval. $VIDEOREFER_BENCH_Q and $VIDEOREFER_BENCH_D are the benchmarks' JSON files,
$VIDEOREFER_ROOT is what their videos are relative to (default: each file's folder).
"""

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from swim.command_line import command_parser, whole
from swim.data.bench import BenchD, BenchQ, parse_bench_d, parse_bench_q
from swim.data.settings import READING_FILE, DataSettings, find_reading
from swim.data.tags import strip_tags
from swim.errors import DataError
from swim.files import parse_json, read_file
from swim.models.load import load_config
from swim.video.clip import VisualBudget

TASKS_FOLDER = Path(__file__).resolve().parent


class _Asked(NamedTuple):
    """An item, how lmms-eval asks it, and what it compares the answer with."""

    item: BenchQ | BenchD
    prompt: str
    target: str


def _ask_q(raw: dict, where: str, root: Path) -> _Asked:
    item = parse_bench_q(raw, where, root)
    return _Asked(item, item.prompt(), item.letter)


def _ask_d(raw: dict, where: str, root: Path) -> _Asked:
    item = parse_bench_d(raw, where, root)
    return _Asked(item, item.question, item.reference)


BENCHES = {
    "videorefer_bench_q": ("VIDEOREFER_BENCH_Q", _ask_q),
    "videorefer_bench_d": ("VIDEOREFER_BENCH_D", _ask_d),
}


def prepare_items(task: str, folder: Path):
    """Writes the items of a VideoRefer task as lmms-eval reads them: `folder`/TASK.jsonl with id, video (absolute), prompt,
    target and item, the item's own JSON without masks. Raises DataError naming the file or the item."""
    variable, ask = BENCHES[task]
    if not os.environ.get(variable):
        raise DataError(f"{variable} is not set; it names the JSON file of {task}")
    content = read_file(Path(os.environ[variable]), f"fix {variable}")
    path = Path(os.environ[variable]).resolve()
    root = Path(os.environ.get("VIDEOREFER_ROOT") or path.parent).resolve()
    raws = parse_json(content, str(path))
    lines = []
    for position, raw in enumerate(raws):
        item, prompt, target = ask(raw, f"{path}, item {position}", root)
        if isinstance(item.path, tuple):
            raise DataError("lmms-eval reads videos, not lists of frames", item.where)
        slim = json.dumps({key: value for key, value in raw.items() if key != "annotation"})
        entry = {"id": str(position if item.id is None else item.id), "video": str(item.path), "item": slim}
        lines.append(json.dumps({**entry, "prompt": strip_tags(prompt)[0], "target": target}) + "\n")
    (folder / f"{task}.jsonl").write_text("".join(lines), encoding="utf-8")


def reading_of(options: argparse.Namespace) -> dict:
    """How lmms-eval is to read videos: as given, else as the model was trained, else the paper's; says what and why.

    Raises DataError naming the model's READING_FILE when it is malformed, and for pixels that contradict each other.
    """
    found = find_reading(options.model)
    settings = DataSettings() if found is None else found[0]
    budget = settings.budget
    given = {name: getattr(options, name) for name in ("max_frames", "min_pixels", "max_pixels")}
    asked = replace(budget, **{name: value for name, value in given.items() if value is not None})
    if asked.contradiction is not None:
        raise DataError(asked.contradiction, options.model)
    system_prompt: str = options.system_prompt or settings.system_prompt
    reading = {
        "system_prompt": system_prompt,
        "max_num_frames": asked.max_frames,
        "min_pixels": asked.min_pixels,
        "max_pixels": asked.max_pixels,
    }
    where = f"{options.model} has no {READING_FILE}: the paper's" if found is None else f"as {found[1]} says"
    print(f"videos are read with {reading}, options apart {where}", file=sys.stderr)
    if "," in system_prompt:
        reading["system_prompt"] = system_prompt.replace(",", "")
        print("the system prompt goes without its commas: a comma ends an argument of lmms-eval", file=sys.stderr)
    lost = {"fps": budget.fps, "released_timing": settings.released_timing, "max_length": settings.max_length}
    lost |= {"total_pixels": None if budget.total_pixels == VisualBudget.total_pixels else budget.total_pixels}
    for name in (name for name, value in lost.items() if value):
        print(f"the model was trained with {name} = {lost[name]}, which lmms-eval does not know", file=sys.stderr)
    return reading


def command_of(options: argparse.Namespace, reading: dict, rest: list[str], output: Path) -> list[str]:
    """lmms-eval's command line, in the spelling that its pinned version accepts. reading: of `reading_of`.

    Raises OSError or ValueError for what is no model of a known family; lmms-eval has a loader for each.
    """
    model = Path(options.model).resolve() if Path(options.model).exists() else options.model
    arguments = {"pretrained": model, **reading}
    if options.device == "cpu":
        arguments |= {"device": "cpu", "device_map": "cpu", "attn_implementation": "sdpa"}
    else:
        arguments |= {"attn_implementation": options.attn_implementation}
    model_args = ",".join(f"{name}={value}" for name, value in arguments.items())
    command = [sys.executable, "-m", "lmms_eval", "--model", load_config(options.model).model_type]
    command += ["--force_simple", "--model_args", model_args]
    command += ["--tasks", options.tasks, "--batch_size", "1", "--include_path", str(TASKS_FOLDER)]
    return [*command, "--output_path", str(output / "results"), "--log_samples", *rest]


def main() -> int:
    parser = command_parser(__doc__, "swim.lmms_tasks")
    parser.add_argument("--model", required=True, help="checkpoint folder or hub name")
    parser.add_argument("--tasks", required=True, help="comma-separated")
    parser.add_argument("--output", default="output/lmms_eval", help="folder of items and results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where the model runs")
    parser.add_argument(
        "--attn_implementation",
        default="flash_attention_2",
        choices=("flash_attention_2", "sdpa"),
        help="flash attention needs a GPU, SDPA does not",
    )
    trained = "(default: as the model was trained, else the paper's)"
    parser.add_argument("--max_frames", type=whole(1), help=f"most frames of a clip {trained}")
    parser.add_argument("--min_pixels", type=whole(1), help=f"fewest pixels of a resized frame {trained}")
    parser.add_argument("--max_pixels", type=whole(1), help=f"most pixels of a resized frame {trained}")
    parser.add_argument("--system_prompt", help=f"system prompt of the conversation {trained}")
    options, rest = parser.parse_known_args()
    output = Path(options.output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    try:
        for task in set(options.tasks.split(",")) & set(BENCHES):
            prepare_items(task, output)
        command = command_of(options, reading_of(options), rest, output)
    except (DataError, OSError, ValueError) as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    os.chdir(output)  # the tasks name their items relative to it
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
