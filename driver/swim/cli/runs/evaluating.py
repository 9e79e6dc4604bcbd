"""What the evaluation commands share: the demo's benches and models, answers of one model or several."""

import argparse
from pathlib import Path

from swim.cli.runs.answering import answer_questions
from swim.cli.runs.demo_defaults import DEMO_CONFIG, demo_benches
from swim.cli.runs.reading import data_settings
from swim.demo.bench import Benches
from swim.demo.inputs import make_demo_inputs
from swim.infer.answers import Question
from swim.infer.questions import ItemFile
from swim.model_name import DEMO_MODEL, check_model_name, short_names
from swim.processes import processes
from swim.train.config import load_config


def demo_of(options: argparse.Namespace) -> Benches:
    """The demo's benches, made when missing; not before the models are there that they are for. Raises NoModel."""
    if options.backend == "local":
        for model in options.model or [DEMO_MODEL]:
            check_model_name(model)
    return demo_benches()


def models_of(options: argparse.Namespace) -> dict[str, str]:
    """{name in tables and folders: model}: those of `--model`; without it the demo's before training, trained on the text
    alone (where that was done), and supervised. Raises ValueError for a model that is given twice."""
    if options.model:
        return dict(zip(short_names(options.model), options.model))
    check_model_name(DEMO_MODEL)
    control = Path(DEMO_MODEL) / "text_only"
    before = make_demo_inputs(load_config(DEMO_CONFIG).demo).model
    models = {"before": str(before), "text_only": str(control), "supervised": DEMO_MODEL}
    return {name: model for name, model in models.items() if Path(model).is_dir()}


def answer_all(
    options: argparse.Namespace, file: ItemFile, questions: list[Question], prompt: str
) -> dict[Path, dict[str, str]] | None:
    """{folder: answers by id, in the file's order} of each model; None on every process but the first. One model's folder
    is `--output` itself; several have one of their name each below it.

    Raises ValueError when a folder holds another evaluation, swim.llm.ServiceRefuses when the server gives up.
    """
    models, output = models_of(options), Path(options.output)
    settings = data_settings(argparse.Namespace(**{**vars(options), "model": list(models.values())}))
    answers = {}
    for name, model in models.items():
        folder = output / name if len(models) > 1 else output
        store = answer_questions(options, model, folder, settings, file, questions, prompt)
        if processes().is_main_process:
            answers[folder] = store.finish(questions)
    return answers if processes().is_main_process else None
