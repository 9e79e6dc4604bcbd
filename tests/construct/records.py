"""Records of the VideoRefer layouts, with real masks of small shapes."""

import numpy as np
from pycocotools import mask as coco


def rle(row: int, column: int, size: int = 12, height: int = 56, width: int = 84) -> dict:
    """The COCO RLE of a square."""
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[row : row + size, column : column + size] = 1
    encoded = coco.encode(mask)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def annotation(instances: int, frames=(0, 2)) -> list[dict]:
    return [{str(frame): {"segmentation": rle(4 + 8 * n, 4 + 12 * n)} for frame in frames} for n in range(instances)]


def conversation(*texts: str, instances: int = 1, video: str = "clip.mp4", **more) -> dict:
    roles = ("human", "gpt")
    turns = [{"from": roles[n % 2], "value": text} for n, text in enumerate(texts)]
    return {"id": 0, "video": video, "conversations": turns, "annotation": annotation(instances), **more}


PAIR = conversation(
    "<video>\nThere are two objects: <object0> [<region>], <object1> [<region>]. How do <object0> and <object1> relate?",
    "<object0> is a dog on the bed, while <object1> is a laptop.",
    instances=2,
)
CAPTION = {
    "id": 7,
    "video": "clip.mp4",
    "caption": "The small dog sits on the bed.",
    "frame_idx": "0",
    "annotation": annotation(1),
}
QUESTION = {
    "id": 3,
    "video": "clip.mp4",
    "Question": "What does <object0><region> do beside <object1><region>?",
    "options": ["(A) It sits", "(B) It eats <object1>", "(C) It runs", "(D) It sleeps"],
    "Answer": "(B) It eats <object1>",
    "type": "Basic Questions",
    "annotation": annotation(2),
}
