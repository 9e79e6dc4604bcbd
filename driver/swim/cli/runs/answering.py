"""What every command that asks a model many questions shares: options, settings, and the answers of all processes."""

import argparse
from dataclasses import asdict
from pathlib import Path

from swim.data.settings import DataSettings
from swim.infer.answers import AnswerStore, Question
from swim.infer.local import answer_locally
from swim.infer.questions import ItemFile
from swim.infer.remote import answer_remotely
from swim.llm import Asker, Endpoint
from swim.model_name import weights_digest
from swim.processes import processes
from swim.reply_cache import ReplyCache


def answer_questions(
    options: argparse.Namespace,
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
    store = AnswerStore[str](folder, inference_settings(options, model, settings, file, prompt), state.process_index)
    if options.backend == "local":
        answer_locally(questions, model, settings, store, options.batch_size, options.max_new_tokens, options.workers)
    elif state.is_main_process:
        endpoint = Endpoint(
            model,
            options.base_url,
            max_tokens=options.max_new_tokens,
            timeout_s=options.timeout_s,
            concurrency=options.concurrency,
        )
        answer_remotely(questions, Asker(endpoint, ReplyCache(store.folder / "replies.sqlite")), settings, store)
    state.wait_for_everyone()
    return store


def inference_settings(
    options: argparse.Namespace, model: str, settings: DataSettings, file: ItemFile, prompt: str
) -> dict:
    """Everything that decides the answers, for settings.json and reports."""
    return {
        "questions": {"file": file.path.name, "sha256": file.sha256, "items": len(file.items)},
        "model": str(model),
        "weights": weights_digest(model) if options.backend == "local" else None,
        "backend": options.backend,
        "prompt": prompt,
        "decoding": {"greedy": True, "max_new_tokens": options.max_new_tokens, "batch_size": options.batch_size},
        "data": asdict(settings),
    }
