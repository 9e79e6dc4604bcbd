"""What a batch means: its samples' losses, whatever their kind, number and order."""

import pytest
import torch

from .inputs import IGNORE, Spec, family, make_batch, make_tiny_config, make_tiny_model
from .test_attention_supervision import assert_same_gradients, gradients_of

pytestmark = pytest.mark.usefixtures("each_family")

PER_SAMPLE = ("input_ids", "attention_mask", "mm_token_type_ids", "labels", "attn_labels", "ins_contents_labels")
OPTIONS = {"layers": [1, 3]}
# one of each kind: a supervised video, a supervised image, a video without masks, text alone
KINDS = [
    Spec("video", (3, 3, 4), before=2, after=9, tags={1: 0, 2: 0, 6: 1}, masks={(0, 0), (0, 2), (1, 1)}),
    Spec("image", (1, 5, 2), before=4, after=4, tags={0: 0}),
    Spec("video", (2, 2, 3), before=1, after=12, tags={3: 0}, masks=set()),
    Spec(None, before=5, after=3),
]
# equal numbers of tokens, labels and (token, step) pairs; contents differ
ALIKE = [Spec("video", (2, 3, 4), before=3, after=8, tags={1 + i: 0, 5: 1}) for i in range(4)]


def make_model():
    return make_tiny_model(make_tiny_config(OPTIONS)).train()


def take(batch: dict, specs: list[Spec], chosen: list[int]) -> dict:
    """The batch (padded on the right) of the chosen samples in that order, cropped to what they need."""
    taken = [specs[i] for i in chosen]
    length = max(spec.length for spec in taken)
    part = {name: batch[name][chosen, :length] for name in PER_SAMPLE}
    grids = [spec.grid for spec in taken if spec.visual is not None] or [(1, 1, 1)]
    steps, height, width = (max(sizes) for sizes in zip(*grids))
    part["mask_index"] = batch["mask_index"][chosen, :, :steps]
    part["ins_masks"] = batch["ins_masks"][chosen, :, :steps, :height, :width]
    for visual, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        owners = [i for i, spec in enumerate(specs) if spec.visual == visual]
        order = [owners.index(i) for i in chosen if i in owners]
        if not order:
            continue
        patches = batch[pixels].split([4 * specs[i].cells for i in owners])
        part[pixels] = torch.cat([patches[place] for place in order])
        part[f"{visual}_grid_thw"] = batch[f"{visual}_grid_thw"][order]
        if "second_per_grid_ts" in batch and visual == "video":
            part["second_per_grid_ts"] = batch["second_per_grid_ts"][order]
    return part


def mean_gradients(model, losses: list[torch.Tensor], weights: list[float]) -> dict:
    return gradients_of(model, sum(weight * loss for weight, loss in zip(weights, losses)))


def labels_of(batch: dict) -> list[int]:
    return (batch["labels"][:, 1:] != IGNORE).sum(1).tolist()


def test_a_mixed_batch_is_the_weighted_mean_of_its_samples():
    """mask_loss is weighted by pairs, text_loss by labelled tokens; so are their gradients."""
    batch, model = make_batch(KINDS), make_model()
    whole = model(**batch)
    outputs = [model(**take(batch, KINDS, [i])) for i in range(len(KINDS))]
    pairs, labelled = [5, 1, 0, 0], labels_of(batch)
    assert min(labelled) > 0
    for name, counts in (("mask_loss", pairs), ("text_loss", labelled)):
        weights = [count / sum(counts) for count in counts]
        losses = [output[name] for output in outputs]
        expected = sum(weight * loss for weight, loss in zip(weights, losses))
        torch.testing.assert_close(whole[name], expected, rtol=1e-5, atol=0)
    for index in (2, 3):  # without masks: exactly zero, and connected
        assert float(outputs[index].mask_loss.detach()) == 0.0 and outputs[index].mask_loss.requires_grad
    whole, outputs = model(**batch), [model(**take(batch, KINDS, [i])) for i in range(len(KINDS))]
    weights = [[count / sum(counts) for count in counts] for counts in (pairs, labelled)]
    terms = [output[name] for name in ("mask_loss", "text_loss") for output in outputs]
    expected = mean_gradients(model, terms, [*weights[0], *(0.05 * weight for weight in weights[1])])
    assert_same_gradients(gradients_of(model, whole.loss), expected, 1e-3)


