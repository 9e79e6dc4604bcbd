"""What the demo trains on: its clips and its tiny model, made when missing."""

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from swim.demo.clips import make_demo_data
from swim.demo.model import build_tiny_model


@dataclass(frozen=True)
class DemoInputs:
    """model: folder of the untrained tiny model. train_config: mixture YAML. held_out_json: records with `swap`."""

    model: Path
    train_config: Path
    held_out_json: Path


def make_demo_inputs(options) -> DemoInputs:
    """Makes what is missing below `options.dir`; see swim.train.config.DemoOptions for the options.

    Every rank may call it: the first one makes it, the others wait and find it made.
    """
    root = Path(options.dir)
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        return _make(root, options)


def _make(root: Path, options) -> DemoInputs:
    data = make_demo_data(root / "data", options.train_clips, options.held_out_clips, options.seed)
    model = root / "tiny_model"
    if not (model / "chat_template.jinja").exists():
        build_tiny_model(model, seed=options.seed)
    return DemoInputs(model, data.train_config, data.held_out_json)
