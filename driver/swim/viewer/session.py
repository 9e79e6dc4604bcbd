"""What one request of the viewer computes: an answer, the maps of all its words, pictures of one of them."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from swim.attention.evidence import Judgement, judge, read_fits
from swim.attention.heat import behind_visual, colour_scale, heat_of
from swim.attention.maps import Reading, Word, extract, read_words
from swim.attention.overlay import Panel, paint_panels, write_overlay
from swim.attention.paint import Scale
from swim.data.collator import SwimCollator
from swim.data.records import Turn
from swim.data.root import DataRoot
from swim.data.settings import DataSettings
from swim.data.tags import strip_tags
from swim.errors import DataError
from swim.infer.generate import generate_tokens
from swim.infer.load import load_for_inference
from swim.infer.questions import visual_record
from swim.models.supervision import supervision_of

CLIP = "the clip"
_TITLE_PX = 44  # of a panel: still legible where a telephone shows three side by side


@dataclass(frozen=True)
class Seen:
    """A question and its answer.

    maps: of each model, float32[Q + B, L, T, H, W], of reading.words, then of every token after the video.
    answers: of the models after the first, in their own words.
    judgements: of the first model, by the number of the word; see swim.attention.evidence.
    """

    reading: Reading
    question: str
    maps: list[torch.Tensor]
    answers: list[str]
    judgements: dict[int, Judgement]

    @property
    def steps(self) -> int:
        return self.maps[0].shape[2]


@dataclass(frozen=True)
class Heat:
    """What is drawn of one word for one model. heat: float32[T, H, W]."""

    model: str
    word: Word
    heat: np.ndarray
    scale: Scale


class Session:
    """One model, or two side by side, asked about clip after clip."""

    def __init__(
        self,
        model_path: str,
        settings: DataSettings,
        max_new_tokens: int = 128,
        base_path: str | None = None,
        evidence: str | None = None,
    ):
        """evidence: what `swim evidence` fitted for the first model.

        Raises ValueError for a model that cannot be loaded, and for a base that reads words or layers differently; DataError
        for evidence of another model.
        """
        self.fits = {} if evidence is None else read_fits(evidence, model_path)
        paths = [model_path] if base_path is None else [model_path, base_path]
        self.names = names_of(paths)
        self.models, self.collators = [], []
        for path in paths:
            model, processor = load_for_inference(path)
            self.models.append(model)
            self.collators.append(SwimCollator(processor, model.config, settings))
        self.max_new_tokens = max_new_tokens
        config = supervision_of(self.models[0].config)
        count = self.models[0].config.text_config.num_hidden_layers
        if config.layers is None and count <= 2:
            config.layers = [count - 1]  # too few for every fifth from 2
        self.layers = list(config.layers_of(count))
        self.fusion = config.fusion
        for path, model, collator in zip(paths[1:], self.models[1:], self.collators[1:]):
            self._check_base(path, model, collator)

    def _check_base(self, path: str, model, collator: SwimCollator):
        first, other = (part.processor.tokenizer.get_vocab() for part in (self.collators[0], collator))
        if first != other:
            raise ValueError(
                f"cannot show {path} beside {self.names[0]}: their tokenizers differ, so one's words are not the other's"
            )
        count = model.config.text_config.num_hidden_layers
        if max(self.layers) >= count:
            raise ValueError(
                f"cannot show {path} beside {self.names[0]}: it has no layer {max(self.layers)}, but {count} layers"
            )

    def ask(self, path: str, question: str) -> Seen:
        """The answers about a video or image, and the maps of every word. Raises ValueError, DataError.

        Every model looks at the words of the question and of the first model's answer.
        """
        record = visual_record(CLIP, DataRoot(Path()).locate(path), None, question)
        text, tagged = strip_tags(question)
        record = replace(record, turns=[Turn("user", text, tagged, [0] * len(tagged)), record.turns[1]])
        sample = self.collators[0].read(record)
        tokens = [
            next(generate_tokens(model, collator, [sample], max_new_tokens=self.max_new_tokens))
            for model, collator in zip(self.models, self.collators)
        ]
        reading = read_words(self.collators[0], sample, tokens[0], every_word=True, question_words=True)
        if not reading.words:
            raise DataError("no word in the question or the answer; ask in words", CLIP)
        spans = [(word.start, word.end) for word in reading.words] + behind_visual(self.models[0].config, reading)
        maps = [extract(model, reading.inputs, spans, self.layers) for model in self.models]
        decode = self.collators[0].processor.tokenizer.decode
        others = [decode(part, skip_special_tokens=True).strip() for part in tokens[1:]]
        return Seen(reading, text, maps, others, judge(self.fits, reading.words, maps[0], self.models[0].config))

    def look(self, seen: Seen, word: int, layer: int | None, normalisation: str) -> list[Heat]:
        """For each model the heat of a word at a layer, None for all fused, each on a scale of its own."""
        words = seen.reading.words
        looks = []
        for name, model, maps in zip(self.names, self.models, seen.maps):
            fused, single = heat_of(maps, len(words), normalisation, model.config)
            heats = fused if layer is None else single[:, self.layers.index(layer)]
            looks.append(Heat(name, words[word], heats[word].numpy(), colour_scale([heats[word]], normalisation)))
        return looks

    def describe(self, layer: int | None) -> str:
        """Which map is shown, in a few words."""
        if layer is not None:
            return f"layer {layer}"
        if len(self.layers) == 1:
            return f"layer {self.layers[0]}, the only one that is read"
        return f"{self.fusion} of layers {', '.join(map(str, self.layers[:-1]))} and {self.layers[-1]}"


def names_of(paths: list[str]) -> list[str]:
    """The last part of each path; the whole paths where two would be alike."""
    names = [Path(path).resolve().name if Path(path).exists() else path for path in paths]
    return names if len(set(names)) == len(names) else list(map(str, paths))


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


def overlay(seen: Seen, heats: list[Heat], path: Path) -> Path:
    """Writes an mp4: the clip, and beside it the clip under the heat of each model. Raises DataError if it has gone."""
    write_overlay(path, seen.reading.sample, _panels(heats), columns=1 + len(heats), title_px=_TITLE_PX)
    return path


def still(seen: Seen, heats: list[Heat], step: int) -> np.ndarray:
    """uint8[h, w, 3]: the first frame of a temporal step, and beside it the same under the heat of each model."""
    clip = seen.reading.sample.clip
    place = min(step * -(-len(clip.numbers) // seen.steps), len(clip.numbers) - 1)
    frame = clip.frames[place].permute(1, 2, 0).numpy()
    return paint_panels(
        frame, clip.numbers[place], seen.reading.sample, _panels(heats), 1 + len(heats), title_px=_TITLE_PX
    )


def _panels(heats: list[Heat]) -> list[Panel]:
    return [Panel("clip"), *(Panel(look.model, look.heat, look.scale.highest) for look in heats)]
