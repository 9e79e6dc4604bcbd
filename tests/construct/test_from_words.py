"""Records from words and clicks through tiny random models of SAM 3 and SAM 2: plumbing, not what they find."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from swim.cli.from_words import main
from swim.construct.checks import Refused
from swim.construct.describing import caption_of
from swim.construct.from_words import Job, Search, Several, Wanted, _outcome, check_jobs, read_jobs, records_of
from swim.construct.mask_files import encode
from swim.construct.tracking import Clicks, Track, Tracker, read_frames
from swim.data.records import parse_record
from swim.data.root import DataRoot
from swim.errors import DataError

from ..chat_server import ChatServer
from ..killing import run_killed
from ..video.clips import decode_all, moving_pictures, write_video
from ..video.stores import RangeServer
from .sam import build_sam2, build_sam3

PHRASES = ["the <ins>red dog</ins> on the bed", "a cat"]


@pytest.fixture(scope="module")
def sam2(tmp_path_factory) -> Path:
    return build_sam2(tmp_path_factory.mktemp("sam") / "sam2")


@pytest.fixture(scope="module")
def sam3(tmp_path_factory) -> Path:
    return build_sam3(tmp_path_factory.mktemp("sam") / "sam3")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Twelve frames of 72 x 128 each."""
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{name}.mp4", moving_pictures(12)) for name in ("a", "b", "c")]


def decoded(masks: dict) -> dict[int, np.ndarray]:
    return {
        int(number): coco.decode({**rle, "counts": rle["counts"].encode()}).astype(bool)
        for number, rle in masks.items()
    }


def whole(path: Path, numbers: list[int]) -> torch.Tensor:
    """uint8[F, 3, H, W] of these frames."""
    frames = decode_all(path)
    return torch.from_numpy(np.stack([frames[number] for number in numbers])).permute(0, 3, 1, 2)


def read(folder: Path) -> tuple[list[dict], list[dict], dict]:
    records, report = (json.loads((folder / name).read_text()) for name in ("records.json", "report.json"))
    return records, [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()], report


