"""What one request of the viewer computes: an answer, the maps of all its words, pictures of one of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from swim.attention.heat import behind_visual, colour_scale, heat_of
from swim.attention.maps import Reading, Word, extract, read_words
from swim.attention.overlay import Panel, colour_bar, write_overlay
from swim.attention.paint import Scale, blend
from swim.data.collator import SwimCollator
from swim.data.records import Turn
from swim.data.root import DataRoot
from swim.data.settings import DataSettings
from swim.data.tags import strip_tags
from swim.infer.generate import generate_tokens
from swim.infer.load import load_for_inference
from swim.infer.questions import visual_record

ALL_LAYERS = "all layers"
STILL_PX = 448  # longer side of the still picture


@dataclass(frozen=True)
class Seen:
    """A question and its answer. maps: float32[Q + B, L, T, H, W], of reading.words, then of every token after the video."""

    reading: Reading
    question: str
    maps: torch.Tensor

    @property
    def steps(self) -> int:
        return self.maps.shape[2]


@dataclass(frozen=True)
class Heat:
    """What is drawn of one word. heat: float32[T, H, W]."""

    word: Word
    heat: np.ndarray
    scale: Scale


class Session:
    """One model, asked about clip after clip."""

    def __init__(self, model_path: str, settings: DataSettings, max_new_tokens: int = 128):
        self.model, processor = load_for_inference(model_path)
        self.collator = SwimCollator(processor, self.model.config, settings)
        self.max_new_tokens = max_new_tokens
        options = getattr(self.model.config, "attention_supervision", None) or {}
        count = self.model.config.text_config.num_hidden_layers
        self.layers = options.get("layers") or list(range(2, count, 5)) or [count - 1]

    def ask(self, path: str, question: str) -> Seen:
        """The answer about a video or image, and the maps of every word. Raises ValueError, DataError."""
        record = visual_record("the clip", DataRoot(Path()).locate(path), None, question)
        text, tagged = strip_tags(question)
        record = replace(record, turns=[Turn("user", text, tagged, [0] * len(tagged)), record.turns[1]])
        sample = self.collator.read(record)
        answer = next(generate_tokens(self.model, self.collator, [sample], max_new_tokens=self.max_new_tokens))
        reading = read_words(self.collator, sample, answer, every_word=True, question_words=True)
        spans = [(word.start, word.end) for word in reading.words] + behind_visual(self.model.config, reading)
        return Seen(reading, text, extract(self.model, reading.inputs, spans, self.layers))

    def look(self, seen: Seen, word: int, layer: int | None, normalisation: str) -> Heat:
        """The heat of a word at a layer, None for all fused, on the scale of all words."""
        words = seen.reading.words
        fused, single = heat_of(seen.maps, len(words), normalisation, self.model.config)
        heats = fused if layer is None else single[:, self.layers.index(layer)]
        return Heat(words[word], heats[word].numpy(), colour_scale([heats], normalisation))


def pieces_of(text: str, words: list[Word], kinds: tuple[str, ...]) -> list[tuple[str, int | None]]:
    """The text in pieces: (piece, number of the word that it is, None for what stands between)."""
    places = sorted((word.at, number) for number, word in enumerate(words) if word.kind in kinds)
    pieces: list[tuple[str, int | None]] = []
    read = 0
    for at, number in places:
        end = at + len(words[number].label)
        if at > read:
            pieces.append((text[read:at], None))
        pieces.append((text[at:end], number))
        read = end
    return pieces + ([(text[read:], None)] if read < len(text) else [])


def overlay(seen: Seen, heat: Heat, path: Path) -> Path:
    """Writes the clip with the heat over its playing frames as an mp4."""
    panels = [Panel(heat.word.label, heat.heat, heat.scale.highest)]
    write_overlay(path, seen.reading.sample, panels, columns=1, scale=heat.scale)
    return path


def still(seen: Seen, heat: Heat, step: int) -> np.ndarray:
    """uint8[h, w, 3]: the first frame of a temporal step under its heat, the colour bar beside it."""
    clip = seen.reading.sample.clip
    frame = clip.frames[min(step * -(-len(clip.numbers) // seen.steps), len(clip.numbers) - 1)]
    picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
    shrink = STILL_PX / max(picture.size)
    picture = picture.resize([max(2, round(side * shrink)) for side in picture.size], Image.Resampling.BICUBIC)
    blended = blend(np.asarray(picture), heat.heat[step], heat.scale.highest)
    return np.concatenate([blended, colour_bar(heat.scale, blended.shape[0])], axis=1)
