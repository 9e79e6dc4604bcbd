"""Dirt: every kind of bad record is refused or skipped by name, counted, and never replaced."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoConfig

from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture, row_record
from swim.errors import DataError, Reason
from swim.train.run import train
from swim.train.skipping import COUNTS, CountingCollator, SkippedRecords, TooManyBadRecords, unpack

from .conftest import log_entries

FULL = {"size": [168, 168], "counts": [0, 168 * 168]}


def conversation(record: dict, turn: int, text: str):
    record["conversations"][turn]["value"] = text


def two_instances(record: dict):
    record["annotation"] *= 2
    conversation(record, 0, "<video>\nIs the <ins>a</ins> or the <ins>b</ins> left of the <ins>c</ins>?")


def with_masks(**frames):
    """A change of a record: its annotation becomes these frames of one instance."""
    return lambda record: record.update(annotation=[{name[1:]: {"segmentation": rle} for name, rle in frames.items()}])


# What is wrong with a record, by the reason that must be given. The files are made by `dirty`.
BAD = {
    Reason.MALFORMED: [
        lambda record: record.pop("conversations"),
        lambda record: record.pop("video"),
        lambda record: conversation(record, 1, "<|im_end|> The <ins>dog</ins>"),
    ],
    Reason.TAGS: [lambda record: conversation(record, 0, "Where is the <ins>dog?"), two_instances],
    Reason.NO_MASK: [
        with_masks(_0=None, _2=None),
        with_masks(_0={"size": [168, 168], "counts": [168 * 168]}),
        with_masks(_9999=FULL),
    ],
    Reason.BAD_MASK: [
        with_masks(_0={"size": [168, 168], "counts": "zz"}),
        with_masks(_0={"size": [100, 168], "counts": [0, 16800]}),
    ],
    Reason.MISSING: [lambda record: record.update(video="none.mp4")],
    Reason.UNREADABLE: [
        lambda record: record.update(video="text.mp4"),
        lambda record: record.update(video="empty.mp4"),
        lambda record: record.update(video="cut.mp4"),
    ],
    Reason.TIMEOUT: [lambda record: record.update(video="hangs.mp4")],
    Reason.NOT_READ: [
        lambda record: record.update(video="error.mp4"),
        lambda record: record.update(image="error.png", video=None),
    ],
    Reason.TOO_LONG: [lambda record: conversation(record, 1, "The <ins>dog</ins> " + "is plain " * 200)],
}
# What is not wrong, but counted: (resized_masks, frames_past_end, stray_placeholders).
ODD = [
    (with_masks(_0={"size": [167, 169], "counts": [0, 167 * 169]}), (1, 0, 0)),
    (with_masks(_0=FULL, _2=None, _9999=FULL), (0, 1, 0)),
    (lambda record: conversation(record, 0, " <video>\nWhat of the <ins>dog</ins>?\n<video>"), (0, 0, 2)),
]


@pytest.fixture
def dirty(demo_data, tmp_path) -> Path:
    """A mixture of the demo's 18 records with every kind of dirt strewn in; its folder."""
    records = json.loads(demo_data.train_json.read_text())
    root = tmp_path / "videos"
    (root / "clips").mkdir(parents=True)
    (root / "clips" / "train").symlink_to(demo_data.data_root / "clips" / "train")
    (root / "text.mp4").write_text("not a video")
    (root / "empty.mp4").touch()
    whole = (demo_data.data_root / records[0]["video"]).read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    os.mkfifo(root / "hangs.mp4")
    (root / "error.mp4").symlink_to("/proc/self/mem")  # whose first byte is an I/O error
    (root / "error.png").symlink_to("/proc/self/mem")
    changes = [*(change for group in BAD.values() for change in group), *(change for change, _ in ODD)]
    dirt = []
    for number, change in enumerate(changes):
        record = json.loads(json.dumps(records[number % len(records)]))
        record["index"] = f"videorefer_dirt_{number}"
        change(record)
        dirt.append(record)
    clean = [[record] for record in records]
    for number, record in enumerate(dirt):
        clean[(number * 5) % len(clean)].append(record)
    (tmp_path / "train.json").write_text(json.dumps([record for group in clean for record in group]))
    mixture = {"datasets": [{"json_path": "train.json", "data_root": "videos"}]}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(mixture))
    return tmp_path


@pytest.fixture
def collator(configure, tiny_model_dir, tiny_processor):
    settings = configure(max_length=400, decode_time_limit_s=2.0).data_settings
    return SwimCollator(tiny_processor, AutoConfig.from_pretrained(tiny_model_dir), settings)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("swim.data.sample._PAUSE_S", 0.01)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected_reasons() -> Counter:
    return Counter({str(reason): len(changes) for reason, changes in BAD.items()})


def test_skipping_leaves_every_good_sample_as_it_is(dirty, collator):
    """Batch by batch: what remains is exactly what the good records alone would have given."""
    rows = list(load_mixture(dirty / "train.yaml").dataset)
    counting = CountingCollator(collator, skip=True)
    reasons, counts = Counter(), torch.zeros(5, dtype=torch.int64)
    for start in range(0, len(rows), 3):
        batch = counting(rows[start : start + 3])
        counts += batch.pop("data_counts")
        names = unpack(batch.pop("record_names"))
        skipped = json.loads(bytes(batch.pop("skipped").numpy())) if "skipped" in batch else []
        reasons.update(entry["reason"] for entry in skipped)
        bad = {entry["position"] for entry in skipped}
        good = [row for row in rows[start : start + 3] if row["position"] not in bad]
        assert names == [row_record(row).where for row in good]
        alone = collator(good or [collator.empty_sample()])
        assert alone.keys() == batch.keys()
        assert all(torch.equal(batch[name], alone[name]) for name in alone)
    assert reasons == expected_reasons()
    odd = [sum(numbers) for numbers in zip(*(numbers for _, numbers in ODD))]
    assert counts.tolist() == [len(rows), sum(reasons.values()), *odd]


