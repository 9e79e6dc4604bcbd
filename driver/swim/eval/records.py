"""Scores of a model on the records of an annotated file, one JSON value each, kept as they come."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swim.data.collator import SwimCollator
from swim.data.sample import Sample
from swim.data.settings import DataSettings
from swim.infer.answers import AnswerStore, Question
from swim.infer.local import work_locally
from swim.infer.questions import ItemFile
from swim.model_name import weights_digest
from swim.processes import processes

# (model, collator, sample, the record's place in its file) -> JSON value.
Score = Callable[[Any, SwimCollator, Sample, int], dict]


def score_records(
    model: str,
    file: ItemFile,
    settings: DataSettings,
    folder: Path,
    workers: int,
    score: Score,
    **asked: Any,
) -> tuple[dict[str, dict], dict[str, str]] | None:
    """({id: score}, {id: reason of failure}); None on every process of a launch but the first.

    asked: what else decides the scores, for settings.json. Raises ValueError when `folder` holds another evaluation.
    """
    state = processes()
    facts = {"model": model, "weights": weights_digest(model), "reading": asdict(settings), "data": file.facts, **asked}
    store = AnswerStore[dict](folder, facts, state.process_index)
    questions = [Question(key, record) for key, record in file.items.items()]
    places = {id(question.record): place for place, question in enumerate(questions)}

    def work(model, collator, samples) -> Iterator[dict]:
        return (score(model, collator, sample, places[id(sample.record)]) for sample in samples)

    work_locally(questions, model, settings, store, work, workers=workers)
    state.wait_for_everyone()
    return (store.finish(questions), store.write_errors(questions)) if state.is_main_process else None
