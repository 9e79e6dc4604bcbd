"""Positions: text goes on after a visual block's greatest position, as in transformers 4.x."""

import numpy as np
import pytest
import torch

from .inputs import IMAGE, PAD, VIDEO, VISION_END, VISION_START, Spec, make_batch, make_tiny_model

TOKENS_PER_SECOND, MERGE = 4, 2


def positions_by_hand(kinds, images, videos, seconds) -> np.ndarray:
    """int[3, S] of one sample without padding: kinds 0 text, 1 image, 2 video; grids in patches."""
    images, videos, seconds = iter(images), iter(videos), iter(seconds)
    positions, following, place = [], 0, 0
    while place < len(kinds):
        if kinds[place] == 0:
            positions.append((following, following, following))
            following, place = following + 1, place + 1
            continue
        time, height, width = next(images if kinds[place] == 1 else videos)
        interval = TOKENS_PER_SECOND * next(seconds) if kinds[place] == 2 else 1
        block = []
        for t in range(time):
            for h in range(height // MERGE):
                for w in range(width // MERGE):
                    block.append((following + int(np.floor(t * interval)), following + h, following + w))
        positions += block
        following, place = max(max(position) for position in block) + 1, place + len(block)
    return np.array(positions).T


def batch_by_hand(samples, padding_side):
    """samples: lists of ("text", n), ("image", grid) and ("video", grid, seconds per step), grids in patches."""
    rows = []
    for sample in samples:
        ids, kinds = [], []
        for kind, size, *_ in sample:
            if kind == "text":
                ids, kinds = ids + [50] * size, kinds + [0] * size
            else:
                cells = size[0] * size[1] * size[2] // MERGE**2
                ids += [VISION_START] + [IMAGE if kind == "image" else VIDEO] * cells + [VISION_END]
                kinds += [0] + [1 if kind == "image" else 2] * cells + [0]
        rows.append((ids, kinds))
    length = max(len(ids) for ids, _ in rows)
    arrays = np.zeros((3, len(rows), length), dtype=np.int64)
    arrays[0] = PAD
    for number, (ids, kinds) in enumerate(rows):
        place = slice(length - len(ids), length) if padding_side == "left" else slice(0, len(ids))
        arrays[:, number, place] = np.array([ids, kinds, [1] * len(ids)])
    parts = [part for sample in samples for part in sample]
    inputs = dict(zip(("input_ids", "mm_token_type_ids", "attention_mask"), torch.from_numpy(arrays)))
    for kind in ("image", "video"):
        grids = [part[1] for part in parts if part[0] == kind]
        inputs[f"{kind}_grid_thw"] = torch.tensor(grids) if grids else None
    inputs["second_per_grid_ts"] = torch.tensor([part[2] for part in parts if part[0] == "video"], dtype=torch.float32)
    expected = []
    for (_, kinds), sample in zip(rows, samples):
        grids = {kind: [part[1] for part in sample if part[0] == kind] for kind in ("image", "video")}
        seconds = [part[2] for part in sample if part[0] == "video"]
        expected.append(positions_by_hand(kinds, grids["image"], grids["video"], seconds))
    return inputs, expected


@pytest.fixture(scope="module")
def model():
    return make_tiny_model()


def test_the_facts_figures(model):
    """16 steps of 14 x 25 cells, 1 s per step, 4 tokens/s: the video reaches 60 + its start, its widest row 24."""
    inputs, _ = batch_by_hand([[("text", 2), ("video", (16, 28, 50), 1.0), ("text", 3)]], "right")
    positions, deltas = model.model.get_rope_index(**inputs)
    block = inputs["mm_token_type_ids"][0] == 2
    assert block.sum() == 16 * 14 * 25
    video = positions[:, 0, block]
    assert video.amin(1).tolist() == [3, 3, 3]
    assert video.amax(1).tolist() == [3 + 60, 3 + 13, 3 + 24]
    behind = positions[:, 0, int(block.nonzero().max()) + 1 :]
    assert behind.tolist() == [[64, 65, 66, 67]] * 3
    assert deltas.tolist() == [[68 - inputs["input_ids"].shape[1]]]


BATCHES = {
    "text": [[("text", 5)], [("text", 2)]],
    "one image": [[("text", 3), ("image", (1, 4, 10)), ("text", 4)]],
    "one video": [[("text", 3), ("video", (5, 4, 6), 1.0), ("text", 4)]],
    "slow video": [[("text", 3), ("video", (3, 2, 2), 7.25), ("text", 4)]],
    "fast video": [[("text", 3), ("video", (9, 8, 4), 0.1), ("text", 4)]],
    "uneven rate": [[("text", 1), ("video", (7, 2, 4), 1 / 3), ("text", 2)]],
    "one step": [[("text", 3), ("video", (1, 2, 2), 1.0)]],
    "several blocks": [
        [
            ("text", 2),
            ("video", (4, 4, 2), 0.5),
            ("text", 3),
            ("image", (1, 6, 2)),
            ("video", (2, 2, 8), 2.0),
            ("text", 1),
        ]
    ],
    "many samples": [
        [("video", (4, 4, 2), 0.5), ("text", 3)],
        [("text", 9)],
        [("text", 1), ("image", (1, 6, 2)), ("text", 2), ("image", (1, 2, 2)), ("text", 7)],
        [("text", 2), ("video", (6, 2, 4), 1.5), ("text", 1), ("video", (2, 6, 6), 0.25), ("text", 4)],
    ],
}


@pytest.mark.parametrize("padding_side", ["right", "left"])
@pytest.mark.parametrize("name", BATCHES)
def test_positions_are_those_of_the_4x_rule(model, name, padding_side):
    inputs, expected = batch_by_hand(BATCHES[name], padding_side)
    positions, deltas = model.model.get_rope_index(**inputs)
    for number, by_hand in enumerate(expected):
        real = inputs["attention_mask"][number].bool()
        assert positions[:, number, real].numpy().tolist() == by_hand.tolist()
        assert deltas[number].tolist() == [by_hand.max() + 1 - by_hand.shape[1]]


def test_rates_are_one_second_per_step_when_none_are_given(model):
    inputs, expected = batch_by_hand([[("text", 1), ("video", (3, 4, 4), 1.0), ("text", 2)]], "right")
    inputs["second_per_grid_ts"] = None
    assert model.model.get_rope_index(**inputs)[0][:, 0].numpy().tolist() == expected[0].tolist()


def test_generation_continues_behind_the_text(model):
    """Positions of the tokens that generate() adds: one further each, from the greatest of the prompt."""
    specs = [Spec("video", (6, 2, 3), before=2, after=4), Spec("image", (1, 2, 6), before=5, after=9), Spec(None)]
    batch = make_batch(specs, "left")
    names = (
        "input_ids",
        "attention_mask",
        "mm_token_type_ids",
        "image_grid_thw",
        "video_grid_thw",
        "second_per_grid_ts",
    )
    pixels = {name: batch[name] for name in ("pixel_values", "pixel_values_videos")}
    inputs = {name: batch[name] for name in names}
    prompt, _ = model.model.get_rope_index(**inputs)
    greatest = prompt.amax((0, 2))
    assert greatest.tolist() == [int(prompt[:, b, -1].max()) for b in range(3)]
    seen = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    model.generate(**inputs, **pixels, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    hook.remove()
    real = batch["attention_mask"].bool()
    assert torch.equal(seen[0][-3:].transpose(0, 1).transpose(1, 2)[real], prompt.transpose(0, 1).transpose(1, 2)[real])
    for step, positions in enumerate(seen[1:], start=1):
        assert positions[-3:].tolist() == [[[int(g) + step] for g in greatest]] * 3
    assert len(seen) == 4
