"""Answers from a checkpoint on this machine, batched and shared among processes."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from swim.data.collator import SwimCollator
from swim.data.sample import Sample, TextSample
from swim.data.settings import DataSettings
from swim.errors import DataError
from swim.infer.answers import Answer, AnswerStore, Question
from swim.infer.generate import generate_answers
from swim.infer.load import load_for_inference
from swim.processes import processes


class _Batches(torch.utils.data.Dataset):
    """Batches of questions with their videos read, so that workers decode ahead of the model."""

    def __init__(self, batches: list[list[Question]], collator: SwimCollator):
        self.batches = batches
        self.collator = collator

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> list[tuple[Question, Sample | TextSample | DataError]]:
        return [(question, self._read(question)) for question in self.batches[number]]

    def _read(self, question: Question) -> Sample | TextSample | DataError:
        if question.record.path is None:
            return TextSample(question.record)
        try:
            return self.collator.read(question.record)
        except DataError as error:
            return error


def answer_locally(
    questions: list[Question],
    model_path: str,
    settings: DataSettings,
    store: AnswerStore[str],
    batch_size: int = 1,
    max_new_tokens: int = 128,
    workers: int = 0,
):
    """Answers what `store` does not hold yet, greedily; see `work_locally`."""

    def answers(model, collator: SwimCollator, samples: list[Sample | TextSample]) -> Iterator[str]:
        return generate_answers(model, collator, samples, len(samples), max_new_tokens)

    work_locally(questions, model_path, settings, store, answers, batch_size, workers)


def work_locally(
    questions: list[Question],
    model_path: str,
    settings: DataSettings,
    store: AnswerStore[Answer],
    work: Callable[[Any, SwimCollator, list[Any]], Iterable[Answer]],
    batch_size: int = 1,
    workers: int = 0,
):
    """Stores `work(model, collator, samples)`, one JSON value for each sample, for the questions that `store` lacks.

    samples: a Sample for a question about a video or an image, a TextSample for one about none.
    Every process of an accelerate launch takes its share. A batch always holds the same questions, whoever asks them and
    however often the run was killed: padding changes the last digits of a model's arithmetic. A question whose video
    cannot be read becomes an error in the store.
    """
    state = processes()
    state.wait_for_everyone()  # every process has read the store before anyone adds to it: all share the work alike
    size = range(0, len(questions), batch_size)
    batches = [questions[first : first + batch_size] for first in size]
    open_batches = [batch for batch in batches if any(question.id not in store.answers for question in batch)]
    if not open_batches:
        return
    model, processor = load_for_inference(model_path)
    collator = SwimCollator(processor, model.config, settings)
    mine = open_batches[state.process_index :: state.num_processes]
    loader = DataLoader(_Batches(mine, collator), batch_size=None, num_workers=workers)
    progress = tqdm(total=sum(map(len, mine)), desc="answering", unit="item", disable=not state.is_main_process)
    for batch in loader:
        readable = [(question, sample) for question, sample in batch if not isinstance(sample, DataError)]
        results = work(model, collator, [sample for _, sample in readable]) if readable else []
        store.add(_entries(batch, readable, results, set(store.answers)))
        progress.update(len(batch))
    progress.close()


def _entries(batch: list, readable: list, results: Iterable, known: set[str]) -> Iterator[dict]:
    for (question, _), result in zip(readable, results):
        if question.id not in known:
            yield {"id": question.id, "answer": result}
    for question, sample in batch:
        if isinstance(sample, DataError):
            yield {"id": question.id, "error": str(sample)}
