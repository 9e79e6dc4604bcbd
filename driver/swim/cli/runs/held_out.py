"""Held-out records, the demo's or one's own, and what a model makes of them."""

import json
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch

from swim.attention.grounding import GroundingScores, mean_maps, score_grounding
from swim.data.collator import SwimCollator
from swim.data.mixture import load_annotated
from swim.data.records import Record, parse_record
from swim.data.sample import Sample, SampleReader
from swim.data.settings import DataSettings
from swim.data.tags import strip_tags
from swim.infer.generate import generate_answers
from swim.infer.load import load_for_inference
from swim.models.load import load_config
from swim.train.config import TrainConfig

PICTURED_CLIPS = 2
MOST_RECORDS = 64  # of eval_grounding: their clips are in memory together
MAX_NEW_TOKENS = 128


@dataclass(frozen=True)
class HeldOut:
    """Held-out clips.

    asked: each with its question.
    answers: the right answers to `asked`, without tags.
    swapped: of the demo, the same clips with a question about another object, but the masks of the first.
    other: of the demo, the swapped question with its own masks.
    batch_size, max_new_tokens: for asking them.
    """

    asked: list[Sample]
    answers: list[str]
    swapped: list[Sample] = field(default_factory=list)
    other: list[Sample] = field(default_factory=list)
    batch_size: int = 16
    max_new_tokens: int = 16

    @property
    def pictured(self) -> list[Sample]:
        """The first clips: of the demo each asked for two of its objects."""
        if not self.other:
            return self.asked[: 2 * PICTURED_CLIPS]
        pairs = list(zip(self.asked, self.other))[:PICTURED_CLIPS]
        return [sample for pair in pairs for sample in pair]


@dataclass(frozen=True)
class Scores:
    """Of one model. answers: its own. accuracy: share of them that is right to the letter. maps: float32[T, H, W] each, of
    `HeldOut.pictured`."""

    grounding: GroundingScores
    pointing_swapped: float | None
    answers: list[str]
    accuracy: float
    maps: list[torch.Tensor]


def read_held_out(path: Path, settings: DataSettings, model: str) -> HeldOut:
    """Reads the held-out records that the demo wrote, for models of this one's family; see swim.demo.clips for their
    keys."""
    reader = SampleReader.of_model(settings, load_config(model))
    held_out = HeldOut([], [])
    for position, raw in enumerate(json.loads(path.read_text())):
        other = raw["swap"]["object"]
        variants = (
            (held_out.asked, raw["conversations"], raw["annotation"]),
            (held_out.swapped, raw["swap"]["conversations"], raw["annotation"]),
            (held_out.other, raw["swap"]["conversations"], [raw["all_objects"][other]["annotation"]]),
        )
        for samples, conversations, annotation in variants:
            record = {**raw, "conversations": conversations, "annotation": annotation}
            samples.append(reader.read(parse_record(record, f"{path}, record {position}", path.parent)))
        held_out.answers.append(strip_tags(raw["conversations"][-1]["value"])[0])
    return held_out


def read_annotated(config: TrainConfig) -> HeldOut:
    """The first records of eval_grounding. Raises DataError naming one that cannot be read, or that tags no object."""
    rows = load_annotated(config.eval_grounding or "", config.eval_root, config.eval_untrusted)
    reader = SampleReader.of_model(config.data_settings, load_config(config.model))
    batch_size = config.arguments.get("per_device_train_batch_size", 8)
    samples = [reader(row) for row in islice(rows, MOST_RECORDS)]
    answers = [sample.record.turns[-1].text for sample in samples]
    return HeldOut(samples, answers, batch_size=batch_size, max_new_tokens=MAX_NEW_TOKENS)


def evaluate(model_path: str, held_out: HeldOut, settings: DataSettings) -> Scores:
    """Asks and scores one model."""
    model, processor = load_for_inference(model_path)
    collator, batch_size = SwimCollator(processor, model.config, settings), held_out.batch_size
    answers = list(generate_answers(model, collator, held_out.asked, batch_size, held_out.max_new_tokens))
    right = sum(given == expected for given, expected in zip(answers, held_out.answers))
    swapped = score_grounding(model, collator, held_out.swapped, batch_size).pointing if held_out.swapped else None
    return Scores(
        grounding=score_grounding(model, collator, held_out.asked, batch_size),
        pointing_swapped=swapped,
        answers=answers,
        accuracy=right / len(answers),
        maps=[mean_maps(model, collator, [sample])[0] for sample in held_out.pictured],
    )


def phrase_of(record: Record) -> str:
    """The first phrase that a supervised record tags."""
    return next(span.phrase for turn in record.turns for span in turn.spans)
