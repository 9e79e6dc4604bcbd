"""Greedy answers for batches of samples."""

from collections.abc import Iterator

import torch

from swim.data.collator import SwimCollator
from swim.data.sample import Sample


@torch.no_grad()
def generate_answers(
    model, collator: SwimCollator, samples: list[Sample], batch_size: int = 16, max_new_tokens: int = 128
) -> Iterator[str]:
    """The greedy answer to the last question of each sample, in order, without special tokens and outer white space."""
    tokenizer = collator.processor.tokenizer
    for start in range(0, len(samples), batch_size):
        batch = samples[start : start + batch_size]
        texts = [collator.render(sample.record, add_generation_prompt=True).text for sample in batch]
        inputs = collator.encode(batch, texts, padding_side="left")
        for name in ("offset_mapping", "text_replacement_offsets"):
            del inputs[name]
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        tokens = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        yield from (text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True))
