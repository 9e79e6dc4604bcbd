"""What the paper's mixture costs a node: building the index, starting again, and memory while eight workers read.

    python driver/benchmarks/data_scale.py --records 20000    # 0.6 GB of JSON, a minute
    python driver/benchmarks/data_scale.py                    # 250,000 records, 7 GB of JSON, 15 GB of disk, ten minutes

Writes a synthetic mixture below `--folder` (kept, and reused by the same command): four files of detailed captions, one
of QA and one of LLaVA-Video in the paper's proportion 125 : 10 : 100, the rest more captions. A caption or QA record has
one to three instances with ten masks each, real RLE of ragged rings. Then, each in fresh processes:

build   the first start, with an empty cache: wall time and peak memory (VmHWM), and what of it the imports need
start   the second start: time of `load_mixture`, and apart of the imports before it; `cpu` is the process's own time
read    `--ranks` processes with `--workers` DataLoader workers each read random rows, every row by one of them, and turn
        them into records; private memory (Private_Clean + Private_Dirty of smaps_rollup) of all of them together, less
        that of the same processes reading one small file's rows as often. "clean" is the part that the kernel takes back
        without writing: pages of the index that just one process has mapped.

The last line of output is one JSON object.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

GOALS = {"build_peak_bytes": 1.5e9, "start_s": 3.0, "read_private_bytes": 0.5e9}
SHARES = {"qa": 10 / 250, "llava": 100 / 250}
SHARDS, POOL, FRAMES, HEIGHT, WIDTH = 4, 64, 10, 720, 1280
WORDS = "a the brown white small dog runs sits near bed table looks around slowly then turns its head and stops".split()


# ----------------------------------------------------------------------------------------------------------------------
# Synthetic records
# ----------------------------------------------------------------------------------------------------------------------


def make_mixture(folder: Path, records: int) -> Path:
    """The YAML of a mixture of that many records; made when it is not there yet."""
    config = folder / "mixture.yaml"
    if config.exists():
        return config
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    counts = {name: round(share * records) for name, share in SHARES.items()}
    captions = records - sum(counts.values())
    files = {f"caption-{n}": captions // SHARDS + (n < captions % SHARDS) for n in range(SHARDS)} | counts
    rng = random.Random(0)
    instances = make_instances(rng)
    for name, count in files.items():
        with open(folder / f"{name}.json", "w", encoding="utf-8") as file:
            for number in range(count):
                file.write(("[" if number == 0 else ",\n") + make_record(name, number, instances, rng))
            file.write("]" if count else "[]")
    sources = [{"json_path": f"{name}.json", "data_root": "videos"} for name in ("caption-*", *counts)]
    config.write_text(json.dumps({"datasets": sources}))
    return config


def make_instances(rng: random.Random) -> list[str]:
    """JSON of the masks of `POOL` instances: rings with ragged edges, new in every frame."""
    import numpy as np
    from pycocotools import mask as coco

    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    instances = []
    for _ in range(POOL):
        frames = {}
        for frame in range(FRAMES):
            y, x = rng.uniform(200, 500), rng.uniform(300, 900)
            ragged = np.random.default_rng(rng.getrandbits(32)).normal(0, 3, WIDTH)
            distance = ((rows - y + ragged) / rng.uniform(100, 200)) ** 2 + ((columns - x) / rng.uniform(250, 400)) ** 2
            rle = coco.encode(np.asfortranarray(((0.1 < distance) & (distance < 1)).astype(np.uint8)))
            frames[str(15 * frame)] = {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}
        instances.append(json.dumps(frames))
    return instances


def make_record(kind: str, number: int, instances: list[str], rng: random.Random) -> str:
    """JSON of one record."""
    text = " ".join(rng.choices(WORDS, k=150))
    turns = [{"from": "human", "value": "<video>\nDescribe it."}, {"from": "gpt", "value": text}]
    video = f"part-{number % 100:03}/{number:08}.mp4"
    if kind == "llava":
        return json.dumps({"id": f"llava_{number}", "data_source": "academic", "video": video, "conversations": turns})
    chosen = rng.choices(instances, k=rng.choice((1, 2, 2, 3)))
    turns[0]["value"] += "".join(f" <ins>thing {n}</ins>" for n in range(len(chosen)))
    index = f"videorefer_{'qa' if kind == 'qa' else 'detailed_caption'}_{kind}_{number}"
    head = json.dumps({"index": index, "video": video, "conversations": turns})
    return f'{head[:-1]}, "annotation": [{", ".join(chosen)}]}}'


# ----------------------------------------------------------------------------------------------------------------------
# What child processes do; each prints one JSON line
# ----------------------------------------------------------------------------------------------------------------------


def peak_bytes() -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def private_bytes(pid: int) -> tuple[int, int]:
    """(clean, dirty) private memory of a process."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB\n")}
    return sizes["Private_Clean:"], sizes["Private_Dirty:"]


def stage_open(config: str, *_):
    """Imports, then opens the mixture: building or not, as the cache decides."""
    start = time.perf_counter()
    from swim.data.mixture import load_mixture

    imported, import_bytes = time.perf_counter(), peak_bytes()
    cpu = time.process_time()
    mixture = load_mixture(config)
    seconds = {"import_s": imported - start, "open_s": time.perf_counter() - imported}
    seconds["open_cpu_s"] = time.process_time() - cpu
    sizes = {"import_bytes": import_bytes, "peak_bytes": peak_bytes(), "rows": len(mixture.dataset)}
    print(json.dumps(seconds | sizes), flush=True)


