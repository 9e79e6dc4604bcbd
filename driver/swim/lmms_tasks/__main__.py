"""Runs lmms-eval on a checkpoint, with the two VideoRefer tasks beside its own.

    python -m swim.lmms_tasks --model output/swim-7b --tasks mvbench,videomme,activitynetqa
    python -m swim.lmms_tasks --model output/demo --tasks videorefer_bench_q --limit 4 --device cpu

Further arguments go to lmms_eval. $VIDEOREFER_BENCH_Q and $VIDEOREFER_BENCH_D are the benchmarks' JSON files,
$VIDEOREFER_ROOT is what their videos are relative to (default: each file's folder).
"""

import argparse
import json
import os
import sys
from pathlib import Path

from swim.data.bench import parse_bench_d, parse_bench_q
from swim.data.chat import SYSTEM_PROMPT
from swim.data.tags import strip_tags
from swim.errors import DataError
from swim.eval.scores_q import prompt_of

TASKS_FOLDER = Path(__file__).resolve().parent
BENCHES = {
    "videorefer_bench_q": ("VIDEOREFER_BENCH_Q", parse_bench_q, prompt_of, lambda item: item.letter),
    "videorefer_bench_d": ("VIDEOREFER_BENCH_D", parse_bench_d, lambda item: item.question, lambda item: item.reference),
}


def prepare_items(task: str, folder: Path):
    """Writes the items of a VideoRefer task as lmms-eval reads them: `folder`/TASK.jsonl with id, video (absolute), prompt,
    target and item, the item's own JSON without masks. Raises DataError naming the file or the item."""
    variable, parse, prompt, target = BENCHES[task]
    if not os.environ.get(variable):
        raise DataError(f"{variable} is not set; it names the JSON file of {task}")
    path = Path(os.environ[variable]).resolve()
    root = Path(os.environ.get("VIDEOREFER_ROOT") or path.parent).resolve()
    try:
        raws = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", str(path)) from None
    lines = []
    for position, raw in enumerate(raws):
        item = parse(raw, f"{path}, item {position}", root)
        if isinstance(item.path, tuple):
            raise DataError("lmms-eval reads videos, not lists of frames", item.where)
        slim = json.dumps({key: value for key, value in raw.items() if key != "annotation"})
        entry = {"id": str(position if item.id is None else item.id), "video": str(item.path), "item": slim}
        lines.append(json.dumps({**entry, "prompt": strip_tags(prompt(item))[0], "target": target(item)}) + "\n")
    (folder / f"{task}.jsonl").write_text("".join(lines), encoding="utf-8")


def command_of(options: argparse.Namespace, rest: list[str], output: Path) -> list[str]:
    """lmms-eval's command line, in the spelling that its pinned version accepts."""
    model = Path(options.model).resolve() if Path(options.model).exists() else options.model
    arguments = {"pretrained": model, "system_prompt": options.system_prompt, "max_num_frames": options.max_frames}
    arguments |= {"min_pixels": options.min_pixels, "max_pixels": options.max_pixels}
    if options.device == "cpu":
        arguments |= {"device": "cpu", "device_map": "cpu", "attn_implementation": "sdpa"}
    else:
        arguments |= {"attn_implementation": options.attn_implementation}
    model_args = ",".join(f"{name}={value}" for name, value in arguments.items())
    command = [sys.executable, "-m", "lmms_eval", "--model", "qwen2_5_vl", "--force_simple", "--model_args", model_args]
    command += ["--tasks", options.tasks, "--batch_size", "1", "--include_path", str(TASKS_FOLDER)]
    return [*command, "--output_path", str(output / "results"), "--log_samples", *rest]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="checkpoint folder or hub name")
    parser.add_argument("--tasks", required=True, help="comma-separated")
    parser.add_argument("--output", default="output/lmms_eval", help="folder of items and results")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--attn_implementation", default="flash_attention_2", choices=("flash_attention_2", "sdpa"))
    parser.add_argument("--max_frames", type=int, default=32)
    parser.add_argument("--min_pixels", type=int, default=128 * 28 * 28)
    parser.add_argument("--max_pixels", type=int, default=768 * 28 * 28)
    parser.add_argument("--system_prompt", default=SYSTEM_PROMPT.replace(",", ""))  # a comma ends an argument there
    options, rest = parser.parse_known_args()
    output = Path(options.output).resolve()
    output.mkdir(parents=True, exist_ok=True)
    try:
        for task in set(options.tasks.split(",")) & set(BENCHES):
            prepare_items(task, output)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = command_of(options, rest, output)
    os.chdir(output)  # the tasks name their items relative to it
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(main())
