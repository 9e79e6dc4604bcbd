"""Shows where a model looks: pictures, an overlay video and the raw maps of the words of a question and its answer."""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

from swim.attention.heat import choose_normalisation
from swim.attention.maps import read_words, recorded_answer_tokens
from swim.attention.views import console, view, write_views
from swim.cli.runs.demo_defaults import DEMO_CONFIG
from swim.cli.runs.reading import data_settings
from swim.cli.runs.roots import root_of
from swim.data.bench import parse_annotated
from swim.data.collator import SwimCollator
from swim.data.records import Record, Turn
from swim.data.root import DataRoot
from swim.data.streaming import stream_records
from swim.data.tags import strip_tags
from swim.demo.inputs import make_demo_inputs
from swim.errors import DataError
from swim.infer.generate import generate_tokens
from swim.infer.load import load_for_inference
from swim.infer.questions import visual_record
from swim.model_name import DEMO_MODEL
from swim.models.supervision import supervision_of
from swim.train.config import load_config


def asked_record(options: argparse.Namespace) -> Record:
    """The record of the command line, tags kept; the demo's when there is none. Raises ValueError, DataError."""
    given = [name for name in ("video", "image", "records") if getattr(options, name) is not None]
    if len(given) > 1:
        raise ValueError(f"give only one of --{' and --'.join(given)}")
    if not given:
        if options.prompt is not None:
            raise ValueError("--prompt needs --video or --image")
        path = make_demo_inputs(load_config(DEMO_CONFIG).demo).held_out_json
        return _recorded(path, DataRoot(path.parent), "0")
    if options.records is not None:
        path = Path(options.records)
        return _recorded(path, root_of(options, path), options.record)
    if options.prompt is None:
        raise ValueError(
            '--prompt is missing: what should be asked? For example --prompt "What does the <ins>dog</ins> do?"'
        )
    video, image = (None if path is None else DataRoot(Path()).locate(path) for path in (options.video, options.image))
    record = visual_record(f"--{given[0]}", video, image, options.prompt, options.folder_fps)
    text, spans = strip_tags(options.prompt)
    return replace(record, turns=[Turn("user", text, spans, [0] * len(spans)), record.turns[1]])


def _recorded(path: Path, root: DataRoot, key: str) -> Record:
    """The record of that id or index, else at that position. Raises DataError when there is none."""
    at_position = None
    for position, raw in enumerate(stream_records(path)):
        where = f"{path}, record {position}"
        if key in (str(raw.get("id")), str(raw.get("index"))):
            return parse_annotated(raw, where, root)
        if key == str(position):
            at_position = (raw, where)
    if at_position is None:
        raise DataError(f"no record has the id, index or position {key!r}; fix --record", str(path))
    return parse_annotated(*at_position, root)


def _only_the_answer_is_tagged(record: Record) -> bool:
    return bool(record.turns[-1].spans) and not any(turn.spans for turn in record.turns[:-1])


def _layers(text: str | None, model_config) -> list[int]:
    """--layers as a list: "all", "2,7,12", or None for those of the checkpoint."""
    count = model_config.text_config.num_hidden_layers
    config = supervision_of(model_config)
    if text is not None:
        try:
            config.layers = list(range(count)) if text == "all" else [int(part) for part in text.split(",")]
        except ValueError:
            raise ValueError(f'--layers: expected "all" or numbers such as 2,7,12, found {text!r}') from None
    return list(config.layers_of(count))


def show(options: argparse.Namespace) -> Path:
    """Reads, asks, looks and draws. Raises ValueError, DataError."""
    settings = replace(data_settings(options), keep_annotated_frames=options.keep_annotated_frames)
    record = asked_record(options)
    forced = options.teacher_forced or _only_the_answer_is_tagged(record)
    if forced and not record.turns[-1].text:
        raise ValueError("--teacher_forced needs a record with an answer (--records)")
    model, processor = load_for_inference(options.model)
    layers = _layers(options.layers, model.config)
    collator = SwimCollator(processor, model.config, settings)
    sample = collator.read(record)
    if forced:
        answer = recorded_answer_tokens(collator, sample)
    else:
        answer = next(generate_tokens(model, collator, [sample], max_new_tokens=options.max_new_tokens))
    reading = read_words(collator, sample, answer, options.phrase, options.words, recorded_answer=forced)
    if not reading.words:
        raise ValueError("nothing to show: tag a noun (<ins>dog</ins>), or give --phrase or --words")
    asked = options.normalise or "share"
    views = [view(model, Path(options.model).name, reading, layers, asked)]
    del model
    if options.base is not None:
        base, _ = load_for_inference(options.base)
        views.append(view(base, Path(options.base).name, reading, layers, asked))
    normalisation = options.normalise or choose_normalisation([part.heat for part in views])
    if normalisation != asked:
        console.print(
            f"a few cells hold most of the attention, so colours end at 99 % of them; --normalise {asked} shows all"
        )
    about = {
        "model": str(options.model),
        "base": options.base,
        "source": str(record.path),
        "prompt": record.turns[0].text,
        "answer_of": "the record" if forced else "the model",
        "data": asdict(settings),
    }
    folder = Path(options.output)
    write_views(folder, reading, views, layers, normalisation, about)
    for part in views:
        gpu = "" if part.peak_bytes is None else f", GPU peak {part.peak_bytes / 1e9:.2f} GB"
        megabytes = part.maps.numel() * 4 / 1e6
        console.print(f"{part.name}: maps {list(part.maps.shape)}, {megabytes:.1f} MB, in {part.seconds:.2f} s{gpu}")
    console.print(f"{record.turns[0].text}\n{reading.answer}", style="bold", markup=False)
    if forced:
        console.print("the answer is the record's own, not the model's (teacher forcing)")
    if record.instances and not set(record.annotated_frames) & set(sample.clip.numbers):
        console.print(
            f"nothing is outlined: none of the {len(sample.clip.numbers)} sampled frames is annotated; "
            "--keep_annotated_frames samples those that are"
        )
    console.print(f"written: {folder}/sheet.png, layers_*.png, overlay.mp4, maps.npz, maps.json")
    return folder


def run(options: argparse.Namespace) -> int:
    control = Path(DEMO_MODEL) / "text_only"
    is_demo = options.model == DEMO_MODEL and not any((options.video, options.image, options.records))
    if is_demo and options.base is None and control.is_dir():
        options.base = str(control)
    try:
        show(options)
    except (DataError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
