"""What feeding costs: samples a second of one core, from the record to the batch, beside the straightforward way.

    python driver/benchmarks/data_throughput.py                       # about 2 minutes of one core, half of it drawing
    python driver/benchmarks/data_throughput.py --clips 2 --repeats 5

Clips are drawn first: 720p, 10 s, 30 frames a second, H.264 as x264 makes it by default, about 2 Mbit/s as on YouTube,
with a key frame every 250 and every 30 frames at most. A record describes one object that moves through a clip, with RLE
masks in 10 frames. Of each clip 32 frames within the paper's pixel budget are seen. The ways:

swim    SampleReader and SwimCollator: the whole batch, with labels and the four supervision tensors
plain   what Qwen2.5-VL's documentation shows: qwen-vl-utils' fetch_video (decord), the processor on text and video; then
        pycocotools for every annotated mask, resized to the grid. No labels, no supervision tensors. decord's fps is left
        out of the call: transformers 5.24 refuses what fetch_video returns

Besides, what each reader of `video_reader` takes for the same 32 frames, opening included, its pixels compared with ours
(torchcodec where it finds an FFmpeg); and what the codec alone takes for all frames that the 32 are predicted from, without
Python between its calls, colours or opening: the floor of `decode`, which no reader that returns these pixels goes below. *In a tar*: the clip read from an archive.

One process, one thread. Seconds are the process's CPU time, which other programs disturb least; medians over clips and
repeats. The table's stages are timed one by one beside the whole; `rest` is what the whole takes beyond their sum.

cores_per_gpu is how many such cores feed a GPU that trains --samples_per_second_per_gpu. The default is an estimate for
one H200: a sample of 12,000 tokens costs a 7B model about 9e14 operations (forward, backward and recomputation of the
language model, forward of the frozen vision tower); at 4e14 a second, 40 % of the card's peak in bf16, that is 0.45
samples a second. The last line of output is one JSON object.
"""

import argparse
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import av  # noqa: E402
import decord  # noqa: E402
import numpy as np  # noqa: E402
import qwen_vl_utils.vision_process as qwen  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
import transformers  # noqa: E402
from drawn_clips import ANSWER, FPS, FRAMES, HEIGHT, QUESTION, WIDTH, draw_clip, make_row  # noqa: E402
from pycocotools import mask as coco  # noqa: E402
from transformers import AutoConfig, AutoProcessor  # noqa: E402

from swim.data.collator import SwimCollator  # noqa: E402
from swim.data.masks import cover_cells, decode_mask  # noqa: E402
from swim.data.mixture import row_record  # noqa: E402
from swim.demo.model import build_tiny_model  # noqa: E402
from swim.prompts import SYSTEM_PROMPT  # noqa: E402
from swim.video import READERS  # noqa: E402
from swim.video.clip import VisualBudget, resize_frame  # noqa: E402
from swim.video.decoder import VideoFile  # noqa: E402
from swim.video.readers import NoReader, check_reader, open_video  # noqa: E402
from swim.video.sources import open_source  # noqa: E402

BUDGET = VisualBudget()
KEY_INTERVALS = (250, 30)
GOAL = 3.0
COLOUR_ROUNDING = 4  # of 255: libraries round yuv to rgb in their own ways


# ----------------------------------------------------------------------------------------------------------------------
# The two ways, whole and in stages
# ----------------------------------------------------------------------------------------------------------------------


