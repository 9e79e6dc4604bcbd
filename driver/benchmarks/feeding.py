"""How fast data workers feed one GPU: samples per second from records to batches on the device.

    python driver/benchmarks/feeding.py                     # 1, 4, 8 and 16 workers, as many as there are cores
    python driver/benchmarks/feeding.py --workers 2 12

A clip of drawn_clips.py (720p, 10 s, a key frame every 250 frames at most), 32 frames of it, read and collated as in
training, pinned and copied to the GPU where there is one. Each number of workers runs until every one of them has made
`--samples` samples; the clock starts when each has made one. The last line of output is one JSON object.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch
import transformers
from drawn_clips import draw_clip, make_row
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoProcessor

from swim.data.collator import SwimCollator
from swim.demo.model import build_tiny_model
from swim.train.skipping import CountingCollator
from swim.video.patches import PIXEL_RANGE, float_patches


def samples_per_second(collator, row: dict, workers: int, samples: int, device: str) -> float:
    loader = DataLoader(
        [row] * workers * (samples + 1), collate_fn=collator, num_workers=workers, pin_memory=device == "cuda"
    )
    for number, batch in enumerate(loader):
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        batch["pixel_values_videos"] = float_patches(batch["pixel_values_videos"], batch.pop(PIXEL_RANGE))
        if number + 1 == workers:
            began = time.perf_counter()
    if device == "cuda":
        torch.cuda.synchronize()
    return workers * samples / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    fitting = [workers for workers in (1, 4, 8, 16) if workers <= cores]
    parser.add_argument("--workers", type=int, nargs="+", default=fitting)
    parser.add_argument("--samples", type=int, default=8, help="of each worker")
    parser.add_argument("--frames", type=int, default=300, help="of the clip")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        model = build_tiny_model(Path(folder) / "model")
        processor = AutoProcessor.from_pretrained(model, local_files_only=True)
        collator = SwimCollator(processor, AutoConfig.from_pretrained(model, local_files_only=True), as_bytes=True)
        draw_clip(Path(folder) / "clip.mp4", 0, 250, options.frames)
        row = make_row(Path(folder) / "clip.mp4", options.frames)
        for workers in options.workers:
            rate = samples_per_second(CountingCollator(collator, False), row, workers, options.samples, options.device)
            found[workers] = round(rate, 3)
            print(f"{workers} workers: {rate:.2f} samples/s", flush=True)
    report = {
        "benchmark": "feeding",
        "samples_per_second": found,
        "hardware": f"{cores} cores, {torch.cuda.get_device_name() if options.device == 'cuda' else 'no GPU'}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "settings": vars(options),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
