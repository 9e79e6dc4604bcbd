"""What the evaluation commands share: the demo's benches and models, and what their options say."""

import argparse
from pathlib import Path

from swim.cli.runs.demo_defaults import DEMO_CONFIG, demo_benches
from swim.cli.runs.reading import data_settings
from swim.data.settings import DataSettings
from swim.demo.bench import Benches
from swim.demo.inputs import make_demo_inputs
from swim.infer.answering import Answering
from swim.model_name import DEMO_MODEL, check_model_name, short_names
from swim.train.config import load_config


def demo_of(options: argparse.Namespace) -> Benches:
    """The demo's benches, made when missing; not before the models are there that they are for. Raises NoModel."""
    if options.backend == "local":
        for model in options.model or [DEMO_MODEL]:
            check_model_name(model)
    return demo_benches()


def answering(options: argparse.Namespace) -> Answering:
    """What the options of `add_answer_options` say of how is answered."""
    return Answering(
        max_new_tokens=options.max_new_tokens,
        backend=options.backend,
        batch_size=options.batch_size,
        workers=options.workers,
        base_url=options.base_url,
        concurrency=options.concurrency,
        timeout_s=options.timeout_s,
    )


def models_and_settings(options: argparse.Namespace) -> tuple[dict[Path, str], DataSettings]:
    """The models by the folder for their answers and reports, and how all of them see videos.

    One model's folder is `--output` itself; several have one of their name each below it. Without `--model` they are the
    demo's: before training, trained on the text alone (where that was done), and supervised.

    Raises ValueError for a model that is given twice; NoModel; DataError as `data_settings` does.
    """
    output = Path(options.output)
    if options.model:
        models = dict(zip(short_names(options.model), options.model))
    else:
        check_model_name(DEMO_MODEL)
        control = Path(DEMO_MODEL) / "text_only"
        before = make_demo_inputs(load_config(DEMO_CONFIG).demo).model
        known = {"before": str(before), "text_only": str(control), "supervised": DEMO_MODEL}
        models = {name: model for name, model in known.items() if Path(model).is_dir()}
    settings = data_settings(argparse.Namespace(**{**vars(options), "model": list(models.values())}))
    return {output / name if len(models) > 1 else output: model for name, model in models.items()}, settings