def test_words_give_the_models_own_masks_at_the_frames_that_it_saw(sam3, videos, tmp_path):
    command = [
        "--model",
        str(sam3),
        "--video",
        str(videos[0]),
        "--phrases",
        *PHRASES,
        "--output",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--max_frames", "5", "--fps", "1000", "--min_confidence", "0.1"]) == 0
    ([record], rejected, report) = read(tmp_path / "out")
    assert rejected == [] and report["found"] == 2 and report["records"] == 1
    numbers = [1, 3, 6, 8, 10]  # the middles of five parts of twelve
    tracker = Tracker(str(sam3))
    session = tracker.processor.init_video_session(video=whole(videos[0], numbers))
    tracker.processor.add_text_prompt(session, ["red dog on the bed", "cat"])
    expected: dict[str, dict[int, np.ndarray]] = {"red dog on the bed": {}, "cat": {}}
    with torch.inference_mode():
        for output in tracker.model.propagate_in_video_iterator(session):
            seen = tracker.processor.postprocess_outputs(session, output)
            for prompt, (number,) in seen["prompt_to_obj_ids"].items():
                mask = seen["masks"][seen["object_ids"].tolist().index(number)]
                expected[prompt][numbers[output.frame_idx]] = mask.numpy()
    for frames, masks in zip(record["annotation"], expected.values()):
        found = decoded({number: frame["segmentation"] for number, frame in frames.items()})
        assert list(found) == numbers == list(masks)
        assert all(np.array_equal(found[number], masks[number]) for number in numbers)
        assert all(0.1 <= frame["confidence"] <= 1 for frame in frames.values())
    parsed = parse_record(record, "here", videos[0].parent)
    assert [span.phrase for turn in parsed.turns for span in turn.spans] == ["red dog", "cat"]
    assert parsed.path == videos[0] and parsed.annotated_frames == numbers


def test_clicks_are_followed_to_both_ends(sam2, videos, tmp_path):
    objects = [
        {"video": "b.mp4", "phrase": "the dog", "frame": 4, "points": [[30, 30], [60.5, 40]], "labels": [1, 0]},
        {"video": "b.mp4", "phrase": "the cat", "frame": 9, "box": [10, 10, 90, 60]},
    ]
    path = tmp_path / "clicks.json"
    path.write_text(json.dumps(objects))
    command = ["--model", str(sam2), "--objects", str(path), "--video_root", str(videos[0].parent)]
    command += ["--output", str(tmp_path / "out"), "--max_frames", "5", "--fps", "1000", "--min_confidence", "0.1"]
    assert main(command) == 0
    ([record], rejected, report) = read(tmp_path / "out")
    assert rejected == [] and report["mean_confidence"] > 0.1
    numbers = read_frames(videos[1], 5, 1000.0, [4, 9]).numbers
    assert {4, 9} < set(numbers) and len(numbers) == 5
    tracker, place = Tracker(str(sam2)), numbers.index(4)
    session = tracker.processor.init_video_session(video=whole(videos[1], numbers))
    points = {"input_points": [[[[30.0, 30.0], [60.5, 40.0]]]], "input_labels": [[[1, 0]]]}
    tracker.processor.add_inputs_to_inference_session(session, frame_idx=place, obj_ids=1, **points)
    expected = {}
    with torch.inference_mode():
        tracker.model(inference_session=session, frame_idx=place)
        for reverse in (False, True):
            for output in tracker.model.propagate_in_video_iterator(session, start_frame_idx=place, reverse=reverse):
                (masks,) = tracker.processor.post_process_masks([output.pred_masks], [[72, 128]])
                expected[numbers[output.frame_idx]] = masks[0, 0].numpy().astype(bool)
    dog, cat = ({n: f["segmentation"] for n, f in frames.items()} for frames in record["annotation"])
    found = decoded(dog)
    assert set(found) == {number for number, mask in expected.items() if mask.any()} and len(found) > 2
    assert all(np.array_equal(mask, expected[number]) for number, mask in found.items())
    assert list(found) == sorted(found) and dog != cat


def square(left: int) -> dict:
    mask = np.zeros((20, 30), bool)
    mask[5:10, left : left + 5] = True
    return encode(mask)


SURE, FAINT = Track({0: square(0), 4: square(2)}, {0: 0.9, 4: 0.4}), Track({0: square(10)}, {0: 0.3})
OTHER = Track({0: square(12), 8: square(12)}, {0: 0.6, 8: 0.55})


def test_what_is_written_and_what_is_refused():
    assert _outcome([SURE, FAINT], Search()) == {"masks": {0: square(0)}, "confidence": {0: 0.9}}
    assert _outcome([FAINT], Search())["message"] == "nothing above 0.5; the best is 0.30 was found"
    assert _outcome([], Search())["message"] == "nothing was found"
    several = _outcome([SURE, OTHER], Search())
    assert several["refused"] == "several" and several["message"].startswith("2 objects fit")
    best = _outcome([SURE, OTHER], Search(several=Several.BEST))
    assert best["confidence"] == {0: 0.6, 8: 0.55}  # seen for longer
    both = _outcome([SURE, OTHER], Search(several=Several.ALL))
    assert both["confidence"] == {0: 0.6, 8: 0.55} and list(both["masks"]) == [0, 8]
    assert decoded(both["masks"])[0].sum() == 50 and decoded(both["masks"])[8].sum() == 25


def test_an_object_that_is_not_there_leaves_the_others():
    job = Job("v/clip.mp4", Path("clip.mp4"), (Wanted("a <ins>dog</ins>"), Wanted("the <ins>cat</ins>")))
    found = [{"phrase": "a <ins>dog</ins>", **_outcome([], Search())}]
    found.append({"phrase": "the <ins>cat</ins>", **_outcome([SURE], Search())})
    [record] = records_of(job, json.loads(json.dumps(found)))
    assert record["conversations"][1]["value"] == "The <ins>cat</ins>." and len(record["annotation"]) == 1
    assert record["annotation"][0] == {"0": {"segmentation": square(0), "confidence": 0.9}}
    assert records_of(job, found[:1]) == []


def test_a_video_is_searched_once_and_an_unreadable_one_again(sam3, videos, tmp_path, capsys, monkeypatch):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    command = ["--model", str(sam3), "--phrases", "dog", "--output", str(tmp_path / "out"), "--max_frames", "2"]
    command += ["--min_confidence", "0", "--video_root", str(tmp_path), "--video"]
    assert main([*command, str(videos[0]), str(broken)]) == 1
    assert "broken.mp4" in capsys.readouterr().out
    calls = []
    forward = Tracker.by_phrases
    monkeypatch.setattr(
        Tracker, "by_phrases", lambda self, frames, *more: calls.append(frames) or forward(self, frames, *more)
    )
    broken.write_bytes(videos[1].read_bytes())
    assert main([*command, str(videos[0]), str(broken), str(videos[2])]) == 0 and len(calls) == 2
    assert [Path(record["video"]).name for record in read(tmp_path / "out")[0]] == ["a.mp4", "broken.mp4", "c.mp4"]
    command[command.index("0")] = "0.2"  # another search does not mix with this one
    assert (
        main([*command, str(videos[0])]) == 2
        and "holds another evaluation; different: search" in capsys.readouterr().err
    )


def test_a_video_may_lie_in_an_archive_or_on_a_server(sam3, videos, tmp_path, monkeypatch):
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "web").mkdir()
    with tarfile.open(tmp_path / "web/v.tar", "w") as archive:
        archive.add(videos[0], arcname="a.mp4")
    with RangeServer(tmp_path / "web") as server:
        sources = [f"{tmp_path}/web/v.tar::a.mp4", f"{server.url}/v.tar::a.mp4", str(videos[0])]
        command = ["--model", str(sam3), "--phrases", "dog", "--max_frames", "2", "--min_confidence", "0"]
        assert main([*command, "--output", str(tmp_path / "out"), "--video", *sources]) == 0
    first, *others = read(tmp_path / "out")[0]
    assert len(others) == 2 and all(record["annotation"] == first["annotation"] for record in others)


