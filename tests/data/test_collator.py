"""One batch: every tensor's shape, type and exact content, on demo clips and on real ones."""

import copy
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from transformers import (
    AutoConfig,
    AutoProcessor,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture, row_record
from swim.data.sample import SampleReader
from swim.data.settings import DataSettings
from swim.demo.clips import ClipSettings, make_demo_data
from swim.errors import DataError
from swim.video.clip import VisualBudget

IGNORE = -100
BUDGET = VisualBudget(max_frames=8, min_pixels=28 * 28, max_pixels=40 * 28 * 28)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Rows of three demo clips of 168 x 168, four frames, annotated in frames 0 and 2; two questions each."""
    root = tmp_path_factory.mktemp("demo")
    data = make_demo_data(root, 3, 0, settings=ClipSettings(questions_per_clip=2), workers=1)
    return list(load_mixture(data.train_config).dataset)


@pytest.fixture(scope="module")
def make_collator(tiny_model_dir, tiny_processor):
    config = AutoConfig.from_pretrained(tiny_model_dir)
    return lambda **settings: SwimCollator(tiny_processor, config, DataSettings(**{"budget": BUDGET, **settings}))


@pytest.fixture(scope="module")
def real_rows(test_data):
    records = json.loads((test_data / "nl_refer_real" / "train.json").read_text())
    return [row_of(record, test_data, "train.json", n) for n, record in enumerate(records)]


def row_of(record, root, file="file.json", position=3) -> dict:
    row = {"file": file, "position": position, "record": json.dumps(record), "annotation": ""}
    return {**row, "data_root": str(root), "folder_fps": None}


def raw_of(row: dict) -> dict:
    """The record as it stands in its file."""
    record = json.loads(row["record"])
    return {**record, "annotation": json.loads(row["annotation"])} if row["annotation"] else record


def changed(row: dict, change) -> dict:
    record = raw_of(row)
    change(record)
    return row | {"record": json.dumps(record), "annotation": ""}


def put(*keys_and_value):
    """A change of a record: put("a", 0, "b", 7) sets record["a"][0]["b"] to 7."""
    *keys, last, value = keys_and_value

    def change(record):
        for key in keys:
            record = record[key]
        record[last] = copy.deepcopy(value)

    return change


def shares(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """float64[rows, columns]: share of each cell, from the integral image, linear between pixels."""
    integral = np.pad(mask.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def at(values, edges, axis):
        return np.apply_along_axis(lambda line: np.interp(edges, np.arange(len(line)), line), axis, values)

    corners = at(
        at(integral, np.linspace(0, mask.shape[0], rows + 1), 0), np.linspace(0, mask.shape[1], columns + 1), 1
    )
    return np.diff(np.diff(corners, axis=0), axis=1) * rows * columns / mask.size


def masks_by_hand(row: dict, numbers: list[int], rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """(masks [N, T, rows, columns], mask_index [N, T]) of frames `numbers`, two to a step."""
    annotation = raw_of(row)["annotation"]
    steps = [numbers[first : first + 2] for first in range(0, len(numbers), 2)]
    masks = np.zeros((len(annotation), len(steps), rows, columns))
    for i, frames in enumerate(annotation):
        for t, step in enumerate(steps):
            found = [coco.decode(frames[str(n)]["segmentation"]) for n in step if str(n) in frames]
            if found:
                masks[i, t] = sum(shares(mask, rows, columns) for mask in found) / len(found)
    return masks, masks.any((2, 3))


def texts_of(row: dict) -> list[str]:
    turns = json.loads(row["record"])["conversations"]
    return [turn["value"].replace("<ins>", "").replace("</ins>", "").split("\n")[-1] for turn in turns]


def learnt_text(collator, batch, number: int) -> str:
    labels = batch["labels"][number]
    assert torch.equal(labels[labels != IGNORE], batch["input_ids"][number][labels != IGNORE])
    return collator.processor.tokenizer.decode(labels[labels != IGNORE])


def behind_visual(collator, batch, number: int) -> str:
    labels = batch["attn_labels"][number]
    return collator.processor.tokenizer.decode(labels[labels != IGNORE])


# ----------------------------------------------------------------------------------------------------------------------
# Demo clips
# ----------------------------------------------------------------------------------------------------------------------


def test_shapes_and_types(make_collator, demo):
    batch = make_collator()(demo[:3])
    length = batch["input_ids"].shape[1]
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in batch.items()}
    per_token = ((3, length), torch.int64)
    assert found == {
        "input_ids": per_token,
        "attention_mask": per_token,
        "mm_token_type_ids": per_token,
        "labels": per_token,
        "attn_labels": per_token,
        "ins_contents_labels": per_token,
        "position_ids": ((3, 3, length), torch.int64),
        "pixel_values_videos": ((3 * 2 * 12 * 12, 3 * 2 * 14 * 14), torch.float32),
        "video_grid_thw": ((3, 3), torch.int64),
        "ins_masks": ((3, 1, 2, 6, 6), torch.float32),
        "mask_index": ((3, 1, 2), torch.bool),
    }
    assert batch["video_grid_thw"].tolist() == [[2, 12, 12]] * 3
    lengths = batch["attention_mask"].sum(1).tolist()
    assert all(mask[:n].all() and not mask[n:].any() for mask, n in zip(batch["attention_mask"], lengths))
    assert max(lengths) == length


def test_labels_are_exactly_the_answers(make_collator, demo):
    collator = make_collator()
    batch = collator(demo)
    for number, row in enumerate(demo):
        assert learnt_text(collator, batch, number) == texts_of(row)[1] + "<|im_end|>"
        learnt = (batch["labels"][number] != IGNORE).nonzero().flatten()
        assert learnt.tolist() == list(range(int(learnt[0]), int(learnt[-1]) + 1))
        before = collator.processor.tokenizer.decode(batch["input_ids"][number][: int(learnt[0])])
        assert before.endswith("<|im_start|>assistant\n")


def test_attn_labels_are_exactly_the_text_behind_the_video(make_collator, demo):
    longer = put(
        "conversations", 1, "value", "The <ins>thing</ins> is plain, and this answer makes all others be padded."
    )
    rows = [*demo, changed(demo[0], longer)]
    collator = make_collator()
    batch = collator(rows)
    assert (batch["attention_mask"].sum(1) < batch["input_ids"].shape[1]).tolist() == [True] * len(demo) + [False]
    for number, row in enumerate(rows):
        question, answer = texts_of(row)
        expected = f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        assert behind_visual(collator, batch, number) == expected
        taken = batch["attn_labels"][number] != IGNORE
        assert torch.equal(batch["attn_labels"][number][taken], batch["input_ids"][number][taken])
        last_visual = int((batch["mm_token_type_ids"][number] == 2).nonzero().max())
        assert not taken[: last_visual + 1].any() and not taken[batch["attention_mask"][number] == 0].any()


def test_named_tokens_read_the_phrase(make_collator, demo):
    collator = make_collator()
    batch = collator(demo)
    for number, row in enumerate(demo):
        phrase = json.loads(row["record"])["conversations"][0]["value"].split("<ins>")[1].split("</ins>")[0]
        assert set(batch["ins_contents_labels"][number].tolist()) == {IGNORE, 0}
        named = batch["input_ids"][number][batch["ins_contents_labels"][number] == 0]
        assert collator.processor.tokenizer.decode(named) == f" {phrase} {phrase}"


@pytest.mark.parametrize("resolution", [1, 2])
def test_masks_are_those_of_each_steps_annotated_frames(make_collator, demo, resolution):
    batch = make_collator(mask_resolution=resolution)(demo)
    side, cell = 6 * resolution, 28 // resolution
    assert batch["ins_masks"].shape == (len(demo), 1, 2, side, side) and batch["mask_index"].all()
    for number, row in enumerate(demo):
        frames = raw_of(row)["annotation"][0]
        assert sorted(frames) == ["0", "2"]
        for step, frame in enumerate(("0", "2")):  # frames 1 and 3 are not annotated and take no part in the mean
            mask = coco.decode(frames[frame]["segmentation"]).astype(np.float64)
            expected = mask.reshape(side, cell, side, cell).mean((1, 3))
            np.testing.assert_allclose(batch["ins_masks"][number, 0, step].numpy(), expected, atol=1e-5)


def test_two_annotated_frames_of_a_step_are_averaged(make_collator, demo):
    empty = {"segmentation": {"size": [168, 168], "counts": [168 * 168]}}

    def add(record):
        record["annotation"][0]["1"] = empty
        record["annotation"][0]["2"] = empty

    before, after = (make_collator()([row]) for row in (demo[0], changed(demo[0], add)))
    torch.testing.assert_close(after["ins_masks"][0, 0, 0], before["ins_masks"][0, 0, 0] / 2)
    assert after["mask_index"].tolist() == [[[True, False]]] and not after["ins_masks"][0, 0, 1].any()


@pytest.mark.parametrize(("number", "index"), [(0, [True, False]), (1, [True, False]), (3, [False, True])])
def test_a_single_annotated_frame_counts_frame_0_included(make_collator, demo, number, index):
    def keep(record):
        record["annotation"] = [{str(number): record["annotation"][0]["0"]}]

    batch = make_collator()([changed(demo[0], keep)])
    assert batch["mask_index"].tolist() == [[index]]
    expected = make_collator()([demo[0]])["ins_masks"][0, 0, 0]
    torch.testing.assert_close(batch["ins_masks"][0, 0, index.index(True)], expected)


def test_unsupervised_records_carry_empty_supervision(make_collator, demo):
    unsupervised = changed(demo[0], lambda record: record.update(index="videorefer_qa_1"))
    alone = make_collator()([unsupervised, unsupervised])
    assert alone["ins_masks"].shape == (2, 0, 2, 6, 6) and alone["mask_index"].shape == (2, 0, 2)
    assert set(alone["ins_contents_labels"].flatten().tolist()) == {IGNORE}
    beside = make_collator()([demo[0], unsupervised])
    assert beside["mask_index"].tolist() == [[[True, True]], [[False, False]]]
    assert not beside["ins_masks"][1].any() and (beside["ins_contents_labels"][1] == IGNORE).all()
    assert torch.equal(beside["labels"][0], beside["labels"][1])  # the text is learnt all the same


def test_annotated_frames_are_hidden_where_they_would_leak(make_collator, demo):
    budget = VisualBudget(max_frames=2, min_pixels=28 * 28, max_pixels=40 * 28 * 28)
    samples = [make_collator(budget=budget, keep_annotated_frames=keep).reader(demo[0]) for keep in (True, False)]
    assert [sample.clip.numbers for sample in samples] == [[0, 2], [1, 3]]
    assert [sample.masks.index.tolist() for sample in samples] == [[[True]], [[False]]]


def test_positions_of_an_irregular_choice(make_collator, demo):
    """Three of four frames at 2 fps are 1.5 fps: a step lasts 2 / 1.5 s, and the tiny model has 2 positions a second."""
    budget = VisualBudget(max_frames=3, min_pixels=28 * 28, max_pixels=40 * 28 * 28)
    batch = make_collator(budget=budget)([demo[0]])
    video = batch["mm_token_type_ids"][0] == 2
    start = int(video.nonzero()[0])
    assert batch["position_ids"][0, 0, video].tolist() == [start] * 36 + [start + 2] * 36  # floor(2 * 1.33)
    assert batch["position_ids"][1, 0, video].view(2, 6, 6)[1, :, 3].tolist() == [start + row for row in range(6)]
    assert batch["position_ids"][:, 0, int(video.nonzero()[-1]) + 1].tolist() == [start + 6] * 3


def test_the_model_takes_the_batch_and_finds_the_same_positions(make_collator, tiny_model_dir, demo):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tiny_model_dir).eval()
    collator = make_collator()
    batch = collator(demo[:3])
    samples = [collator.reader(row) for row in demo[:3]]
    inputs, _, _ = collator.encode(samples, [collator.render(sample.record).text for sample in samples])
    assert inputs["second_per_grid_ts"].tolist() == [1.0] * 3  # two frames at 2 fps
    names = ("input_ids", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts", "attention_mask")
    expected, _ = model.model.get_rope_index(**{name: inputs[name] for name in names})
    assert torch.equal(batch["position_ids"], expected)
    with torch.no_grad():
        output = model(**batch)
        batch.pop("position_ids")
        own = model(**batch, second_per_grid_ts=inputs["second_per_grid_ts"])
    assert (
        torch.equal(output.loss, own.loss) and output.mask_loss > 0 and output.grounding[3] == 24
    )  # 3 samples x 2 phrases of 2 words x 2 steps


def test_generation_prompts_end_before_the_last_answer(make_collator, demo):
    collator = make_collator()
    sample = collator.reader(demo[0])
    chat = collator.render(sample.record, add_generation_prompt=True)
    assert chat.text.endswith(f"{texts_of(demo[0])[0]}<|im_end|>\n<|im_start|>assistant\n") and chat.answers == []
    texts = [chat.text, chat.text + "x"]
    inputs, _, _ = collator.encode([sample, collator.reader(demo[1])], texts, padding_side="left")
    assert inputs["attention_mask"][0].tolist() == [0] + [1] * (inputs["input_ids"].shape[1] - 1)


def test_clips_are_kept_within_the_cache(demo):
    """Rows 2 n and 2 n + 1 ask about the same clip. Room for two clips: the least recently used one goes."""
    one = SampleReader(DataSettings(budget=BUDGET), 28)(demo[0]).clip.frames.nbytes
    reader = SampleReader(DataSettings(budget=BUDGET, cache_gb=2.5 * one / 1e9), 28)
    first, second = reader(demo[0]).clip, reader(demo[2]).clip
    assert reader(demo[0]).clip is reader(demo[1]).clip is first and reader(demo[3]).clip is second
    other_frames = reader(changed(demo[2], lambda record: record["annotation"][0].pop("2"))).clip
    assert other_frames is not second  # frames were chosen otherwise: another entry, and the first clip made room
    assert reader(demo[2]).clip is second and reader(demo[0]).clip is not first
    uncached = SampleReader(DataSettings(budget=BUDGET), 28)
    assert uncached(demo[0]).clip is not uncached(demo[0]).clip


# ----------------------------------------------------------------------------------------------------------------------
# The other family: a run of tokens for each step, cells of 32 px
# ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen3_vl(tiny_model_dirs):
    folder = tiny_model_dirs["qwen3_vl"]
    processor, config = AutoProcessor.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    return lambda **settings: SwimCollator(processor, config, DataSettings(**{"budget": BUDGET, **settings}))


def test_qwen3_vl_has_five_cells_of_32_px_in_168(qwen3_vl, demo, tiny_model_dirs):
    collator = qwen3_vl()
    batch = collator(demo[:3])
    assert batch["video_grid_thw"].tolist() == [[2, 10, 10]] * 3
    assert batch["pixel_values_videos"].shape == (3 * 2 * 10 * 10, 3 * 2 * 16 * 16)
    assert batch["ins_masks"].shape == (3, 1, 2, 5, 5) and batch["mask_index"].all()
    for number, row in enumerate(demo[:3]):
        for step, frame in enumerate(("0", "2")):
            mask = coco.decode(raw_of(row)["annotation"][0][frame]["segmentation"])
            np.testing.assert_allclose(batch["ins_masks"][number, 0, step].numpy(), shares(mask, 5, 5), atol=1e-5)
        question, answer = texts_of(row)
        expected = f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        assert behind_visual(collator, batch, number) == expected
        assert learnt_text(collator, batch, number) == answer + "<|im_end|>"
    model = Qwen3VLForConditionalGeneration.from_pretrained(tiny_model_dirs["qwen3_vl"]).eval()
    names = ("input_ids", "mm_token_type_ids", "video_grid_thw", "attention_mask")
    expected, _ = model.model.get_rope_index(**{name: batch[name] for name in names})
    assert torch.equal(batch["position_ids"], expected)
    with torch.no_grad():
        output = model(**batch)
        batch.pop("position_ids")
        own = model(**batch)
    assert torch.equal(output.loss, own.loss) and output.mask_loss > 0 and output.grounding[3] == 24


@pytest.mark.parametrize("frames", [3, 4])
def test_an_odd_number_of_frames_stays_odd_in_the_cache(qwen3_vl, demo, frames):
    """The processor of Qwen3-VL fills up the list of frame numbers that it is given."""
    collator = qwen3_vl(budget=VisualBudget(frames, 28 * 28, 40 * 28 * 28), cache_gb=1.0)
    first, again = (collator([demo[0]]) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert len(collator.reader(demo[0]).clip.numbers) == frames


@pytest.mark.parametrize("room", [40, 70, 130, 400])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_max_length_holds_with_the_times_of_the_steps(make_collator, qwen3_vl, real_rows, family, room):
    make = {"qwen2_5_vl": make_collator, "qwen3_vl": qwen3_vl}[family]
    budget = VisualBudget(max_frames=8, min_pixels=8 * 28 * 28, max_pixels=40 * 28 * 28)
    frames = set()
    for row in real_rows:
        record = row_record(row)
        text, _ = make().measure(record)
        collator = make(max_length=text + room, budget=budget)
        assert collator.measure(record) == (text, room)
        sample = collator.read(row)
        length = collator([sample])["input_ids"].shape[1]
        assert length <= text + room
        assert text + collator.reader.clip_tokens(record, sample.clip) == length
        assert text + collator.reader.check_header(record, room)[0] == length
        frames.add(len(sample.clip.numbers))
    assert max(frames) == 8 or room < 130


def test_steps_of_one_second_are_refused_where_times_are_words(qwen3_vl):
    with pytest.raises(ValueError, match="released_timing: Qwen3-VL is told each step's time in words"):
        qwen3_vl(released_timing=True)


# ----------------------------------------------------------------------------------------------------------------------
# Real clips
# ----------------------------------------------------------------------------------------------------------------------

# Frames of the dog's clip: annotated 0, 15, ..., 135 thinned to eight; the car's clip has twelve, all annotated.
DOG, CAR = [0, 15, 45, 60, 75, 90, 120, 135], [0, 2, 3, 5, 6, 8, 9, 11]


@pytest.mark.parametrize("resolution", [1, 2])
def test_real_records_in_one_batch(make_collator, real_rows, resolution):
    collator = make_collator(mask_resolution=resolution)
    samples = [collator.reader(row) for row in real_rows]
    batch = collator(samples)
    assert [sample.clip.numbers for sample in samples[:3]] == [DOG, DOG, CAR]
    grids = [[4, 8, 16]] * 5
    assert batch["video_grid_thw"].tolist() == grids
    height, width = 4 * resolution, 8 * resolution
    assert batch["ins_masks"].shape == (5, 2, 4, height, width)
    expected_index = torch.zeros(5, 2, 4, dtype=torch.bool)
    for number in range(3):
        masks, index = masks_by_hand(real_rows[number], samples[number].clip.numbers, height, width)
        np.testing.assert_allclose(batch["ins_masks"][number, : len(masks)].numpy(), masks, atol=1e-5)
        expected_index[number, : len(index)] = torch.from_numpy(index)
    assert torch.equal(batch["mask_index"], expected_index)
    assert not batch["ins_masks"][~expected_index].any()
    assert [sorted(set(labels.tolist())) for labels in batch["ins_contents_labels"]] == [
        [IGNORE, 0], [IGNORE, 0, 1], [IGNORE, 0], [IGNORE], [IGNORE],
    ]  # fmt: skip
    assert [learnt_text(collator, batch, n) for n in range(5)] == [texts_of(row)[1] + "<|im_end|>" for row in real_rows]
    for number, row in enumerate(real_rows):
        question, answer = texts_of(row)
        assert behind_visual(collator, batch, number) == (
            f"<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        )


def test_positions_follow_the_sampled_rate(make_collator, real_rows):
    """8 of 150 frames at 29.97 fps: a step lasts 2 * 5.005 s / 8, and the tiny model has 2 positions per second."""
    batch = make_collator()([real_rows[0]])
    video = batch["mm_token_type_ids"][0] == 2
    times = batch["position_ids"][0, 0, video].view(4, 32)
    start = int(video.nonzero()[0])
    seconds_per_step = 2 * (150 / 29.97) / 8
    assert [set(row.tolist()) for row in times] == [{start + int(t * 2 * seconds_per_step)} for t in range(4)]
    behind = batch["position_ids"][:, 0, int(video.nonzero()[-1]) + 1]
    assert behind.tolist() == [int(batch["position_ids"][:, 0, video].max()) + 1] * 3


def test_samples_of_different_sizes_share_a_batch(make_collator, real_rows, demo):
    """An image, a demo clip and a real clip: each sample's masks lie in the first corner, zeros elsewhere."""
    record = json.loads(demo[0]["record"])
    image = row_of(
        {
            "image": "judo/00000.jpg",
            "conversations": record["conversations"],
            "annotation": [{"0": {"segmentation": [[100, 100, 300, 100, 300, 300, 100, 300]]}}],
        },
        real_rows[0]["data_root"] + "/cutie_examples/examples/images",
    )
    rows = [image, demo[0], real_rows[1]]
    collator = make_collator(budget=VisualBudget(max_frames=6, min_pixels=28 * 28, max_pixels=40 * 28 * 28))
    batch, alone = collator(rows), [collator([row]) for row in rows]
    sizes = [tuple(single["ins_masks"].shape[1:]) for single in alone]
    assert sizes == [(1, 1, 4, 8), (1, 2, 6, 6), (2, 3, 4, 8)]
    assert batch["ins_masks"].shape == (3, 2, 3, 6, 8)
    for number, (single, (n, t, h, w)) in enumerate(zip(alone, sizes)):
        expected = torch.zeros(2, 3, 6, 8)
        expected[:n, :t, :h, :w] = single["ins_masks"][0]
        assert torch.equal(batch["ins_masks"][number], expected) and expected.any()
        expected_index = torch.zeros(2, 3, dtype=torch.bool)
        expected_index[:n, :t] = single["mask_index"][0]
        assert torch.equal(batch["mask_index"][number], expected_index)
        length = single["input_ids"].shape[1]
        for name in ("input_ids", "attn_labels", "ins_contents_labels", "labels"):
            assert torch.equal(batch[name][number, :length], single[name][0]), name
        assert torch.equal(batch["position_ids"][:, number, :length], single["position_ids"][:, 0])
        assert (batch["ins_contents_labels"][number, length:] == IGNORE).all()
    assert batch["image_grid_thw"].tolist() == [[1, 8, 16]]
    assert batch["video_grid_thw"].tolist() == [[2, 12, 12], [3, 8, 16]]


# ----------------------------------------------------------------------------------------------------------------------
# Bad records
# ----------------------------------------------------------------------------------------------------------------------


BAD = {
    "missing video": (put("video", "none.mp4"), "no such video or image: .*none.mp4"),
    "two phrases": (
        put("annotation", [{}, {"0": {"segmentation": {"size": [1, 1], "counts": [0, 1]}}}, {}]),
        "distinct tagged phrases",
    ),
    "undecodable mask": (put("annotation", 0, "0", "segmentation", "counts", "zz"), "segmentation: not a COCO RLE"),
    "mask of another size": (
        put("annotation", 0, "2", "segmentation", {"size": [100, 168], "counts": [0, 16800]}),
        "segmentation: expected a mask of 168 x 168 as its frame, found 100 x 168",
    ),
    "frames past the end": (
        put("annotation", [{"9": {"segmentation": {"size": [168, 168], "counts": [0, 168 * 168]}}}]),
        "no instance has a usable, non-empty mask within the video's frames",
    ),
    "empty masks": (
        put("annotation", [{"0": {"segmentation": {"size": [168, 168], "counts": [168 * 168]}}}]),
        "no instance has a usable, non-empty mask",
    ),
    "unclosed tag": (put("conversations", 0, "value", "a <ins>dog"), "unclosed <ins>"),
    "special token": (put("conversations", 1, "value", "a <ins>x</ins><|im_end|>"), "special token <\\|im_end\\|>"),
    "answer first": (put("conversations", 0, "from", "gpt"), "conversations: turn 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_records_name_file_and_record(make_collator, demo, name):
    change, message = BAD[name]
    with pytest.raises(DataError, match=message) as error:
        make_collator()([demo[1], changed(demo[0], change)])
    assert str(error.value).startswith(f"{demo[0]['file']}, record 0 (videorefer_demo_0): ")
    assert demo[0]["file"].endswith("train.json")


def test_a_mask_one_pixel_off_is_used(make_collator, demo):
    full = {"segmentation": {"size": [167, 169], "counts": [0, 167 * 169]}}
    batch = make_collator()([changed(demo[0], put("annotation", [{"0": full}]))])
    torch.testing.assert_close(batch["ins_masks"][0, 0, 0], torch.ones(6, 6))
    assert float(batch["ins_masks"].max()) <= 1.0
