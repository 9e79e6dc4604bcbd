"""NL-Refer records from videos and words, or clicks: SAM finds and follows the objects."""

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

from swim.cli.runs.construct import endpoint_of
from swim.cli.runs.ending import status_of
from swim.cli.runs.roots import root_of
from swim.construct.checks import Refused
from swim.construct.describing import Describer
from swim.construct.from_masks import console, tagged
from swim.construct.from_words import (
    Job,
    Search,
    Several,
    Wanted,
    check_jobs,
    described,
    find,
    mean_confidence,
    read_jobs,
    records_of,
    refusals_of,
)
from swim.construct.run import REJECTED, REPLIES
from swim.construct.tracking import Tracker
from swim.data.root import DataRoot
from swim.errors import DataError
from swim.eval.items import today
from swim.files import write_atomically
from swim.infer.answers import AnswerStore, Question
from swim.infer.questions import question_record
from swim.llm import Asker
from swim.model_name import weights_digest
from swim.processes import processes
from swim.reply_cache import ReplyCache
from swim.video.remote import is_url

RECORDS = "records.json"


def _jobs(options: argparse.Namespace) -> list[Job]:
    if options.objects:
        if options.video or options.phrases:
            raise ValueError("give --objects, or --video and --phrases")
        return read_jobs(Path(options.objects), root_of(options, options.objects))
    if not options.video or not options.phrases:
        raise ValueError("what is to be found where? Give --video and --phrases, or --objects")
    local = [os.path.dirname(os.path.abspath(video)) for video in options.video if not is_url(video)]
    root = Path(options.video_root or (os.path.commonpath(local) if local else "."))
    wanted = tuple(Wanted(tagged(phrase)) for phrase in options.phrases)
    names = [video if is_url(video) else os.path.relpath(video, root) for video in options.video]
    return [Job(name, DataRoot(root).locate_video(name), wanted) for name in dict.fromkeys(names)]


def _run(options: argparse.Namespace) -> int:
    search = Search(options.max_frames, options.fps, options.min_confidence, Several(options.several))
    jobs, state = _jobs(options), processes()
    tracker = Tracker(options.model, options.device or (str(state.device) if torch.cuda.is_available() else None))
    check_jobs(jobs, tracker.by_words)
    settings = {"model": options.model, "weights": weights_digest(options.model), "search": asdict(search)}
    store = AnswerStore[list](options.output, settings, state.process_index)
    state.wait_for_everyone()  # all have read the store: they share what is left alike
    left = [job for job in jobs if job.key not in store.answers][state.process_index :: state.num_processes]
    for job in tqdm(left, desc="searching", unit="video", disable=not state.is_main_process):
        try:
            store.add([{"id": job.key, "answer": find(tracker, job, search)}])
        except DataError as error:
            store.add([{"id": job.key, "error": str(error.at(job.name))}])
        except torch.OutOfMemoryError:
            problem = "the GPU's memory is too small; lower --max_frames"
            store.add([{"id": job.key, "error": f"{job.name}: {problem}"}])
    state.wait_for_everyone()
    return _write(jobs, store, options, settings) if state.is_main_process else 0


def _captions(
    jobs: list[Job], found: dict[str, list], options: argparse.Namespace
) -> tuple[dict[str, dict], list[dict]]:
    """(captions by video and phrase, why objects have none, for rejected.jsonl)."""
    endpoint = endpoint_of(argparse.Namespace(**{**vars(options), "model": options.caption_model}))
    asker = Asker(endpoint, ReplyCache(Path(options.output) / REPLIES))
    objects = [each for job in jobs if job.key in found for each in described(job, found[job.key])]
    captions: dict[str, dict] = {job.name: {} for job in jobs}
    places = {id(each): place for place, each in enumerate(objects)}
    refused = []
    describer = Describer(asker, options.with_frames, options.attempts)
    bar = tqdm(
        describer.describe_all(objects), total=len(objects), desc=f"describing ({endpoint.model})", unit="object"
    )
    for each, caption in bar:
        if isinstance(caption, Refused):
            where = {"file": each.name, "position": places[id(each)], "id": each.phrase}
            refused.append({**where, "reason": caption.reason, "message": str(caption)})
        else:
            captions[each.name][each.phrase] = caption
    return captions, refused


def _write(jobs: list[Job], store: AnswerStore[list], options: argparse.Namespace, settings: dict) -> int:
    questions = [Question(job.key, question_record(job.name, job.source, "")) for job in jobs]
    found, errors = store.finish(questions), store.write_errors(questions)
    captions: dict[str, dict] | None = None
    refused = [entry for job in jobs if job.key in found for entry in refusals_of(job, found[job.key])]
    missing = len(refused)
    if options.caption_model:
        captions, silent = _captions(jobs, found, options)
        refused += silent
    records = [
        record
        for job in jobs
        if job.key in found
        for record in records_of(job, found[job.key], None if captions is None else captions[job.name])
    ]
    objects = [entry for some in found.values() for entry in some]
    report = {
        "date": today(),
        **settings,
        "videos": len(jobs),
        "unreadable": len(errors),
        "objects": len(objects),
        "found": len(objects) - missing,
        "caption_model": options.caption_model,
        "mean_confidence": mean_confidence(objects),
        "records": len(records),
    }
    folder = Path(options.output)
    write_atomically(folder / RECORDS, json.dumps(records, ensure_ascii=False, indent=1) + "\n")
    write_atomically(folder / REJECTED, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in refused))
    write_atomically(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    console.print(
        f"{folder / RECORDS}: {len(records)} records, {report['found']} of {len(objects)} objects in {len(found)} videos"
    )
    for entry in refused[:10]:
        console.print(f"  {entry['file']}, {entry['id']}: {entry['message']}", markup=False)
    if len(refused) > 10:
        console.print(f"  ... {len(refused) - 10} more in {folder / REJECTED}")
    for problem in list(errors.values())[:10]:
        console.print(f"  {problem}", style="red", markup=False)
    return int(bool(errors))


def run(options: argparse.Namespace) -> int:
    return status_of(lambda: _run(options), OSError)