@pytest.mark.slow
def test_kills_change_nothing(sam3, videos, tmp_path):
    def command(output: str) -> list[str]:
        options = ["--model", sam3, "--phrases", "dog", "cat", "--video", *videos, "--output", tmp_path / output]
        return [
            sys.executable,
            "-m",
            "swim",
            "from-words",
            *map(str, options),
            "--max_frames",
            "6",
            "--min_confidence",
            "0",
        ]

    assert subprocess.run(command("whole"), capture_output=True).returncode == 0
    run_killed(command("killed"), tmp_path / "killed/parts", 3)
    names = ("records.json", "rejected.jsonl", "report.json")
    assert all((tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    "item, message",
    [
        ({"video": "a.mp4"}, "item 0: phrase"),
        ({"video": "a.mp4", "phrase": "dog", "frame": 3}, 'expected "frame" with "points" or "box"'),
        ({"video": "a.mp4", "phrase": "dog", "points": [[1, 2]]}, 'expected "frame" with "points" or "box"'),
        ({"video": "a.mp4", "phrase": "dog", "frame": 3, "points": [[1, 2, 3]]}, "points"),
        (
            {"video": "a.mp4", "phrase": "dog", "frame": 3, "points": [[1, 2]], "labels": [1, 1]},
            "expected one for each",
        ),
        ({"video": "a.mp4", "phrase": "the <ins>dog"}, "unclosed <ins>"),
        ({"video": ["a.png"], "phrase": "dog"}, "expected a path, found a list"),
    ],
)
def test_objects_that_do_not_fit_are_named(tmp_path, item, message):
    path = tmp_path / "objects.json"
    path.write_text(json.dumps([item]))
    with pytest.raises(DataError, match=message) as caught:
        read_jobs(path, DataRoot(tmp_path))
    assert str(caught.value).startswith(f"{path}, item 0")


def test_words_and_clicks_go_to_their_models(tmp_path):
    words = Job("a.mp4", tmp_path, (Wanted("the <ins>dog</ins>"),))
    clicks = Job("a.mp4", tmp_path, (Wanted("the <ins>dog</ins>", Clicks(0, [[1, 2]], [1])),))
    check_jobs([words], by_words=True)
    check_jobs([clicks], by_words=False)
    with pytest.raises(ValueError, match="asks for clicks: give frame and points"):
        check_jobs([words], by_words=False)
    with pytest.raises(ValueError, match="asks for words: leave the clicks out"):
        check_jobs([clicks], by_words=True)
    twins = Job("a.mp4", tmp_path, (Wanted("the <ins>dog</ins>"), Wanted("a <ins>Dog</ins>")))
    with pytest.raises(ValueError, match="a.mp4: instances 0 and 1 are both called 'dog'"):
        check_jobs([twins], by_words=True)


def test_clicks_outside_are_refused_by_name(sam2, videos, tmp_path, capsys):
    def told(**click) -> str:
        path = tmp_path / "clicks.json"
        path.write_text(json.dumps([{"video": "a.mp4", "phrase": "dog", **click}]))
        command = ["--model", str(sam2), "--objects", str(path), "--video_root", str(videos[0].parent)]
        assert main([*command, "--output", str(tmp_path / "out")]) == 1
        return capsys.readouterr().out

    assert "a.mp4: a click in frame 12; there are 12, from 0" in told(frame=12, points=[[1, 1]])
    assert "a.mp4: a click at (129, 1) px; frames are 128 x 72" in told(frame=0, points=[[129, 1]])


def test_another_model_is_named(tiny_model_dir, videos, tmp_path, capsys):
    command = ["--video", str(videos[0]), "--phrases", "dog", "--output", str(tmp_path / "out")]
    assert main(["--model", str(tiny_model_dir), *command]) == 2
    assert "a qwen2_5_vl; expected SAM 3 (words) or SAM 2 (clicks)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_describes_each_object_and_what_it_leaves_out_is_told(sam3, videos, tmp_path, capsys, monkeypatch):
    """The cat's first caption names it; the dog's never does."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def behave(request: dict) -> str:
        rules, images = request["messages"][0]["content"], request["messages"][1]["content"]
        assert [part["type"] for part in images] == ["image_url", "image_url", "text"] and "outlined in red" in rules
        if "red dog on the bed" in rules:
            return json.dumps({"caption": "The dog sleeps."})
        tried = len(request["messages"]) > 2
        return json.dumps({"caption": "<object0> jumps. Then <object0> sits." if tried else "A cat jumps."})

    command = [
        "--model",
        str(sam3),
        "--video",
        str(videos[0]),
        "--phrases",
        *PHRASES,
        "--output",
        str(tmp_path / "out"),
    ]
    command += ["--max_frames", "2", "--min_confidence", "0", "--caption_model", "m", "--with_frames", "2"]
    with ChatServer(behave) as server:
        assert main([*command, "--base_url", server.url]) == 0
        asked = len(server.requests)
        records, rejected, report = read(tmp_path / "out")
        assert main([*command, "--base_url", server.url]) == 0 and len(server.requests) == asked == 2 + 3
    [record] = records
    assert record["conversations"][1]["value"] == "A <ins>cat</ins> jumps. Then a <ins>cat</ins> sits."
    assert parse_record(record, "here", videos[0].parent).turns[1].instances == [0, 0]
    assert [entry["id"] for entry in rejected] == ["the <ins>red dog</ins> on the bed"]
    assert rejected[0]["reason"] == "caption does not name its object" and report["found"] == 2


@pytest.mark.parametrize(
    "reply, problem",
    [
        ("A dog.", "no JSON object"),
        ('{"caption": ""}', "caption"),
        ('{"caption": "<object0>."}', "says nothing"),
        ('{"caption": "<object0> and <object1> run."}', "no other tag"),
        ('{"caption": "The <ins>dog</ins> <object0> runs."}', "no other tag"),
    ],
)
def test_captions_that_do_not_do_are_refused(reply, problem):
    with pytest.raises(Refused, match=problem):
        caption_of(reply)
    assert caption_of('Here: ```{"caption": " <object0> runs. "}```') == "<object0> runs."


@pytest.mark.slow
def test_two_processes_share_the_videos(sam3, videos, tmp_path):
    options = ["--model", sam3, "--phrases", "dog", "--video", *videos, "--max_frames", "2", "--min_confidence", "0"]
    command = ["-m", "swim", "from-words", *map(str, options), "--output"]
    assert subprocess.run([sys.executable, *command, str(tmp_path / "one")], capture_output=True).returncode == 0
    shared = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *command]
    done = subprocess.run([*shared, str(tmp_path / "two")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list((tmp_path / "two/parts").glob("*.jsonl"))) == 2
    assert (tmp_path / "one/records.json").read_bytes() == (tmp_path / "two/records.json").read_bytes()
