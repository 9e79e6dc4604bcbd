"""What the evaluation commands share: options, the demo's benches, answers from a model."""

import argparse

from swim.cli.runs.answering import answer_questions
from swim.cli.runs.demo_defaults import demo_benches
from swim.demo.bench import Benches
from swim.infer.answers import Question
from swim.infer.questions import ItemFile
from swim.model_name import check_model_name
from swim.processes import processes


def demo_of(options: argparse.Namespace) -> Benches:
    """The demo's benches, made when missing; not before the model is there that they are for. Raises NoModel."""
    if options.backend == "local":
        check_model_name(options.model)
    return demo_benches()


def answer_all(
    options: argparse.Namespace, file: ItemFile, questions: list[Question], prompt: str
) -> dict[str, str] | None:
    """Answers of the model by id, in the file's order; None on every process but the first.

    Raises ValueError when `--output` holds another evaluation, swim.llm.ServiceRefuses when the server gives up.
    """
    store = answer_questions(options, file, questions, prompt)
    return store.finish(questions) if processes().is_main_process else None
