"""The demo's clips: what is drawn, what the records say about it, and when the folder is made again."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace

import av
import numpy as np
import pytest
import yaml
from pycocotools import mask as coco_mask

from swim.data.records import parse_record
from swim.demo import clips
from swim.demo.clips import make_demo_data
from swim.demo.shapes import COLOURS, INK, PATTERNS, SHAPES, ClipSettings, draw_scene, render, thing_masks

from ..interrupting import alive, assert_ctrl_c_ends_it_at_once, in_own_session, wait_until

SETTINGS = ClipSettings()
# Of two clips: open questions about every object, lettered ones about all but the last, and one about something else.
RECORDS = 2 * (2 * SETTINGS.questions_per_clip - 1) + 1
LETTERED = [f"({letter})" for letter in "ABCD"]


def read_frames(path) -> np.ndarray:
    """uint8[T, H, W, 3], decoded with PyAV."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_annotation(annotation: dict) -> dict[int, np.ndarray]:
    return {int(number): coco_mask.decode(entry["segmentation"]).astype(bool) for number, entry in annotation.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("demo"), train_clips=6, held_out_clips=4, seed=3)


@pytest.fixture(scope="module")
def held_out(data):
    return json.loads(data.held_out_json.read_text())


def file_bytes(root) -> dict:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_same_seed_same_folder_and_other_seed_other_pixels(data, tmp_path):
    again = make_demo_data(tmp_path / "again", 6, 4, seed=3)
    assert file_bytes(again.data_root) == file_bytes(data.data_root)
    other = make_demo_data(tmp_path / "other", 1, 0, seed=4)
    first = "clips/train/00000.mp4"
    assert not np.array_equal(read_frames(other.data_root / first), read_frames(data.data_root / first))


def test_worker_processes_make_the_same_data(data, tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "_PARALLEL_FROM_CLIPS", 2)
    parallel = make_demo_data(tmp_path / "parallel", 6, 4, seed=3, workers=2)
    assert file_bytes(parallel.data_root) == file_bytes(data.data_root)


@pytest.mark.parametrize("seed", range(20))
def test_things_differ_stay_apart_and_stay_small(seed):
    things = draw_scene(np.random.default_rng(seed), SETTINGS)
    assert len(things) >= 3
    for looks in ("colour", "phrase"):
        assert len({getattr(thing, looks) for thing in things}) == len(things)
    masks = np.stack([thing_masks(thing, SETTINGS) for thing in things])
    assert masks.sum(0).max() == 1, "two objects overlap"
    shares = masks.mean((2, 3))
    assert 0.03 < shares.min() and shares.max() <= 0.1
    changes = np.ptp(shares, axis=1) / shares.mean(1)
    assert changes.max() < 0.06, "an object changes its size, so it left the frame"


def test_patterns_can_be_made_to_differ():
    distinct = replace(SETTINGS, distinct_patterns=True)
    for settings, differ in ((SETTINGS, False), (distinct, True)):
        scenes = [draw_scene(np.random.default_rng(seed), settings) for seed in range(20)]
        assert all(len({thing.pattern for thing in scene}) == len(scene) for scene in scenes) == differ


def test_places_are_spread_over_the_whole_frame():
    masks = [
        thing_masks(thing, SETTINGS)[0]
        for seed in range(60)
        for thing in draw_scene(np.random.default_rng(seed), SETTINGS)
    ]
    density = np.stack(masks).mean(0).reshape(6, 28, 6, 28).mean((1, 3))
    assert density[1:5, 1:5].max() < 2.5 * density[1:5, 1:5].min()
    assert density.min() > 0, "some cell never holds an object"


def test_objects_move_smoothly():
    things = [thing for seed in range(20) for thing in draw_scene(np.random.default_rng(seed), SETTINGS)]
    speeds = [np.hypot(*thing.velocity) for thing in things]
    assert max(speeds) <= SETTINGS.max_speed_px and np.mean(speeds) > 1