@pytest.mark.parametrize("order", [[3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]])
def test_the_order_of_samples_changes_nothing(order):
    batch, model = make_batch(KINDS), make_model()
    expected = model(**batch)
    found = model(**take(batch, KINDS, order))
    for name in ("loss", "text_loss", "mask_loss", "grounding"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.attention_maps, expected.attention_maps[order], rtol=1e-4, atol=1e-7)
    expected_gradients = gradients_of(model, expected.loss)
    assert_same_gradients(gradients_of(model, found.loss), expected_gradients, 1e-4)


def test_a_batch_of_four_equals_four_micro_batches():
    """The mean, not the sum: four micro-batches of one, each loss divided by four, have the gradients of one of four."""
    batch, model = make_batch(ALIKE), make_model()
    assert len(set(labels_of(batch))) == 1
    expected = model(**batch).loss
    parts = [model(**take(batch, ALIKE, [i])).loss for i in range(4)]
    assert len({round(float(part.detach()), 3) for part in parts}) == 4
    torch.testing.assert_close(sum(parts) / 4, expected, rtol=1e-5, atol=0)
    expected_gradients = gradients_of(model, expected)
    assert_same_gradients(mean_gradients(model, parts, [0.25] * 4), expected_gradients, 1e-4)


@pytest.mark.parametrize("way", ["autocast", "pure"])
@pytest.mark.parametrize("preset", ["paper", "release"])
def test_bf16_stays_near_float32(preset, way):
    """Stated tolerances, at weights of a usual size: both losses within 1 %, and the whole gradient's direction by its
    cosine, which is 0.95 and more on processors with bf16, with AVX-512 and with AVX2 alone. Its length is not compared:
    next to a step's lowest cell the slope of log p is as steep as the fork's RELATIVE_FLOOR allows, so that one rounded
    cell can double it. Neither is the direction of the released rule where queries and keys are normalised: its products
    of layers fall so far in a step that one rounded cell outweighs all others.
    """
    config = make_tiny_config({"preset": preset, **OPTIONS})
    config.text_config.initializer_range = config.vision_config.initializer_range = 0.05
    for seed in range(3):
        reference, model = make_tiny_model(config, seed), make_tiny_model(config, seed)
        batch = make_batch(KINDS, seed=seed)
        expected = reference(**batch)
        if way == "pure":
            model.to(torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "autocast"):
            found = model(**batch)
        for name in ("text_loss", "mask_loss"):
            torch.testing.assert_close(found[name].float(), expected[name], rtol=0.01, atol=0)
        if preset == "release" and family().name == "qwen3_vl":
            continue
        sides = (gradients_of(model, found.loss), gradients_of(reference, expected.loss))
        ours, theirs = (torch.cat([g.flatten().float() for g in side.values() if g is not None]) for side in sides)
        assert float(torch.nn.functional.cosine_similarity(ours, theirs, dim=0)) > 0.9


@pytest.mark.parametrize("specs, padded", [(ALIKE, False), (KINDS, True)])
def test_only_a_padded_batch_keeps_its_attention_mask(specs, padded):
    """A mask of ones says nothing, and asking it whether it does makes every forward wait for the GPU."""
    batch, model, seen = make_batch(specs), make_model(), []
    model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    outputs = model(**batch)
    assert (seen[0] is not None) == padded
    if not padded:
        without = model(**{name: value for name, value in batch.items() if name != "attention_mask"})
        assert torch.equal(outputs.loss, without.loss) and torch.equal(outputs.attention_maps, without.attention_maps)
