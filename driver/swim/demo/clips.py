"""Demo data: short clips of moving coloured shapes, with NL-Refer records about one shape each.

The objects of a clip have different colours, so that a phrase such as "red circle" names one of them.

The folder then holds ``train.json`` and ``held_out.json`` (NL-Refer records), ``train.yaml`` and ``held_out.yaml``
(data configurations), ``clips/<split>/*.mp4`` and, written last, ``manifest.json``.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from pycocotools import mask as coco_mask
from tqdm import tqdm

from swim.concurrently import WorkerProcesses
from swim.data.tags import strip_tags
from swim.demo import talk
from swim.demo.facts import WHAT_PATTERN, Choice, Track, choices_about
from swim.demo.shapes import COLOURS, PATTERNS, SHAPES, ClipSettings, Thing, draw_scene, render, thing_masks
from swim.prompts import LETTERS, bench_q_prompt
from swim.video.encoder import write_video

# What is seen follows the noun that looks at it. In multiple choice the options always are in the order of PATTERNS: a tiny
# model does not learn in minutes to look a letter up among options in another order.
CHOICE = "The {} is ({})."

Kind = Literal["open", "lettered", "talking"]
VIDEO = "<video>\n"
_SPLITS = ("train", "held_out")
LAYOUT_VERSION = 8  # raise it when the drawing or the layout changes, so that old folders are made again
_PARALLEL_FROM_CLIPS = 64  # below this, starting worker processes costs more than it saves


@dataclass(frozen=True)
class DemoData:
    """Where the demo data lies."""

    data_root: Path
    train_json: Path
    held_out_json: Path
    train_config: Path
    held_out_config: Path


def demo_texts(kind: Kind = "open") -> Iterator[str]:
    """Every question and every answer that a clip can give, without tags: what a tokenizer has to know."""
    if kind == "lettered":
        yield from _lettered_texts()
        return
    for colour in COLOURS:
        for shape in SHAPES:
            yield WHAT_PATTERN.format(f"{colour} {shape}")
            for pattern in PATTERNS:
                yield talk.ANSWER.format(f"{colour} {shape}", pattern)


def _lettered_texts() -> Iterator[str]:
    for colour in COLOURS:
        for shape in SHAPES:
            for pattern in PATTERNS:
                for conversation in conversations(f"{colour} {shape}", pattern):
                    yield from _texts(conversation)
    things = draw_scene(np.random.default_rng(0), ClipSettings())
    masks = [thing_masks(thing, ClipSettings()) for thing in things]
    tracks = [Track(thing.phrase, thing.pattern, _annotation(mask, 1)) for thing, mask in zip(things, masks)]
    for choice in choices_about(*tracks[:2]):
        yield from _texts(_chosen(choice))


def _texts(conversation: list[dict]) -> Iterator[str]:
    for turn in conversation:
        yield strip_tags(turn["value"].removeprefix(VIDEO))[0]


def _annotation(masks: np.ndarray, every: int) -> dict:
    """Return ``{frame number: {"segmentation": RLE}}`` of bool[T, H, W], every ``every``-th frame."""
    annotation = {}
    for number in range(0, len(masks), every):
        rle = coco_mask.encode(np.asfortranarray(masks[number], np.uint8))
        annotation[str(number)] = {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}
    return annotation


def conversations(phrase: str, pattern: str) -> tuple[list[dict], list[dict]]:
    """Return the tagged question and answer about one object, in NL-Refer's form: an open one and Bench-Q's."""
    tagged = f"<ins>{phrase}</ins>"
    question = WHAT_PATTERN.format(tagged)
    choice = CHOICE.format(tagged, LETTERS[PATTERNS.index(pattern)])
    return (
        _turns(question, talk.ANSWER.format(tagged, pattern)),
        _turns(bench_q_prompt(question, PATTERNS), choice),
    )


def _chosen(choice: Choice) -> list[dict]:
    """A question of Bench-Q about any of its types, and the letter of the right answer, tagged."""
    letter = LETTERS[choice.choices.index(choice.answer)]
    return _turns(bench_q_prompt(choice.question, choice.choices), CHOICE.format(choice.tracks[0].tagged, letter))


def _turns(question: str, answer: str) -> list[dict]:
    return [{"from": "human", "value": VIDEO + question}, {"from": "gpt", "value": answer}]


def _train_records(tracks: list[Track], video: str) -> list[dict]:
    """An open question about each object, and after each Bench-Q's."""
    return [
        {"video": video, "conversations": turns, "annotation": [track.annotation]}
        for track in tracks
        for turns in conversations(track.phrase, track.pattern)
    ]


def _other_record(tracks: list[Track], video: str, rng: np.random.Generator) -> dict:
    """A question of one of Bench-Q's other types: a tiny model learns the form of the answer, and which letters there are."""
    _, *others = choices_about(*tracks[:2])
    choice = others[rng.integers(len(others))]
    annotation = [track.annotation for track in choice.tracks]
    return {"video": video, "conversations": _chosen(choice), "annotation": annotation}