def stage_rank(config: str, rank: str, ranks: str, workers: str, *checkpoints: str):
    """Reads this rank's rows in random order; says how far it is and waits for a line at every checkpoint."""
    from torch.utils.data import DataLoader

    from swim.data.mixture import load_mixture, row_record

    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores

    dataset = load_mixture(config).dataset
    most = int(checkpoints[-1]) // int(ranks)
    order = random.Random(0).sample(range(len(dataset)), len(dataset))
    mine = (order * (-(-int(checkpoints[-1]) // len(order))))[int(rank) :: int(ranks)][:most]
    loader = DataLoader(
        dataset,
        sampler=mine,
        num_workers=int(workers),
        collate_fn=lambda rows: [len(row_record(row).instances) for row in rows],
        persistent_workers=True,
    )
    batches, read = iter(loader), 0
    for checkpoint in checkpoints:
        while read < int(checkpoint) // int(ranks):
            next(batches)
            read += 1
        pids = [os.getpid(), *(worker.pid for worker in batches._workers)]
        print(json.dumps(pids), flush=True)
        sys.stdin.readline()


# ----------------------------------------------------------------------------------------------------------------------
# The measurement
# ----------------------------------------------------------------------------------------------------------------------


def start(folder: Path, *arguments) -> subprocess.Popen:
    environment = os.environ | {"SWIM_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--stage", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def open_mixture(folder: Path, config: Path) -> dict:
    begun = time.perf_counter()
    process = start(folder, "open", config)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the mixture does not open, see above ({process.returncode})")
    return json.loads(output) | {"wall_s": time.perf_counter() - begun}


def private_while_reading(folder: Path, config: Path, options, checkpoints: list[int]) -> list[dict]:
    """Private bytes of all ranks and workers together, when so many rows are read."""
    ranks = [
        start(folder, "rank", config, n, options.ranks, options.workers, *checkpoints) for n in range(options.ranks)
    ]
    measured = []
    for checkpoint in checkpoints:
        pids = [pid for rank in ranks for pid in json.loads(rank.stdout.readline())]
        clean, dirty = (sum(sizes) for sizes in zip(*map(private_bytes, pids)))
        measured.append({"rows": checkpoint, "processes": len(pids), "clean_bytes": clean, "dirty_bytes": dirty})
        for rank in ranks:
            rank.stdin.write("\n")
            rank.stdin.flush()
    for rank in ranks:
        rank.communicate()
    return measured


def measure(folder: Path, options) -> dict:
    begun = time.perf_counter()
    config = make_mixture(folder / f"records-{options.records}", options.records)
    small = make_mixture(folder / "records-50", 50)
    json_bytes = sum(path.stat().st_size for path in config.parent.glob("*.json"))
    seconds = time.perf_counter() - begun
    print(f"{options.records:,} records, {json_bytes / 1e9:.2f} GB of JSON, {seconds:.0f} s", flush=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    build = open_mixture(folder, config)
    print(f"build: {build['open_s']:.1f} s, peak {build['peak_bytes'] / 1e9:.2f} GB", flush=True)
    again = open_mixture(folder, config)
    print(f"start: {again['open_s']:.2f} s, imports {again['import_s']:.2f} s", flush=True)
    open_mixture(folder, small)
    with_it, without = (private_while_reading(folder, which, options, options.reads) for which in (config, small))
    read = []
    for mixture, baseline in zip(with_it, without):
        added = {name: mixture[name] - baseline[name] for name in ("clean_bytes", "dirty_bytes")}
        read.append({"rows": mixture["rows"], "processes": mixture["processes"], **added})
        private, dirty = sum(added.values()) / 1e9, added["dirty_bytes"] / 1e9
        print(f"read {mixture['rows']:,} rows: {private:.3f} GB private, {dirty:.3f} dirty", flush=True)
    worst = max(entry["clean_bytes"] + entry["dirty_bytes"] for entry in read)
    figures = {"build_peak_bytes": build["peak_bytes"], "start_s": again["open_s"], "read_private_bytes": worst}
    return {
        "json_bytes": json_bytes,
        "build": build,
        "start": again,
        "read": read,
        **figures,
        "goals": {name: figures[name] <= goal for name, goal in GOALS.items()},
    }


def main():
    if sys.argv[1:2] == ["--stage"]:
        {"open": stage_open, "rank": stage_rank}[sys.argv[2]](*sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=250_000)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4, help="DataLoader workers of a rank")
    parser.add_argument(
        "--reads", type=int, nargs="+", default=[2_000, 20_000], help="rows read when memory is measured"
    )
    parser.add_argument("--folder", type=Path, default=Path("output/data_scale"))
    options = parser.parse_args()
    import datasets
    import pyarrow

    result = measure(options.folder, options)
    versions = {"python": platform.python_version(), "datasets": datasets.__version__, "pyarrow": pyarrow.__version__}
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    report = {"benchmark": "data_scale", **result, "hardware": hardware(), "versions": versions, "settings": settings}
    print(json.dumps(report))


def hardware() -> str:
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


if __name__ == "__main__":
    main()
