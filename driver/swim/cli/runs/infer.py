"""Asks a model about a video or an image: one question, or a file of many."""

import argparse
import json
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from swim.attention.evidence import Fit, judge, read_fits
from swim.attention.maps import extract, read_words
from swim.cli.runs.demo_defaults import DEMO_CONFIG
from swim.cli.runs.evaluating import answering
from swim.cli.runs.reading import data_settings
from swim.cli.runs.roots import root_of
from swim.data.collator import SwimCollator
from swim.data.records import Record, Turn, parse_record
from swim.data.root import DataRoot
from swim.data.sample import USUAL_CELL_PX, Sample, SampleReader
from swim.data.settings import DataSettings
from swim.data.tags import strip_tags
from swim.demo.inputs import DemoOptions, make_demo_inputs
from swim.demo.model import KNOWS_THE_DEMO_ALONE
from swim.errors import DataError
from swim.infer.answering import answer_questions
from swim.infer.answers import ANSWERS_FILE, ERRORS_FILE, Question
from swim.infer.generate import repeats_itself, stream_answer
from swim.infer.load import load_for_inference
from swim.infer.questions import read_questions, visual_record
from swim.llm import ServiceRefuses
from swim.model_name import check_model_name
from swim.processes import processes
from swim.train.config import load_config


def demo_record(demo: DemoOptions | None = None) -> Record:
    """The question about the first of the demo's held-out clips, made when missing, by default of the shipped demo."""
    path = make_demo_inputs(demo or load_config(DEMO_CONFIG).demo).held_out_json
    raw = json.loads(path.read_text(encoding="utf-8"))[0]
    record = parse_record(raw, f"{path}, record 0", path.parent)
    return visual_record(record.where, record.path, None, record.turns[0].text)


def asked_record(options: argparse.Namespace, settings: DataSettings) -> Record:
    """The question of the command line, or the demo's when there is none. Raises ValueError, DataError."""
    if options.video is None and options.image is None:
        if options.prompt is not None:
            raise ValueError("--prompt needs --video or --image")
        record = demo_record()
        print(f"{record.path}: {record.turns[0].text}", file=sys.stderr)
        return record
    if options.video is not None and options.image is not None:
        raise ValueError("give either --video or --image")
    if options.prompt is None:
        raise ValueError('--prompt is missing: what should be asked? For example --prompt "Describe the video."')
    video, image = (None if path is None else DataRoot(Path()).locate(path) for path in (options.video, options.image))
    where = "--video" if image is None else "--image"
    record = visual_record(where, video, image, options.prompt, options.folder_fps)
    if isinstance(record.path, Path):  # before a model is loaded, which takes its time
        SampleReader(settings, USUAL_CELL_PX).check_files(record)
    return record


def answer_one(options: argparse.Namespace) -> int:
    """Streams the answer to stdout."""
    if options.backend != "local":
        raise ValueError("--backend openai answers --batch only")
    check_model_name(options.model)
    fits = {} if options.evidence is None else read_fits(options.evidence, options.model)
    settings = data_settings(options)
    record = asked_record(options, settings)
    if not processes().is_main_process:
        return 0
    model, processor = load_for_inference(options.model)
    if (options.video or options.image) and getattr(model.config, "swim_demo", False):
        print(KNOWS_THE_DEMO_ALONE, file=sys.stderr)
    collator = SwimCollator(processor, model.config, settings)
    answer, sample = "", collator.read(record)
    with closing(stream_answer(model, collator, sample, options.max_new_tokens)) as pieces:
        for piece in pieces:
            print(piece, end="", flush=True)
            answer += piece
            if repeats_itself(answer):
                print(" ...\nstopped: the answer only repeats itself", file=sys.stderr, end="")
                break
    print()
    if fits:
        tell_evidence(model, collator, sample, options.prompt, answer, fits)
    return 0


def tell_evidence(model, collator: SwimCollator, sample: Sample, prompt: str | None, answer: str, fits: dict[str, Fit]):
    """Prints, of each tagged noun of the question and each noun of the answer, how well the video supports it."""
    if prompt is not None:
        text, spans = strip_tags(prompt)
        turns = [Turn("user", text, spans, [0] * len(spans)), sample.record.turns[-1]]
        sample = replace(sample, record=replace(sample.record, turns=turns))
    tokens = collator.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    reading = read_words(collator, sample, tokens, every_word=True)
    places = [(word.start, word.end) for word in reading.words]
    judged = judge(fits, reading.words, extract(model, reading.inputs, places), model.config) if places else {}
    for number, found in judged.items():
        flag = "" if found.looked else f"  {found.place} without looking"
        print(f"  {found.probability:.2f}  {reading.words[number].label}{flag}", file=sys.stderr)
    if not judged:
        print("  no tagged noun in the question and no noun in the answer", file=sys.stderr)


def answer_batch(options: argparse.Namespace) -> int:
    """Answers the lines of --batch into --output."""
    if any(value is not None for value in (options.video, options.image, options.prompt, options.evidence)):
        raise ValueError("--batch holds the questions; leave out --video, --image, --prompt and --evidence")
    file = read_questions(options.batch, root_of(options, options.batch))
    questions = [Question(key, record) for key, record in file.items.items()]
    store = answer_questions(
        answering(options),
        options.model,
        options.output,
        data_settings(options),
        file,
        questions,
        "the line's own prompt",
    )
    if not processes().is_main_process:
        return 0
    answers, errors = store.finish(questions), store.write_errors(questions)
    print(f"{len(answers)} of {len(questions)} questions are answered. Written: {store.folder / ANSWERS_FILE}")
    if errors:
        print(f"{len(errors)} could not be answered, see {store.folder / ERRORS_FILE}", file=sys.stderr)
    return int(len(answers) < len(questions))


def run(options: argparse.Namespace) -> int:
    try:
        return answer_one(options) if options.batch is None else answer_batch(options)
    except (DataError, ValueError, ServiceRefuses) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
