"""Answers of models to many questions: by whom, how, and kept where."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from swim.data.settings import DataSettings
from swim.infer.answers import AnswerStore, Question
from swim.infer.local import answer_locally
from swim.infer.questions import ItemFile
from swim.infer.remote import answer_remotely
from swim.llm import Asker, Endpoint
from swim.model_name import weights_digest
from swim.processes import processes
from swim.reply_cache import ReplyCache


@dataclass(frozen=True)
class Answering:
    """Who answers, greedily, and in which portions.

    max_new_tokens: of an answer.
    backend: "local" for a checkpoint on this machine, "openai" for a server that speaks that protocol.
    batch_size, workers: of a local model: questions answered together, and processes that read videos ahead.
    base_url, concurrency, timeout_s: of a server: its address, requests at a time, seconds for one.
    """

    max_new_tokens: int
    backend: Literal["local", "openai"] = "local"
    batch_size: int = 1
    workers: int = 0
    base_url: str | None = None
    concurrency: int = 8
    timeout_s: float = 120.0

    @property
    def is_local(self) -> bool:
        return self.backend == "local"


def answer_questions(
    how: Answering,
    model: str,
    folder: str | Path,
    settings: DataSettings,
    file: ItemFile,
    questions: list[Question],
    prompt: str,
) -> AnswerStore[str]:
    """Answers what the store in `folder` does not hold yet; every process of a launch takes its share and waits for the
    others. settings: how videos are read. prompt: how an item becomes a question, for settings.json.

    Raises ValueError when `folder` holds another evaluation, swim.llm.ServiceRefuses when the server gives up.
    """
    state = processes()
    store = AnswerStore[str](folder, inference_settings(how, model, settings, file, prompt), state.process_index)
    if how.is_local:
        answer_locally(questions, model, settings, store, how.batch_size, how.max_new_tokens, how.workers)
    elif state.is_main_process:
        endpoint = Endpoint(
            model,
            how.base_url,
            max_tokens=how.max_new_tokens,
            timeout_s=how.timeout_s,
            concurrency=how.concurrency,
        )
        answer_remotely(questions, Asker(endpoint, ReplyCache(store.folder / "replies.sqlite")), settings, store)
    state.wait_for_everyone()
    return store


def answer_with_all(
    how: Answering,
    models: dict[Path, str],
    settings: DataSettings,
    file: ItemFile,
    questions: list[Question],
    prompt: str,
) -> dict[Path, dict[str, str]]:
    """{folder: answers by id, in the file's order} of each model; {} on every process but the first.

    models: by the folder that keeps its answers. Raises as `answer_questions` does.
    """
    answers = {}
    for folder, model in models.items():
        store = answer_questions(how, model, folder, settings, file, questions, prompt)
        if processes().is_main_process:
            answers[folder] = store.finish(questions)
    return answers


def inference_settings(how: Answering, model: str, settings: DataSettings, file: ItemFile, prompt: str) -> dict:
    """Everything that decides the answers, for settings.json and reports."""
    return {
        "questions": file.facts,
        "model": str(model),
        "weights": weights_digest(model) if how.is_local else None,
        "backend": how.backend,
        "prompt": prompt,
        "decoding": {"greedy": True, "max_new_tokens": how.max_new_tokens, "batch_size": how.batch_size},
        "data": asdict(settings),
    }