def swim_stages(collator: SwimCollator, row: dict) -> dict[str, float]:
    """CPU seconds of each stage of our way by itself."""
    watch = Stopwatch()
    record = row_record(row)
    sample = collator.reader.read(record)
    clip, size = sample.clip, sample.clip.frames.shape[2:]
    with watch("open, index"):
        file = VideoFile(record.path)
    with file:
        frames, frame = file.frames(clip.numbers), None
        for _ in clip.numbers:
            with watch("decode"):
                _, frame = next(frames)
            with watch("resize"):
                resize_frame(frame, size).contiguous()
    with av.open(str(record.path)) as container:
        picture = next(container.decode(video=0))
    for _ in clip.numbers:
        with watch("colours"):
            picture.to_ndarray(format="rgb24")
    watch.seconds["decode"] -= watch.seconds["colours"]
    with watch("masks"):
        for segmentation in record.instances[0].values():
            cover_cells(decode_mask(segmentation, HEIGHT, WIDTH), size[0] // 28, size[1] // 28)
    with watch("patches"):
        collator._patching.video_processor([clip.frames], do_resize=False, do_sample_frames=False, return_tensors="pt")
    text = _expanded(collator.render(record).text, clip.frames.shape)
    with watch("tokens"):
        collator.processor.tokenizer([text], return_offsets_mapping=True)
    return watch.seconds


def plain(processor, row: dict) -> dict:
    """The documented way: the processor's inputs and float32[annotated frames, rows, columns] `masks`."""
    record = json.loads(row["record"])
    source = str(Path(row["data_root"]) / record["video"])
    turns = [{"role": "system", "content": SYSTEM_PROMPT}]
    question, answer = (turn["value"].replace("<ins>", "").replace("</ins>", "") for turn in record["conversations"])
    turns.append({"role": "user", "content": [{"type": "video", "video": source}, {"type": "text", "text": question}]})
    turns.append({"role": "assistant", "content": answer})
    text = processor.apply_chat_template(turns, tokenize=False)
    limits = {"min_pixels": BUDGET.min_pixels, "max_pixels": BUDGET.max_pixels, "total_pixels": BUDGET.total_pixels}
    video = qwen.fetch_video({"video": source, "nframes": BUDGET.max_frames, **limits})
    inputs = processor(text=[text], videos=[video], padding=True, return_tensors="pt")
    return dict(inputs) | {"masks": plain_masks(row, video.shape[2:])}


def plain_masks(row: dict, size: torch.Size) -> torch.Tensor:
    (frames,) = json.loads(row["annotation"])
    masks = [torch.from_numpy(coco.decode(frame["segmentation"])).float() for frame in frames.values()]
    grid = [side // 28 for side in size]
    return torch.cat([torch.nn.functional.interpolate(mask[None, None], grid, mode="area")[0] for mask in masks])


def plain_stages(processor, row: dict) -> dict[str, float]:
    """CPU seconds of each stage of the straightforward way by itself."""
    watch = Stopwatch()
    path = str(Path(row["data_root"]) / json.loads(row["record"])["video"])
    size = [int(side) for side in qwen.smart_resize(HEIGHT, WIDTH, 28, BUDGET.min_pixels, BUDGET.max_pixels)]
    with watch("open, index"):
        reader = decord.VideoReader(path)
    numbers = torch.linspace(0, len(reader) - 1, BUDGET.max_frames).round().long().tolist()
    with watch("decode"):  # decord changes the colours on the way
        frames = torch.tensor(reader.get_batch(numbers).asnumpy()).permute(0, 3, 1, 2)
    with watch("resize"):
        bicubic = torchvision.transforms.InterpolationMode.BICUBIC
        video = torchvision.transforms.functional.resize(frames, size, interpolation=bicubic, antialias=True).float()
    del frames
    with watch("masks"):
        plain_masks(row, video.shape[2:])
    with watch("patches"):
        processor.video_processor([video], return_tensors="pt")
    text = _expanded(processor.video_token + QUESTION + ANSWER, video.shape)
    with watch("tokens"):
        processor.tokenizer([text])
    return watch.seconds


def _expanded(text: str, shape: torch.Size) -> str:
    """A chat text with its one video placeholder repeated for every visual token of frames[F, 3, h, w]."""
    tokens = shape[0] // 2 * (shape[2] // 28) * (shape[3] // 28)
    return text.replace("<|video_pad|>", "<|video_pad|>" * tokens)


# ----------------------------------------------------------------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------------------------------------------------------------


class Stopwatch:
    """CPU seconds of the process by stage: `with watch("decode"): ...` adds to `watch.seconds["decode"]`."""

    def __init__(self):
        self.seconds = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str):
        start = time.process_time()
        yield
        self.seconds[stage] += time.process_time() - start


def whole(work: Callable[[], object]) -> dict[str, float]:
    watch = Stopwatch()
    with watch("whole"):
        work()
    return watch.seconds


def measure(collator: SwimCollator, processor, rows: list[dict], repeats: int) -> dict:
    """Medians of whole samples and of their stages, the ways in turns; a first round warms up and is not counted."""
    swim = [lambda row: whole(lambda: collator([row])), lambda row: swim_stages(collator, row)]
    straight = [lambda row: whole(lambda: plain(processor, row)), lambda row: plain_stages(processor, row)]
    ways, noted = {"swim": swim, "plain": straight}, {"swim": [], "plain": []}
    for repeat in range(repeats + 1):
        for row in rows:
            for way in sorted(ways, reverse=repeat % 2 == 1):
                seconds = {stage: value for measured in ways[way] for stage, value in measured(row).items()}
                noted[way] += [seconds] if repeat else []
    result = {way: summarise(samples) for way, samples in noted.items()}
    return result | {"ratio": round(result["plain"]["seconds"] / result["swim"]["seconds"], 3)}


def measure_readers(collator: SwimCollator, rows: list[dict], repeats: int) -> dict[str, float]:
    """Median seconds of a clip's sampled frames by each reader that works here, in turns. Raises ValueError where one gives
    another picture than ours."""
    names = [name for name in READERS if works(name)]
    records = [row_record(row) for row in rows]
    chosen = [collator.reader.read(record).clip.numbers for record in records]
    noted = defaultdict(list)
    for repeat in range(repeats + 1):
        for record, numbers in zip(records, chosen):
            floor, packed = codec_alone(Path(record.path), numbers), from_archive(Path(record.path), numbers)
            noted["codec alone"] += [floor] if repeat else []
            noted["pyav, in a tar"] += [packed] if repeat else []
            ours: dict[int, np.ndarray] = {}
            for name in names:
                watch = Stopwatch()
                with watch("reading"), open_video(Path(record.path), str(record.path), name) as file:
                    found = dict(file.frames(numbers))
                noted[name] += [watch.seconds["reading"]] if repeat else []
                ours = ours or found
                differing = [n for n in numbers if np.abs(found[n].astype(int) - ours[n]).max() > COLOUR_ROUNDING]
                if differing:
                    raise ValueError(f"{name} gives other frames of {record.path}: {differing}")
    return {name: round(statistics.median(values), 4) for name, values in noted.items()}


def codec_alone(path: Path, numbers: list[int]) -> float:
    """Seconds of libavcodec alone for these frames and those that they are predicted from, from the first packet on."""
    with VideoFile(path) as file:
        times = file._timestamps
    assert times is not None  # of an mp4
    wanted, watch = {times[number] for number in numbers}, Stopwatch()
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        codec.thread_count = 1
        for packet in list(container.demux(video=0)):
            codec.skip_frame = "NONREF" if packet.size and packet.pts not in wanted else "DEFAULT"
            with watch("codec"):
                codec.decode(packet if packet.size else None)
    return watch.seconds["codec"]


def from_archive(path: Path, numbers: list[int]) -> float:
    """Seconds of our reader for these frames of the clip in a tar archive beside it."""
    archive, watch = path.with_suffix(".tar"), Stopwatch()
    if not archive.exists():
        with tarfile.open(archive, "w") as packed:
            packed.add(path, arcname=path.name)
    with watch("reading"), open_source(f"{archive}::{path.name}") as file:
        list(file.frames(numbers))
    return watch.seconds["reading"]


def works(reader: str) -> bool:
    try:
        check_reader(reader)
    except NoReader:
        return False
    return True


def summarise(samples: list[dict[str, float]]) -> dict:
    stages = {stage: round(statistics.median(s[stage] for s in samples), 4) for stage in samples[0]}
    seconds = stages.pop("whole")
    stages["rest"] = round(seconds - sum(stages.values()), 4)
    spread = [round(pick(s["whole"] for s in samples), 4) for pick in (min, max)]
    return {"seconds": seconds, "spread": spread, "samples_per_second": round(1 / seconds, 4), "stages": stages}


def print_table(key_interval: int, result: dict):
    swim, straight = result["swim"], result["plain"]
    print(f"key frames every {key_interval} frames at most, {result['mbit_per_second']} Mbit/s; CPU seconds a sample:")
    print(f"  {'':<14}{'swim':>8}{'plain':>8}")
    for stage, seconds in swim["stages"].items():
        other = straight["stages"].get(stage)
        print(f"  {stage:<14}{seconds:8.3f}" + (f"{other:8.3f}" if other is not None else "  (decode)"))
    print(f"  {'whole':<14}{swim['seconds']:8.3f}{straight['seconds']:8.3f}   ratio {result['ratio']}")
    readers = result["readers"]
    told = (f"{name} {seconds:.3f} ({seconds / readers['pyav']:.2f})" for name, seconds in readers.items())
    print(f"  reading the frames alone: {', '.join(told)}")
    print(f"  samples a second and core: {swim['samples_per_second']}", flush=True)


def hardware() -> str:
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, 1 of {len(names)} cores"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1, help="of each key frame interval")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--samples_per_second_per_gpu", type=float, default=0.45)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        model = build_tiny_model(Path(folder) / "model")
        processor = AutoProcessor.from_pretrained(model, local_files_only=True)
        config = AutoConfig.from_pretrained(model, local_files_only=True)
        collator = SwimCollator(processor, config, as_bytes=True)
        for interval in KEY_INTERVALS:
            paths = [Path(folder) / f"{interval}_{number}.mp4" for number in range(options.clips)]
            for number, path in enumerate(paths):
                draw_clip(path, number, interval)
            bits = sum(path.stat().st_size for path in paths) * 8 / len(paths)
            rows = [make_row(path) for path in paths]
            results[interval] = measure(collator, processor, rows, options.repeats)
            results[interval]["readers"] = measure_readers(collator, rows, options.repeats)
            results[interval]["mbit_per_second"] = round(bits / 1e6 / (FRAMES / FPS), 2)
            print_table(interval, results[interval])
    rate = results[KEY_INTERVALS[0]]["swim"]["samples_per_second"]
    names = (av, decord, torch, torchvision, transformers)
    report = {
        "benchmark": "data_throughput",
        "ratio": {str(interval): result["ratio"] for interval, result in results.items()},
        "goal_met": {str(interval): result["ratio"] >= GOAL for interval, result in results.items()},
        "cores_per_gpu": round(options.samples_per_second_per_gpu / rate, 2),
        "results": results,
        "hardware": hardware(),
        "versions": {module.__name__: module.__version__ for module in names},
        "settings": vars(options),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