def test_pattern_and_colour_are_what_the_scene_says():
    rng = np.random.default_rng(5)
    settings = replace(SETTINGS, objects=4, distinct_patterns=True, min_area=0.035, max_area=0.06)
    things = draw_scene(rng, settings)
    frames, masks = render(things, settings, rng)
    ink_share = {}
    for thing, mask in zip(things, masks):
        pixels = frames[mask]
        inked = (pixels == INK).all(1)
        assert (pixels[~inked] == COLOURS[thing.colour]).all()
        ink_share[thing.pattern] = inked.mean()
    assert set(ink_share) == set(PATTERNS)
    assert ink_share["plain"] == 0
    assert 0.15 < ink_share["dotted"] < 0.4
    assert all(0.35 < ink_share[pattern] < 0.65 for pattern in ("striped", "checked"))


def test_clips_are_h264_and_decode_alike_with_pyav_and_decord(data):
    decord = pytest.importorskip("decord")
    paths = sorted((data.data_root / "clips" / "train").glob("*.mp4"))
    assert len(paths) == 6
    for path in paths:
        with av.open(str(path)) as container:
            codec = container.streams.video[0].codec_context
            assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
            assert container.streams.video[0].average_rate == SETTINGS.fps
        frames = read_frames(path)
        assert frames.shape == (SETTINGS.frames, SETTINGS.size_px, SETTINGS.size_px, 3)
        by_decord = decord.VideoReader(str(path))[:].asnumpy()
        assert abs(frames.astype(int) - by_decord).mean() < 3


def test_masks_fit_the_decoded_pixels(data, held_out):
    """Inside a mask, the brightest part has the object's colour; just outside it does not."""
    for record in held_out:
        frames = read_frames(data.data_root / record["video"]).astype(int)
        for thing in record["all_objects"]:
            colour = np.array(COLOURS[thing["phrase"].split()[0]])
            for number, mask in read_annotation(thing["annotation"]).items():
                near = abs(frames[number] - colour).max(-1) < 45
                assert near[mask].mean() > (0.8 if thing["pattern"] == "plain" else 0.25)
                assert near[~mask].mean() < 0.02


@pytest.fixture(scope="module")
def lettered(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("lettered"), train_clips=6, held_out_clips=1, seed=3, kind="lettered")


@pytest.mark.parametrize(("kind", "count"), [("data", 3 * 6), ("lettered", 3 * RECORDS)])
def test_train_records_ask_about_every_object_in_nl_refer_form(kind, count, request):
    """For the pattern; lettered ones in Bench-Q's words too, and in every second clip for something else."""
    data = request.getfixturevalue(kind)
    records = json.loads(data.train_json.read_text())
    assert len(records) == count
    assert len({record["index"] for record in records}) == len(records)
    for record in records:
        assert set(record) == {"index", "video", "conversations", "annotation"}
        assert record["index"].startswith("videorefer_") and "_qa_" not in record["index"]
        parsed = parse_record(record, "here", data.data_root)
        (question, answer), spans = parsed.turns, [span.phrase for turn in parsed.turns for span in turn.spans]
        colour, shape = spans[0].split()
        assert colour in COLOURS and shape in SHAPES and len(set(spans)) == len(record["annotation"])
        choice = question.text.endswith("Answer with the option's letter from the given choices directly.")
        assert answer.text in [f"The {spans[0]} is {word}." for word in (LETTERED if choice else PATTERNS)]
        assert not choice or kind == "lettered"
        for annotation in record["annotation"]:
            assert set(annotation) == {"0", "2"}
            assert all(entry["segmentation"]["size"] == [168, 168] for entry in annotation.values())
            assert all(type(entry["segmentation"]["counts"]) is str for entry in annotation.values())


def test_both_answers_about_a_pattern_say_the_same(lettered):
    records = json.loads(lettered.train_json.read_text())
    for _, group in itertools.groupby(records, lambda record: record["video"]):
        clip = list(group)
        for plain, choice in zip(clip[0:5:2], clip[1:4:2]):
            assert plain["annotation"] == choice["annotation"]
            said, letter = (record["conversations"][1]["value"].rstrip(".").split()[-1] for record in (plain, choice))
            assert f"{letter} {said}" in choice["conversations"][0]["value"].splitlines()
        assert all("pattern" not in record["conversations"][0]["value"] for record in clip[5:])


