"""NL-Refer records from an own video and its masks, with phrases by hand, from a CSV or by a model.

    swim from-masks --video dog.mp4 --masks masks/ --output dog.json --phrase "1=the white dog"
    swim from-masks --video judo/ --masks judo_masks/ --output judo.json --phrases phrases.csv
    swim from-masks --video sav_000001.mp4 --masks sav_000001_manual.json --frame_step 4 \
        --output sav.json --model gpt-4o-mini --captions captions.csv

Masks: a folder of palette PNGs (00000.png, the pixel's index is the instance), of PNGs per object (00000_mask_1.png, or
1/00000.png), a COCO RLE JSON ({"instance": {"frame": RLE}}, or a list of {"instance", "frame", "segmentation"}) or an SA-V
JSON. They are kept pixel by pixel. Number N in a mask's name means frame N * --frame_step of the video.
A CSV has the columns instance, phrase and, if you like, caption; `--captions` one of instance and caption. In a phrase
"the <ins>dog</ins> on the bed" marks the noun; without tags all but a leading article is marked. An instance without a
phrase is left out, and named. Each caption becomes a record of its own; without captions one record names all instances.
"""

import argparse
import json
import os
from pathlib import Path

from swim.cli.runs.construct import endpoint_of
from swim.cli.runs.ending import status_of
from swim.construct.from_masks import _has_column, check_phrases, console, name_by_hand, read_csv, videorefer_records
from swim.construct.mask_files import VideoFacts, read_masks
from swim.construct.rewriter import Rewriter, RewriteSettings
from swim.construct.tasks import read_task
from swim.files import write_atomically
from swim.llm import Asker
from swim.reply_cache import ReplyCache
from swim.video.clip import read_header


def _phrases(options: argparse.Namespace) -> dict[str, str]:
    found = read_csv(options.phrases, "phrase") if options.phrases else {}
    for entry in options.phrase:
        name, sign, phrase = entry.partition("=")
        if not sign:
            raise ValueError(f'--phrase: expected "INSTANCE=the phrase", found {entry!r}')
        found[name.strip()] = phrase
    return found


def _captions(options: argparse.Namespace) -> dict[str, str]:
    if options.captions:
        return read_csv(options.captions, "caption")
    if options.phrases and _has_column(options.phrases, "caption"):
        return read_csv(options.phrases, "caption")
    return {}


def _run(options: argparse.Namespace) -> int:
    phrases, captions = _phrases(options), _captions(options)
    if bool(phrases) == bool(options.model):
        raise ValueError("give either phrases (--phrase, --phrases) or a --model that writes them")
    video = Path(options.video)
    root = Path(options.video_root) if options.video_root else video.parent
    header = read_header(video)
    facts = VideoFacts(header.total, header.height, header.width)
    masks = read_masks(Path(options.masks), facts, options.frame_step)
    if phrases:
        by_hand = check_phrases(phrases, list(masks))
        if left_out := [name for name in masks if name not in by_hand]:
            console.print(f"left out, without a phrase: {', '.join(left_out)}")
        masks = {name: masks[name] for name in by_hand}
    raws = videorefer_records(masks, captions, os.path.relpath(video, root), video.stem)
    where, output = str(video), Path(options.output)
    if phrases:
        records = [name_by_hand(raw, [by_hand[n] for n in names], where, root) for names, raw in raws]
        refused = []
    else:
        settings = RewriteSettings(options.attempts, options.with_frames)
        rewriter = Rewriter(Asker(endpoint_of(options), ReplyCache(output.with_suffix(".replies.sqlite"))), settings)
        outcomes = [(names, rewriter.rewrite(read_task(raw, where, root))) for names, raw in raws]
        records = [outcome.record for _, outcome in outcomes if outcome.record is not None]
        refused = [(names, outcome) for names, outcome in outcomes if outcome.record is None]
    write_atomically(output, json.dumps(records, ensure_ascii=False, indent=1) + "\n")
    frames = len({frame for found in masks.values() for frame in found})
    console.print(
        f"{output}: {len(records)} records, {len(masks)} instances, masks on {frames} of {facts.frames} frames"
    )
    for names, outcome in refused:
        console.print(f"  refused, instance {', '.join(names)}: {outcome.refusal}: {outcome.message}")
    return int(bool(refused))


def run(options: argparse.Namespace) -> int:
    return status_of(lambda: _run(options), OSError)
