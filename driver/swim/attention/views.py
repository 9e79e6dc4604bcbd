"""What a model's words look at, as pictures, an overlay video and raw maps."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import torch
import transformers
from rich.console import Console

from swim.attention.heat import behind_visual, colour_scale, heat_of
from swim.attention.maps import Reading, Word, extract
from swim.attention.overlay import Panel, write_overlay
from swim.attention.pictures import Row, draw_sheet
from swim.files import write_atomically

console = Console(soft_wrap=True)


@dataclass(frozen=True)
class View:
    """What one model's words look at.

    maps: float32[Q, L, T, H, W].
    heat: float32[Q, T, H, W], as drawn.
    layer_heat: float32[Q, L, T, H, W], the same for each layer.
    seconds: time to compute the maps.
    peak_bytes: of the GPU meanwhile, None on a CPU.
    """

    name: str
    maps: torch.Tensor
    heat: torch.Tensor
    layer_heat: torch.Tensor
    seconds: float
    peak_bytes: int | None


def view(model, name: str, reading: Reading, layers: list[int], normalisation: str = "share") -> View:
    """The maps of a reading's words, and their heat by one of NORMALISATIONS."""
    spans = [(word.start, word.end) for word in reading.words]
    behind = behind_visual(model.config, reading) if normalisation == "relative" else []
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(model.device)
    begun = time.monotonic()
    maps = extract(model, reading.inputs, spans + behind, layers)
    seconds = time.monotonic() - begun
    peak_bytes = torch.cuda.max_memory_allocated(model.device) if on_gpu else None
    heat, layer_heat = heat_of(maps, len(spans), normalisation, model.config)
    return View(name, maps[: len(spans)], heat, layer_heat, seconds, peak_bytes)


def write_views(folder: Path, reading: Reading, views: list[View], layers: list[int], normalisation: str, about: dict):
    """Writes the pictures, the overlay and the raw maps."""
    folder.mkdir(parents=True, exist_ok=True)
    words, sample = reading.words, reading.sample
    scale = colour_scale([part.heat for part in views], normalisation)
    rows = [_row(word, part, part.heat[n], views) for n, word in enumerate(words) for part in views]
    forced = " (the record's answer)" if about["answer_of"] == "the record" else ""
    heading = f"{about['prompt']}\n{reading.answer}{forced}"
    draw_sheet(folder / "sheet.png", sample, rows, scale, heading)
    panels = [Panel(row.title, row.heat, scale.highest, row.outlined) for row in rows]
    columns = len(views) if len(views) > 1 else min(3, len(rows))
    write_overlay(folder / "overlay.mp4", sample, panels, columns, scale)
    layer_scale = colour_scale([part.layer_heat for part in views], normalisation, of_layers=True)
    for n, word in enumerate(words):
        named = [
            (f"layer {layer}", part, part.layer_heat[n, place]) for place, layer in enumerate(layers) for part in views
        ]
        named += [("all layers", part, part.heat[n]) for part in views]
        lines = [Row(_title(label, part, views), heat.numpy(), _outlined(word)) for label, part, heat in named]
        draw_sheet(folder / f"layers_{n}.png", sample, lines, layer_scale, word.label)
    _write_raw(folder, reading, views, layers, {**about, "normalisation": normalisation})


def _row(word: Word, part: View, heat: torch.Tensor, views: list[View]) -> Row:
    return Row(_title(word.label, part, views), heat.numpy(), _outlined(word))


def _title(label: str, part: View, views: list[View]) -> str:
    return label if len(views) == 1 else f"{label} ({part.name})"


def _outlined(word: Word) -> tuple[int, ...]:
    return () if word.instance is None else (word.instance,)


class _Raw(TypedDict):
    maps: np.ndarray
    base_maps: NotRequired[np.ndarray]


def _write_raw(folder: Path, reading: Reading, views: list[View], layers: list[int], about: dict):
    clip = reading.sample.clip
    arrays: _Raw = {"maps": views[0].maps.numpy()}
    if len(views) > 1:
        arrays["base_maps"] = views[1].maps.numpy()
    np.savez_compressed(folder / "maps.npz", **arrays)
    facts = {
        **about,
        "answer": reading.answer,
        "words": [asdict(word) for word in reading.words],
        "layers": layers,
        "frame_numbers": clip.numbers,
        "fps": clip.fps,
        "shape": list(views[0].maps.shape),
        "meaning": "share of a word's whole attention: mean over heads and over the word's tokens",
        "seconds": [round(part.seconds, 3) for part in views],
        "gpu_peak_bytes": [part.peak_bytes for part in views],
        "transformers": transformers.__version__,
        "torch": torch.__version__,
    }
    write_atomically(folder / "maps.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