def test_held_out_records_carry_the_other_objects(held_out):
    assert len(held_out) == 4
    for record in held_out:
        first, other = record["all_objects"], record["all_objects"][record["swap"]["object"]]
        asked = [thing for thing in first if f"<ins>{thing['phrase']}</ins>" in record["conversations"][0]["value"]]
        assert len(asked) == 1 and asked[0] is not other
        assert record["annotation"] == [asked[0]["annotation"]]
        assert record["swap"]["conversations"] == clips.conversations(other["phrase"], other["pattern"])[0]


def test_data_configuration_points_at_the_records(data):
    for path, expected in ((data.train_config, "train.json"), (data.held_out_config, "held_out.json")):
        (dataset,) = yaml.safe_load(path.read_text())["datasets"]
        assert dataset == {"json_path": expected, "data_root": ".", "sampling_strategy": "all"}
        assert (path.parent / dataset["data_root"] / "clips").is_dir()


def test_rerun_is_a_no_op_and_damage_is_repaired(tmp_path):
    root = tmp_path / "demo"
    make = lambda: make_demo_data(root, 3, 1, seed=0)  # noqa: E731
    make()
    made = file_bytes(root)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    make()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times
    for damage in (
        lambda: (root / "manifest.json").unlink(),
        lambda: (root / "manifest.json").write_text("{"),
        lambda: (root / "clips/train/00001.mp4").unlink(),
        lambda: (root / "clips/held_out/00000.mp4").write_bytes(b"half"),
        lambda: (root / "train.json").write_text("[]"),
    ):
        damage()
        make()
        assert file_bytes(root) == made


def test_another_request_replaces_the_folder_and_leaves_foreign_files_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    make_demo_data(tmp_path, 3, 1, seed=0)
    make_demo_data(tmp_path, 2, 1, seed=0, settings=replace(SETTINGS, objects=3, questions_per_clip=1))
    assert len(list((tmp_path / "clips/train").glob("*.mp4"))) == 2
    assert len(json.loads((tmp_path / "train.json").read_text())) == 2
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [{"objects": 5}, {"questions_per_clip": 5}, {"max_area": 0.2}, {"min_area": 0.0}, {"size_px": 99}, {"frames": 0}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[-1]):
        replace(SETTINGS, **wrong)


def test_no_room_is_an_error_that_says_what_to_change():
    crowded = replace(SETTINGS, size_px=56, max_speed_px=60)
    with pytest.raises(RuntimeError, match="lower objects, max_area or max_speed_px"):
        draw_scene(np.random.default_rng(0), crowded)


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "swim", "demo", "--output", str(tmp_path), "--train_clips", "1"]
    command += ["--held_out_clips", "1", "--questions_per_clip", "2", "--distinct_patterns", "false"]
    subprocess.run(command, check=True, capture_output=True)
    assert len(json.loads((tmp_path / "train.json").read_text())) == 2
    assert json.loads((tmp_path / "manifest.json").read_text())["request"]["settings"]["distinct_patterns"] is False


@pytest.fixture
def making(tmp_path):
    """The command that makes 130 clips in tmp_path/demo by two worker processes, running."""
    options = ["--train_clips", "130", "--held_out_clips", "0", "--workers", "2"]
    with in_own_session(
        [sys.executable, "-m", "swim", "demo", "--output", str(tmp_path / "demo"), *options]
    ) as process:
        yield process


def test_ctrl_c_while_the_workers_are_loading(making):
    wait_until(lambda: len(alive(making.pid)) == 4, making)  # with Python's own tracker of resources
    assert_ctrl_c_ends_it_at_once(making)


def test_ctrl_c_leaves_a_folder_that_is_made_again(making, tmp_path):
    root = tmp_path / "demo"
    wait_until(lambda: len(list(root.glob("clips/train/*.mp4"))) > 3, making)
    assert_ctrl_c_ends_it_at_once(making)
    begun = list(root.glob("clips/train/*.mp4"))
    assert 3 < len(begun) < 130 and not (root / "manifest.json").exists()
    begun[0].write_bytes(begun[0].read_bytes()[:100])  # as if it had been interrupted while this one was written
    make_demo_data(root, 130, 0, workers=1)
    assert len(json.loads((root / "train.json").read_text())) == 130 * SETTINGS.questions_per_clip
    assert [len(read_frames(path)) for path in begun] == [SETTINGS.frames] * len(begun)
