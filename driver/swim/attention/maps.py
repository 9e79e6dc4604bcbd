"""Attention maps of any words: where in the video each of them looks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from swim.data.collator import SwimCollator
from swim.data.sample import Sample
from swim.data.tags import Span
from swim.data.tokens import IGNORE, decode_with_ends, instance_tokens, tokens_of
from swim.infer.generate import generation_inputs
from swim.models.supervision import AttentionSupervisionConfig, fuse_layers, log_attention_maps

# A word is a run of letters and digits; scripts that put no space between words have one for each character.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’-][^\W{_UNSPACED}]+)*")
TINY = 1e-30


def extract(
    model, inputs: Mapping[str, torch.Tensor], spans: Sequence[tuple[int, int]], layers: Sequence[int] | None = None
) -> torch.Tensor:
    """float32[Q, L, T, H, W], on the CPU: where each of Q token spans looks, at each of L layers.

    inputs: what the processor makes of one sample (batch of one) with one video or image. To look at generated words,
    their tokens must stand at the end of `input_ids`. spans: tokens [start, end) after the visual block. layers: None
    for those that the checkpoint was supervised at, every fifth from 2 for a stock one. T temporal steps, H x W grid.

    A cell is the share of a token's whole attention that goes there, mean over heads and over the span's tokens: eager
    attention's own numbers, whichever implementation the model runs with, at a memory linear in the sequence's length.
    Raises ValueError for a span that is empty or not after the visual block, and for a layer beyond the model.
    """
    empty = [span for span in spans if span[0] >= span[1]]
    if empty or not spans:
        raise ValueError(f"spans: expected at least one, of at least one token each, found {empty or 'none'}")
    places = sorted({place for start, end in spans for place in range(start, end)})
    row = {place: number for number, place in enumerate(places)}
    moved: dict[str, Any] = {
        name: value.to(model.device) if hasattr(value, "to") else value for name, value in inputs.items()
    }
    log_maps, _ = log_attention_maps(model, torch.tensor([places]), None if layers is None else list(layers), **moved)
    maps = log_maps[0].exp()
    return torch.stack([maps[row[start] : row[end - 1] + 1].mean(0) for start, end in spans]).cpu()


def fuse(maps: torch.Tensor, model_config=None) -> torch.Tensor:
    """float32[Q, T, H, W] of float32[Q, L, T, H, W]: the layers as one map, as the loss fuses them; sums to 1 over the clip.

    By the checkpoint's own rule: the mean of the layers, or their product.
    """
    options = dict(getattr(model_config, "attention_supervision", None) or {})
    config = AttentionSupervisionConfig.from_dict({**options, "eps": "auto"})
    cells = torch.ones(1, 1, *maps.shape[2:], dtype=torch.bool)
    rows = maps.flatten(2).clamp_min(TINY).log()
    return fuse_layers([layer[None] for layer in rows.unbind(1)], cells, config)[0]


@dataclass(frozen=True)
class Word:
    """Tokens [start, end) that a map is wanted of.

    kind: "tag", "phrase", "question" or "answer".
    instance: of a tag, else None.
    at: where it begins in the text of its turn, in characters.
    """

    label: str
    kind: str
    start: int
    end: int
    instance: int | None = None
    at: int = 0


@dataclass(frozen=True)
class Reading:
    """One question, its answer, and where the words of both stand.

    inputs: of a forward over question and answer, on the CPU. answer_start: the first token of the answer.
    """

    sample: Sample
    inputs: dict[str, torch.Tensor]
    answer: str
    answer_start: int
    words: list[Word]


def read_words(
    collator: SwimCollator,
    sample: Sample,
    answer_tokens: Sequence[int] = (),
    phrases: Sequence[str] = (),
    every_word: bool = False,
    question_words: bool = False,
    recorded_answer: bool = False,
) -> Reading:
    """The question of a sample with an answer's tokens after it, and the words to look at.

    recorded_answer: the tokens are `recorded_answer_tokens`, whose tags are words too.

    Words: every tag of the question; each place where a phrase stands in the question, or else in the answer; with
    `question_words` those of the question that stand in no tag; with `every_word` those of the answer. Phrases are
    compared without regard to case.
    Raises ValueError for a phrase that stands in neither, DataError for a record that cannot be rendered.
    """
    tokenizer = collator.processor.tokenizer
    asked, labels = _with_spans(sample, phrases, question_words)
    prepared = generation_inputs(collator, [asked])
    chat, inputs = prepared.chats[0], prepared.tensors
    words = []
    for mention, (label, kind, instance, at) in zip(chat.mentions, labels):
        alone = replace(chat, mentions=[replace(mention, instance=0)])
        tokens = np.flatnonzero(instance_tokens(alone, prepared.replacements[0], prepared.offsets[0]) != IGNORE)
        words.append(Word(label, kind, int(tokens[0]), int(tokens[-1]) + 1, instance, at))
    start = inputs["input_ids"].shape[1]
    text, ends = decode_with_ends(tokenizer, answer_tokens)
    blank = len(text) - len(text.lstrip())
    if recorded_answer:
        turn = sample.record.turns[-1]
        named = turn.instances if sample.record.instances else [None] * len(turn.spans)
        places = [((span.start, span.end), span.phrase.strip(), instance) for span, instance in zip(turn.spans, named)]
        words += [Word(label, "tag", *tokens_of(place, ends, start), i, place[0]) for place, label, i in places]
    missing = [phrase for phrase in phrases if phrase.casefold() not in {w.label.casefold() for w in words}]
    for phrase in missing:
        found = [(m.start(), m.end()) for m in re.finditer(re.escape(phrase), text, re.IGNORECASE)]
        if not found:
            raise ValueError(f"the phrase {phrase!r} stands neither in the question nor in the answer {text!r}")
        words += [Word(phrase, "phrase", *tokens_of(span, ends, start), at=span[0] - blank) for span in found]
    if every_word:
        spoken = [(match.group(), match.span()) for match in _WORD.finditer(text)]
        words += [Word(word, "answer", *tokens_of(span, ends, start), at=span[0] - blank) for word, span in spoken]
    inputs = _with_answer(inputs, answer_tokens)
    inputs["position_ids"] = collator.positions(inputs)
    inputs.pop("second_per_grid_ts", None)
    return Reading(sample, inputs, text.strip(), start, words)


def recorded_answer_tokens(collator: SwimCollator, sample: Sample) -> list[int]:
    """The tokens of the record's own answer, without its tags."""
    return collator.processor.tokenizer(sample.record.turns[-1].text, add_special_tokens=False)["input_ids"]