def _held_out_record(things: list[Thing], annotations: list[dict], video: str, asked: int, other: int) -> dict:
    """An open question's record plus ``swap`` (the question about another object) and ``all_objects``."""
    turns, swapped = (conversations(things[i].phrase, things[i].pattern)[0] for i in (asked, other))
    return {
        "video": video,
        "conversations": turns,
        "annotation": [annotations[asked]],
        "swap": {"object": other, "conversations": swapped},
        "all_objects": [
            {"phrase": thing.phrase, "pattern": thing.pattern, "annotation": annotation}
            for thing, annotation in zip(things, annotations)
        ],
    }


def make_clip(index: int, split: str, root: Path, seed: int, settings: ClipSettings, kind: Kind = "open") -> list[dict]:
    """Draw clip ``index`` of a split, write its mp4 and return its records, still without ``index``.

    kind: of the training records. "open": a question about each object, answered with its pattern. "lettered": Bench-Q's
    too, with the letter as the answer. "talking": one conversation in sentences per clip.
    """
    rng = np.random.default_rng([seed, _SPLITS.index(split), index])
    things = draw_scene(rng, settings)
    frames, masks = render(things, settings, rng)
    video = f"clips/{split}/{index:05d}.mp4"
    write_video(root / video, frames, settings.fps)
    annotations = [_annotation(mask, settings.annotate_every) for mask in masks]
    order = [int(i) for i in rng.permutation(len(things))]
    if split == "held_out":
        return [_held_out_record(things, annotations, video, order[0], order[1])]
    tracks = [Track(things[i].phrase, things[i].pattern, annotations[i]) for i in order]
    if kind == "talking":
        return [talk.talk_record(tracks, video, rng)]
    records = _train_records(tracks[: settings.questions_per_clip], video)
    if kind == "open":
        return records[::2]
    return [*records[:-1], *([_other_record(tracks, video, rng)] if index % 2 else [])]


def make_demo_data(
    output_dir: str | os.PathLike,
    train_clips: int,
    held_out_clips: int,
    seed: int = 0,
    settings: ClipSettings = ClipSettings(),
    workers: int | None = None,
    kind: Kind = "open",
) -> DemoData:
    """Write the demo data and return where it lies. An identical earlier result is kept; anything else is made again.

    ``kind``: of the training records, see ``make_clip``. ``workers`` processes draw and encode (default: one per core). Raises ``ValueError`` for negative counts.
    """
    if train_clips < 0 or held_out_clips < 0:
        raise ValueError(f"clip counts must not be negative: train {train_clips}, held out {held_out_clips}")
    root = Path(output_dir)
    paths = DemoData(root, *(root / name for name in ("train.json", "held_out.json", "train.yaml", "held_out.yaml")))
    request = {
        "layout": LAYOUT_VERSION,
        "seed": seed,
        "train_clips": train_clips,
        "held_out_clips": held_out_clips,
        "settings": asdict(settings),
        "kind": kind,
    }
    manifest = root / "manifest.json"
    if _is_complete(manifest, request):
        return paths
    _clear(root)
    for split, count in zip(_SPLITS, (train_clips, held_out_clips)):
        (root / "clips" / split).mkdir(parents=True, exist_ok=True)
        make = partial(make_clip, split=split, root=root, seed=seed, settings=settings, kind=kind)
        _write_split(root, split, count, make, workers)
    hashes = {str(path.relative_to(root)): _sha256(path) for path in _own_files(root)}
    manifest.write_text(json.dumps({"request": request, "sha256": hashes}, indent=1))
    return paths


def _write_split(root: Path, split: str, count: int, make, workers: int | None) -> None:
    """Make the clips of a split, then its records and its data configuration."""
    workers = min(workers or os.cpu_count() or 1, count // _PARALLEL_FROM_CLIPS + 1)
    progress = partial(tqdm, total=count, desc=f"demo clips, {split}", unit="clip")
    if workers > 1:
        with WorkerProcesses(workers) as pool:
            per_clip = list(progress(pool.map(make, range(count), chunksize=16)))
    else:
        per_clip = [make(index) for index in progress(range(count))]
    records = [record for clip in per_clip for record in clip]
    name = "videorefer_demo" if split == "train" else "videorefer_demo_held_out"
    records = [{"index": f"{name}_{number}", **record} for number, record in enumerate(records)]
    (root / f"{split}.json").write_text(json.dumps(records))
    config = {"datasets": [{"json_path": f"{split}.json", "data_root": ".", "sampling_strategy": "all"}]}
    heading = f"# Demo data, {split}: paths are relative to this file.\n"
    (root / f"{split}.yaml").write_text(heading + yaml.safe_dump(config))


def _own_files(root: Path) -> list[Path]:
    """The files that this module writes, present ones only, without the manifest."""
    named = [root / f"{split}.{ending}" for split in _SPLITS for ending in ("json", "yaml")]
    clips = [path for split in _SPLITS for path in (root / "clips" / split).glob("*.mp4")]
    return [path for path in named if path.is_file()] + sorted(clips)


def _clear(root: Path) -> None:
    """Remove what an earlier call left; the manifest first, so that an interruption never looks complete."""
    (root / "manifest.json").unlink(missing_ok=True)
    for path in _own_files(root):
        path.unlink()


def _is_complete(manifest: Path, request: dict) -> bool:
    """Whether the folder holds exactly what was asked for, file by file."""
    try:
        made = json.loads(manifest.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    if not isinstance(made, dict) or made.get("request") != request:
        return False
    root = manifest.parent
    return {str(path.relative_to(root)): _sha256(path) for path in _own_files(root)} == made.get("sha256")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