def test_a_run_over_dirt_counts_by_reason_and_ends(configure, dirty, capsys):
    changes = {"data_config": dirty / "train.yaml", "max_length": 400, "decode_time_limit_s": 2.0, "max_steps": 10}
    config = configure(on_bad_record="skip", max_bad_fraction=0.5, **changes)
    train(config)
    folder = Path(config.output_dir)
    skipped, unread = (read_lines(folder / name) for name in ("skipped.jsonl", "unread.jsonl"))
    passing = {str(Reason.TIMEOUT): 1, str(Reason.NOT_READ): 2}
    assert Counter(entry["reason"] for entry in unread) == passing
    assert Counter(entry["reason"] for entry in skipped) == expected_reasons() - Counter(passing)
    rows = list(load_mixture(dirty / "train.yaml").dataset)
    for entry in skipped + unread:
        record = json.loads(rows[entry["position"]]["record"])
        assert record["index"].startswith("videorefer_dirt_") and record["index"] in entry["record"]
        assert entry["file"].endswith("train.json") and len(entry["sha256"]) == 64
    last = log_entries(folder, "skipped_records")[-1]
    assert [last[name] for name in COUNTS[1:]] == [len(skipped) + len(unread), 1, 1, 2]
    assert "skipped 3 record(s): no usable mask" in capsys.readouterr().out

    # Its own list of what was skipped keeps those records out from the start, and the others in it.
    clean = load_mixture(dirty / "train.yaml", skip_list=folder / "skipped.jsonl")
    same = load_mixture(dirty / "train.yaml", skip_list=folder / "unread.jsonl")
    assert len(same.dataset) == len(rows)
    assert len(clean.dataset) == len(rows) - len(skipped)
    options = {"on_bad_record": "skip", "max_bad_fraction": 0.1, "skip_list": folder / "skipped.jsonl"}
    train(configure("again", **{**changes, "max_steps": 5}, **options))


def test_a_bad_record_fails_the_run_by_default(configure, dirty):
    with pytest.raises(DataError, match="videorefer_dirt_"):
        train(configure(data_config=dirty / "train.yaml", max_steps=9, max_length=400, decode_time_limit_s=2.0))


def test_too_many_bad_records_end_the_run(configure, dirty):
    changes = {"data_config": dirty / "train.yaml", "max_length": 400, "decode_time_limit_s": 2.0, "max_steps": 10}
    with pytest.raises(
        TooManyBadRecords, match="more than max_bad_fraction = 0.02; they are listed .* in .*skipped.jsonl"
    ):
        train(configure(on_bad_record="skip", max_bad_fraction=0.02, **changes))


def test_an_empty_batch_learns_nothing_and_has_gradients(configure, collator, dirty, make_trainer):
    rows = [row for row in load_mixture(dirty / "train.yaml").dataset if "none.mp4" in row["record"]]
    trainer = make_trainer(configure())
    batch = CountingCollator(collator, skip=True)(rows)
    assert set(batch["labels"].flatten().tolist()) == {-100} and not batch["mask_index"].any()
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    assert loss.item() == 0.0
    loss.backward()
    gradients = [p.grad for p in trainer.model.parameters() if p.requires_grad]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.slow
def test_a_resumed_run_lists_each_skipped_record_once(configure, dirty):
    changes = {"data_config": dirty / "train.yaml", "max_length": 400, "decode_time_limit_s": 2.0}
    options = {"on_bad_record": "skip", "max_bad_fraction": 0.5, "max_steps": 8, "save_steps": 4, "save_total_limit": 5}
    whole = configure("whole", **changes, **options)
    train(whole)
    expected = (Path(whole.output_dir) / "skipped.jsonl").read_text()
    broken = configure("broken", **changes, **options)
    train(broken)
    folder = Path(broken.output_dir)
    (folder / "finished.json").unlink()
    (folder / "checkpoint-8" / "trainer_state.json").unlink()  # as if killed while it was written
    train(broken)
    assert (folder / "skipped.jsonl").read_text() == expected


def test_skipped_lines_survive_two_writers(tmp_path):
    skipped = SkippedRecords(tmp_path, 0.1, {"a.json": "f" * 64})
    entry = {
        "file": "a.json",
        "position": 3,
        "record": "a.json, record 3",
        "reason": str(Reason.MISSING),
        "message": "é",
    }
    packed = torch.frombuffer(bytearray(json.dumps([entry] * 2).encode()), dtype=torch.uint8)
    for step in (0, 1, 2):
        skipped.write(packed, step)
    assert len(skipped.read()) == 6 and skipped.read()[0] == {"step": 0, "sha256": "f" * 64, **entry}
    skipped.forget_after(2)
    assert [line["step"] for line in skipped.read()] == [0, 0, 1, 1] and skipped.by_reason() == [
        ("missing file", 4, skipped.path)
    ]
    skipped.check(100, 10)
    with pytest.raises(TooManyBadRecords, match="11 of 20 records were skipped"):
        skipped.check(20, 11)
