"""Greedy answers: of batches of samples, or of one sample piece by piece."""

import math
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from transformers import TextIteratorStreamer

from swim.data.chat import ChatText
from swim.data.collator import SwimCollator
from swim.data.sample import Sample, TextSample

# What counts as a circle: so many repetitions of so few words, and so many words in all.
REPETITIONS, MOST_REPEATED, LEAST_REPEATED = 5, 12, 20


@dataclass(frozen=True)
class GenerationInputs:
    """A batch as `model.generate` takes it, and where its text lies.

    tensors: on the CPU; input_ids, attention_mask and mm_token_type_ids int64[B, S], padded on the left, and what the
        processor makes of the pixels.
    chats: each sample's chat text up to the generation prompt, every visual still one placeholder.
    offsets: int64[B, S, 2], each token's characters [start, end) in the text with expanded placeholders.
    replacements: of each sample, how its chat text became that text, see `swim.data.tokens.place_in_expanded`.
    """

    tensors: dict[str, torch.Tensor]
    chats: list[ChatText]
    offsets: np.ndarray
    replacements: list[list[dict]]


def generation_inputs(collator: SwimCollator, samples: Sequence[Sample | TextSample]) -> GenerationInputs:
    """The samples' last questions, waiting for their answers. Raises DataError naming a record that cannot be rendered."""
    chats = [collator.render(sample.record, add_generation_prompt=True) for sample in samples]
    tensors, offsets, replacements = collator.encode(samples, [chat.text for chat in chats], padding_side="left")
    return GenerationInputs(tensors, chats, offsets, replacements)


def generate_tokens(
    model,
    collator: SwimCollator,
    samples: Sequence[Sample | TextSample],
    batch_size: int = 16,
    max_new_tokens: int = 128,
) -> Iterator[list[int]]:
    """The token ids of the greedy answer to the last question of each sample, in order, without the end of the turn."""
    for start in range(0, len(samples), batch_size):
        inputs = generation_inputs(collator, samples[start : start + batch_size])
        yield from _generate(model, inputs, max_new_tokens)


def generate_answers(
    model,
    collator: SwimCollator,
    samples: Sequence[Sample | TextSample],
    batch_size: int = 16,
    max_new_tokens: int = 128,
) -> Iterator[str]:
    """The text of `generate_tokens`, without special tokens and outer white space."""
    for tokens in generate_tokens(model, collator, samples, batch_size, max_new_tokens):
        yield collator.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def stream_answer(
    model, collator: SwimCollator, sample: Sample, max_new_tokens: int = 128
) -> Generator[str, None, list[int]]:
    """Yields the greedy answer in pieces as the model makes it; joined they are the text of `generate_answers`.

    Its value, that of `tokens = yield from stream_answer(...)`, is the answer's token ids. Closing it stops the model.
    """
    inputs = generation_inputs(collator, [sample])
    streamer = TextIteratorStreamer(collator.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    closed = threading.Event()

    def stop_if_closed(input_ids: torch.Tensor, scores, **_) -> torch.Tensor:
        return torch.full((len(input_ids),), closed.is_set(), device=input_ids.device)

    def generate() -> list[int]:
        try:
            more = {"streamer": streamer, "stopping_criteria": [stop_if_closed]}
            return _generate(model, inputs, max_new_tokens, **more)[0]
        finally:
            streamer.end()  # also after an error, which `result` raises: so that no consumer blocks

    with ThreadPoolExecutor(1) as executor:
        tokens = executor.submit(generate)
        try:
            yield from _stripped(streamer)
        finally:
            closed.set()
    return tokens.result()


def repeats_itself(text: str) -> bool:
    """Whether a text ends in the same MOST_REPEATED words or fewer, REPETITIONS times in a row: a model in a circle."""
    words = text.split()
    return any(
        len(words) >= (needed := max(REPETITIONS, math.ceil(LEAST_REPEATED / period)) * period)
        and words[-needed:-period] == words[-needed + period :]
        for period in range(1, MOST_REPEATED + 1)
    )


@torch.no_grad()
def _generate(model, inputs: GenerationInputs, max_new_tokens: int, **more) -> list[list[int]]:
    tensors = {name: tensor.to(model.device) for name, tensor in inputs.tensors.items()}
    tokens = model.generate(**tensors, max_new_tokens=max_new_tokens, do_sample=False, **more)
    ends = model.generation_config.eos_token_id
    ends = set(ends) if isinstance(ends, list) else {ends}
    answers = tokens[:, tensors["input_ids"].shape[1] :].tolist()
    return [answer[: next((n for n, token in enumerate(answer) if token in ends), None)] for answer in answers]


def _stripped(pieces: Iterable[str]) -> Iterator[str]:
    """Pieces of text without outer white space: what may turn out to be at the end is held back."""
    held, begun = "", False
    for piece in pieces:
        text = held + piece if begun else piece.lstrip()
        visible = text.rstrip()
        held, begun = text[len(visible) :], begun or bool(visible)
        if visible:
            yield visible
