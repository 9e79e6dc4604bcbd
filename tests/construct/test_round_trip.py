"""From placeholders through construction and the data path: each supervised token lies on the instance it names."""

import json
import re

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from transformers import AutoConfig

from swim.cli import check
from swim.cli.construct import main
from swim.construct.rewriter import Rewriter, RewriteSettings
from swim.construct.tasks import read_task
from swim.data.collator import SwimCollator
from swim.data.masks import cover_cells
from swim.data.records import parse_record
from swim.data.settings import DataSettings
from swim.llm import Asker, Endpoint
from swim.reply_cache import ReplyCache
from swim.train.run import train
from swim.video.clip import VisualBudget

from ..chat_server import ChatServer
from ..train.conftest import configure  # noqa: F401  (the demo's training configuration)
from ..video.clips import pictures, write_video
from .player import NOUNS, play

BUDGET = VisualBudget(max_frames=4, min_pixels=28 * 28, max_pixels=6 * 28 * 28)
HEIGHT, WIDTH = 56, 84


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("round") / "clip.mp4", pictures(4))


@pytest.fixture(scope="module")
def collator(tiny_model_dir, tiny_processor):
    return SwimCollator(tiny_processor, AutoConfig.from_pretrained(tiny_model_dir), DataSettings(budget=BUDGET))


@pytest.fixture(scope="module")
def construct(tmp_path_factory, clip):
    """Function: the refined record of a VideoRefer one, through a real server."""
    with ChatServer(play) as server:
        endpoint = Endpoint("m", server.url, backoff_s=0.01)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", "x")
            asker = Asker(endpoint, ReplyCache(tmp_path_factory.mktemp("cache") / "replies.sqlite"))
        rewriter = Rewriter(asker, RewriteSettings(attempts=1))

        def make(raw: dict) -> dict:
            outcome = rewriter.rewrite(read_task(raw, "file, record 0", clip.parent))
            assert outcome.record is not None, outcome.message
            return outcome.record

        yield make


WORDS = ("is", "near", "what does", "see", "on the bed,", "while a", "(really)", "2 m from", "the", "&")
PLACEHOLDERS = ("<object{}>", "<object{}> [<region>]", "<object{}><region>")


@st.composite
def conversations(draw):
    """A VideoRefer record of one to four instances, its placeholders in any order and number, announced or not."""
    count = draw(st.integers(1, 4))
    masks = [draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)) for _ in range(count)]
    texts = []
    for turn in range(2 * draw(st.integers(1, 2))):
        parts = []
        for _ in range(draw(st.integers(0 if turn else 1, 4))):
            parts.append(draw(st.sampled_from(WORDS)))
            parts.append(draw(st.sampled_from(PLACEHOLDERS)).format(draw(st.integers(0, count - 1))))
        texts.append(" ".join([*parts, draw(st.sampled_from(WORDS)) + "."]))
    if draw(st.booleans()):
        objects = ", ".join(f"<object{n}> [<region>]" for n in range(count))
        texts[0] = f"There are {count} objects: {objects}. {texts[0]}"
    roles = ("human", "gpt")
    return {
        "index": "videorefer_0",
        "video": "clip.mp4",
        "conversations": [{"from": roles[n % 2], "value": text} for n, text in enumerate(texts)],
        "annotation": [
            {str(f): {"segmentation": _encoded(square(n, f))} for f in frames} for n, frames in enumerate(masks)
        ],
    }


def square(instance: int, frame: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[6 * instance : 6 * instance + 20, 9 * frame : 9 * frame + 30] = 1
    return mask


def _encoded(mask: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def expected_mentions(raw: dict) -> list[int]:
    """Which instance each placeholder names, announcements left out when they only repeat."""
    texts = [turn["value"] for turn in raw["conversations"]]
    bare = [re.sub(r"^There are \d objects: [^.]*\. ", "", text) for text in texts]
    found = [[int(n) for text in some for n in re.findall(r"<object(\d)>", text)] for some in (bare, texts)]
    return found[0] if set(found[0]) == set(found[1]) else found[1]


@settings(max_examples=60)
@given(raw=conversations())
def test_each_supervised_token_is_on_the_instance_that_its_placeholder_named(construct, collator, clip, raw):
    record = construct(raw)
    parsed = parse_record(record, "x", clip.parent)
    named = [instance for turn in parsed.turns for instance in turn.instances]
    assert named == expected_mentions(raw)
    assert [span.phrase for turn in parsed.turns for span in turn.spans] == [NOUNS[instance] for instance in named]
    batch = collator([parsed])
    owners, ids = batch["ins_contents_labels"][0], batch["input_ids"][0]
    runs, previous = [], None
    for position in np.nonzero(owners.numpy() >= 0)[0].tolist():
        owner = int(owners[position])
        if previous is None or position != previous + 1 or owner != runs[-1][0]:
            runs.append((owner, []))
        runs[-1][1].append(int(ids[position]))
        previous = position
    read = [(owner, collator.processor.tokenizer.decode(tokens).strip()) for owner, tokens in runs]
    assert read == [(instance, NOUNS[instance]) for instance in named]
    rows, columns = (batch["video_grid_thw"][0, 1:] // 2).tolist()
    for instance, frames in enumerate(raw["annotation"]):
        for step in range(2):
            covers = [
                cover_cells(square(instance, f), rows, columns) for f in (2 * step, 2 * step + 1) if str(f) in frames
            ]
            assert bool(batch["mask_index"][0, instance, step]) == bool(covers)
            if covers:
                np.testing.assert_allclose(batch["ins_masks"][0, instance, step], np.mean(covers, axis=0), atol=1e-6)


def test_real_records_are_refined_pass_the_check_and_train(test_data, flags, tmp_path, configure):  # noqa: F811
    source = test_data / "videorefer_dog" / "videorefer_train.json"
    with ChatServer(play) as server:
        assert main(flags(server, source)) == 0
    refined = tmp_path / "out" / "refined-format-videorefer_train-00000.json"
    records = json.loads(refined.read_text())
    assert records[0]["conversations"][0]["value"] == (
        "<video>\nWhat is the relationship between the <ins>dog</ins> and the <ins>laptop</ins>?"
    )
    assert [record["annotation"] for record in records] == [r["annotation"] for r in json.loads(source.read_text())]
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text(yaml.safe_dump({"datasets": [{"json_path": str(refined), "data_root": str(source.parent)}]}))
    assert check.main([str(mixture), "--decode", "full", "--workers", "1", "--output", str(tmp_path / "check")]) == 0
    config = configure(data_config=mixture, per_device_train_batch_size=2, max_frames=4)
    assert train(config)["steps"] == 2
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["mask_loss"] for entry in history if "mask_loss" in entry]
    assert len(losses) == 2 and all(loss > 0 for loss in losses)


def test_a_real_bench_item_is_described_with_frames(test_data, flags, tmp_path):
    source = test_data / "videorefer_dog" / "videorefer_bench_d.json"
    with ChatServer(play) as server:
        assert main([*flags(server, source, with_frames=3, synonyms=True)]) == 0
        (request,) = server.requests
    images = [part for part in request["messages"][1]["content"] if part["type"] == "image_url"]
    assert len(images) == 3 and all(image["image_url"]["url"].startswith("data:image/jpeg;base64,") for image in images)
    (item,) = json.loads((tmp_path / "out" / "refined-videorefer_bench_d.json").read_text())
    assert item["conversations"][0]["value"] == "Please give a detailed description of the <ins>dog</ins>."
