"""What cannot be supervised is an error that names the tensor or the sample."""

import copy
import math

import pytest
import torch

from ..inputs import SUPERVISION, VOCABULARY, Spec, make_batch, without_supervision
from ..test_attention_supervision import PAPER, model_with

ONE = [Spec("video", (2, 3, 4), before=3, after=8, tags={1: 0, 4: 1})]


def changed(**tensors):
    """A change of a batch: each tensor replaced by what the function makes of it."""

    def change(batch):
        for name, function in tensors.items():
            batch[name] = function(batch[name])

    return change


def tag_before_the_video(batch):
    batch["attn_labels"][0, 1] = batch["input_ids"][0, 1]
    batch["ins_contents_labels"][0, 1] = 0


def at(position, value):
    def put(tensor):
        tensor[(0, *position)] = value
        return tensor

    return put


BAD = {
    "no attn_labels": (changed(attn_labels=lambda _: None), "missing: attn_labels"),
    "no ins_contents_labels": (changed(ins_contents_labels=lambda _: None), "missing: ins_contents_labels"),
    "no ins_masks": (changed(ins_masks=lambda _: None), "missing: ins_masks"),
    "no mask_index": (changed(mask_index=lambda _: None), "missing: mask_index"),
    "attn_labels alone": (
        changed(ins_contents_labels=lambda _: None, ins_masks=lambda _: None, mask_index=lambda _: None),
        "missing: ins_contents_labels, ins_masks, mask_index",
    ),
    "a list": (changed(mask_index=lambda m: m.tolist()), "missing: mask_index"),
    "attn_labels on another device": (
        changed(attn_labels=lambda a: a.to("meta")),
        "attn_labels: expected device cpu as input_ids, found meta",
    ),
    "ins_masks on another device": (
        changed(ins_masks=lambda m: m.to("meta")),
        "ins_masks: expected device cpu as input_ids, found meta",
    ),
    "mask_index on another device": (
        changed(mask_index=lambda m: m.to("meta")),
        "mask_index: expected device cpu as input_ids, found meta",
    ),
    "attn_labels int32": (changed(attn_labels=lambda a: a.int()), "attn_labels: expected torch.int64"),
    "ins_contents_labels float": (
        changed(ins_contents_labels=lambda a: a.float()),
        "ins_contents_labels: expected torch.int64",
    ),
    "ins_masks int": (changed(ins_masks=lambda m: m.long()), "ins_masks: expected a floating dtype"),
    "mask_index int": (changed(mask_index=lambda m: m.long()), "mask_index: expected torch.bool"),
    "attn_labels too short": (changed(attn_labels=lambda a: a[:, 1:]), "attn_labels: expected shape"),
    "ins_contents_labels too short": (
        changed(ins_contents_labels=lambda a: a[:, 1:]),
        "ins_contents_labels: expected shape",
    ),
    "ins_masks 4-d": (changed(ins_masks=lambda m: m[0]), "ins_masks: expected shape"),
    "ins_masks of another batch": (changed(ins_masks=lambda m: m.repeat(2, 1, 1, 1, 1)), "ins_masks: expected shape"),
    "mask_index of fewer steps": (changed(mask_index=lambda m: m[..., :1]), "mask_index: expected shape"),
    "masks of half a grid": (
        changed(ins_masks=lambda m: m[..., :2]),
        "ins_masks: expected at least 2 steps of r \\* 3 x r \\* 4",
    ),
    "masks twice as high only": (
        changed(ins_masks=lambda m: m.repeat(1, 1, 1, 2, 1)),
        "ins_masks: expected at least 2 steps",
    ),
    "masks of one step": (
        changed(ins_masks=lambda m: m[:, :, :1], mask_index=lambda m: m[:, :, :1]),
        "ins_masks: expected at least 2 steps",
    ),
    "steps beyond the grid": (
        changed(
            ins_masks=lambda m: torch.cat([m, m], 2),
            mask_index=lambda m: torch.cat([m, m], 2),
        ),
        "mask_index: sample 0 has 2 steps",
    ),
    "masks above 1": (changed(ins_masks=lambda m: m + 1), "ins_masks: expected values from 0 to 1"),
    "masks below 0": (changed(ins_masks=lambda m: m - 1), "ins_masks: expected values from 0 to 1"),
    "masks NaN": (changed(ins_masks=lambda m: m * math.nan), "ins_masks: expected values from 0 to 1"),
    "instance too high": (
        changed(ins_contents_labels=at((30,), 2)),
        "ins_contents_labels: expected -100 or an instance index below 2, found \\[2\\]",
    ),
    "instance negative": (changed(ins_contents_labels=at((30,), -1)), "ins_contents_labels: .* found \\[-1\\]"),
    "attn_labels beyond the vocabulary": (
        changed(attn_labels=at((35,), VOCABULARY)),
        "attn_labels: expected -100 or a token id below 160",
    ),
    "no visual token": (
        changed(input_ids=lambda ids: torch.where(ids == 5, 77, ids)),
        "sample 0: expected one visual block in a supervised sample, found 0",
    ),
    "two visual blocks": (
        changed(input_ids=at((10,), 77), video_grid_thw=lambda g: g.repeat(2, 1)),
        "sample 0: expected one visual block in a supervised sample, found 2",
    ),
    "more blocks than grids": (changed(input_ids=at((10,), 77)), "sample 0: more visual blocks than rows"),
    "a tag before the video": (
        tag_before_the_video,
        "sample 0: expected every supervised token after the visual block .* found one at 1",
    ),
    "a tag in the padding": (
        changed(attention_mask=at((30,), 0)),
        "sample 0: found a supervised token where attention_mask is 0",
    ),
    "a grid of another size": (
        changed(video_grid_thw=lambda g: g + torch.tensor([1, 0, 0])),
        "sample 0: expected 36 visual tokens",
    ),
    "attention_mask 4-d": (changed(attention_mask=lambda m: m[:, None, None]), "attention_mask: expected shape"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    change, message = BAD[name]
    batch, model = copy.deepcopy(make_batch(ONE)), model_with(PAPER)
    assert batch["ins_contents_labels"][0, 30] == 0  # the word that some changes touch is a tagged one
    model(**batch)
    change(batch)
    with pytest.raises(ValueError, match=message):
        model(**batch)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_masks_of_any_floating_dtype_give_the_same_loss(dtype):
    batch, model = make_batch(ONE), model_with(PAPER)
    exact = (batch["ins_masks"] * 4).round() / 4  # quarters are numbers of every floating dtype
    expected = model(**batch | {"ins_masks": exact}).mask_loss
    assert torch.equal(model(**batch | {"ins_masks": exact.to(dtype)}).mask_loss, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            lambda model, batch: {"input_ids": None, "inputs_embeds": model.get_input_embeddings()(batch["input_ids"])},
            "input_ids",
        ),
        (
            lambda model, batch: {"inputs_embeds": model.get_input_embeddings()(batch["input_ids"])},
            "inputs_embeds: expected none",
        ),
        (lambda model, batch: {"logits_to_keep": 1}, "logits_to_keep: expected 0"),
        (
            lambda model, batch: {"cache": model(**without_supervision(batch)).cache},
            "cache: expected none",
        ),
        (
            lambda model, batch: {"position_ids": torch.zeros(4, *batch["input_ids"].shape).long()},
            "position_ids: expected 3 components",
        ),
    ],
    ids=["embeddings alone", "embeddings too", "logits_to_keep", "cache", "packed"],
)
def test_arguments_that_exclude_supervision_are_named(arguments, message):
    model, batch = model_with(PAPER), make_batch(ONE)
    with pytest.raises(ValueError, match=message):
        model(**batch | arguments(model, batch))


def test_an_unsupervised_sample_may_hold_any_number_of_visual_blocks():
    batch = make_batch([ONE[0], Spec("video", (2, 2, 2), before=2, after=20)])
    batch["input_ids"][1, 7] = 88  # splits the second sample's block of 8 into two of 4
    batch["mm_token_type_ids"][1, 7] = 0
    batch["video_grid_thw"] = torch.tensor([[2, 6, 8], [1, 4, 4], [1, 2, 6]])
    batch["second_per_grid_ts"] = torch.ones(3)
    model = model_with(PAPER)
    with pytest.raises(ValueError, match="sample 1"):  # supervised it is an error
        tagged = {name: batch[name].clone() for name in SUPERVISION}
        tagged["attn_labels"][1, 20], tagged["ins_contents_labels"][1, 20] = 20, 0
        tagged["mask_index"][1, 0, 0] = True
        model(**batch | tagged)
    batch["pixel_values_videos"] = batch["pixel_values_videos"][: 4 * (24 + 4 + 3)]
    assert float(model(**batch).mask_loss) > 0
