"""The clips of the data benchmarks, and their records: 720p, H.264, with as much detail as a film has."""

import json
from pathlib import Path

import av
import numpy as np
from PIL import Image
from pycocotools import mask as coco

HEIGHT, WIDTH, FRAMES, FPS, RADIUS = 720, 1280, 300, 30, 78
QUESTION = "What does the <ins>round thing</ins> do in the video?"
ANSWER = (
    "The <ins>round thing</ins> travels from side to side over a landscape that moves slowly to the left. Its surface "
    "turns all the time, and it never leaves the picture while it rises and falls."
)


def draw_clip(path: Path, seed: int, key_interval: int, frames: int = FRAMES):
    """A landscape that moves to the left under film grain, and a patterned disc on its way over it."""
    random = np.random.default_rng(seed)
    panorama = np.full((HEIGHT, WIDTH + 3 * FRAMES, 3), 128, np.float32)
    for rows, strength in ((8, 60), (32, 30), (120, 12), (360, 16), (720, 7)):  # coarse shapes to fine texture
        noise = random.normal(size=(rows, rows * panorama.shape[1] // HEIGHT, 3)).astype(np.float32)
        panorama += strength * np.stack([_enlarge(noise[:, :, c], panorama.shape) for c in range(3)], axis=2)
    panorama = panorama.clip(0, 255)
    grain = random.normal(0, 3, (16, HEIGHT, WIDTH, 1)).astype(np.int8)
    disc = _disc(RADIUS, RADIUS, 2 * RADIUS, 2 * RADIUS).astype(bool)
    pattern = random.integers(0, 256, (39, 39)).astype(np.float32)
    pattern = _enlarge(pattern, disc.shape)[:, :, None].clip(0, 255) * [1.0, 0.8, 0.3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": str(key_interval), "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(frames):
            frame = (panorama[:, 3 * number : 3 * number + WIDTH] + grain[number % 16]).clip(0, 255).astype(np.uint8)
            y, x = _centre(number)
            frame[y - RADIUS : y + RADIUS, x - RADIUS : x + RADIUS][disc] = np.roll(pattern, number, axis=0)[disc]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
        container.mux(stream.encode())


def make_row(path: Path, frames: int = FRAMES) -> dict:
    """The mixture's row of one clip, see swim.data.mixture."""
    masks = {}
    for number in range(5, frames, 30):
        rle = coco.encode(np.asfortranarray(_disc(*_centre(number), HEIGHT, WIDTH)))
        masks[str(number)] = {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
    record = {"index": "videorefer_detailed_caption_0", "video": path.name, "conversations": turns}
    place = {"file": "drawn.json", "position": 0, "data_root": str(path.parent), "folder_fps": None}
    return {"record": json.dumps(record), "annotation": json.dumps([masks])} | place


def _enlarge(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(Image.fromarray(values).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _disc(y: int, x: int, height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return ((rows - y) ** 2 + (columns - x) ** 2 < RADIUS**2).astype(np.uint8)


def _centre(number: int) -> tuple[int, int]:
    return int(360 + 200 * np.sin(number / 30)), int(640 + 450 * np.cos(number / 47))