def _with_spans(sample: Sample, phrases: Sequence[str], every_word: bool) -> tuple[Sample, list[tuple]]:
    """The sample with a span for each place of a phrase, or each word, in its questions; what `Word` says of all spans:
    (label, kind, instance, at).

    A phrase that is tagged already, in that place, is not taken twice.
    """
    turns, labels = [], []
    for turn in sample.record.turns[:-1]:
        named = turn.instances if sample.record.instances else [None] * len(turn.spans)
        spans = [(span, (span.phrase.strip(), "tag", i, span.start)) for span, i in zip(turn.spans, named)]
        if turn.role == "user":
            taken = {(span.start, span.end) for span in turn.spans}
            for phrase in phrases:
                places = (match.span() for match in re.finditer(re.escape(phrase), turn.text, re.IGNORECASE))
                spans += [_span(turn.text, place, phrase, "phrase") for place in places if place not in taken]
            words = [match.span() for match in _WORD.finditer(turn.text)] if every_word else []
            free = [w for w in words if not any(w[0] < span.end and span.start < w[1] for span in turn.spans)]
            spans += [_span(turn.text, place, turn.text[slice(*place)], "question") for place in free]
        labels += [label for _, label in spans]
        turns.append(replace(turn, spans=[span for span, _ in spans], instances=[0] * len(spans)))
    record = replace(sample.record, turns=[*turns, sample.record.turns[-1]])
    return replace(sample, record=record), labels


def _span(text: str, place: tuple[int, int], label: str, kind: str) -> tuple[Span, tuple]:
    return Span(*place, text[slice(*place)]), (label, kind, None, place[0])


def _with_answer(inputs: dict[str, torch.Tensor], tokens: Sequence[int]) -> dict[str, torch.Tensor]:
    behind = torch.tensor([list(tokens)], dtype=torch.long)
    added = {
        "input_ids": behind,
        "attention_mask": torch.ones_like(behind),
        "mm_token_type_ids": torch.zeros_like(behind),
    }
    return {name: torch.cat([value, added[name]], dim=1) if name in added else value for name, value in inputs.items()}
