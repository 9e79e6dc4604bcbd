"""Fast patches: the stock processor's values, to the bit."""

import pytest
import torch
from transformers import Qwen2VLVideoProcessor

from swim.video.patches import PIXEL_RANGE, PatchingVideoProcessor, float_patches, with_fast_patches


def videos(*shapes) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]


SHAPES = [[(2, 3, 28, 28)], [(1, 3, 56, 28)], [(5, 3, 56, 84)], [(4, 3, 28, 56), (3, 3, 84, 28), (4, 3, 28, 56)]]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_patches_are_the_stock_processors(tiny_processor, shapes):
    settings = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"}
    expected = tiny_processor.video_processor(videos=videos(*shapes), **settings)
    found = with_fast_patches(tiny_processor).video_processor(videos=videos(*shapes), **settings)
    assert found.keys() == expected.keys()
    assert found["pixel_values_videos"].dtype == torch.float32
    assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])
    assert torch.equal(found["video_grid_thw"], expected["video_grid_thw"])


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_patches_that_travel_as_bytes_become_the_same_floats(tiny_processor, shapes):
    settings = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"}
    expected = tiny_processor.video_processor(videos=videos(*shapes), **settings)
    found = with_fast_patches(tiny_processor, as_bytes=True).video_processor(videos=videos(*shapes), **settings)
    assert found["pixel_values_videos"].dtype == torch.uint8
    floats = float_patches(found["pixel_values_videos"], found[PIXEL_RANGE])
    assert floats.dtype == torch.float32 and torch.equal(floats, expected["pixel_values_videos"])
    assert torch.equal(found["video_grid_thw"], expected["video_grid_thw"])


def test_frames_with_the_channels_last_in_memory(tiny_processor):
    settings = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"}
    (video,) = videos((4, 56, 84, 3))
    expected = tiny_processor.video_processor(videos=[video.permute(0, 3, 1, 2).contiguous()], **settings)
    found = with_fast_patches(tiny_processor).video_processor(videos=[video.permute(0, 3, 1, 2)], **settings)
    assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])


@pytest.mark.parametrize(
    ("changed", "as_floats"),
    [({"do_resize": True}, False), ({"do_normalize": False}, False), ({"do_rescale": False}, False), ({}, True)],
    ids=str,
)
def test_other_settings_are_left_to_stock(tiny_processor, changed, as_floats):
    settings = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"} | changed
    given = [video.float() if as_floats else video for video in videos((4, 3, 56, 84))]
    expected = tiny_processor.video_processor(videos=given, **settings)
    found = with_fast_patches(tiny_processor).video_processor(videos=given, **settings)
    assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])


def test_the_whole_processor_gives_the_same_batch_and_is_left_alone(tiny_processor):
    text = "<|vision_start|><|video_pad|><|vision_end|>what moves?"
    settings = {"videos_kwargs": {"do_resize": False, "do_sample_frames": False}, "return_tensors": "pt"}
    expected = tiny_processor(text=[text], videos=videos((3, 3, 56, 84)), **settings)
    fast = with_fast_patches(tiny_processor)
    found = fast(text=[text], videos=videos((3, 3, 56, 84)), **settings)
    assert found.keys() == expected.keys()
    assert all(torch.equal(torch.as_tensor(found[name]), torch.as_tensor(expected[name])) for name in expected)
    assert type(tiny_processor.video_processor) is Qwen2VLVideoProcessor
    assert type(fast.video_processor) is PatchingVideoProcessor and with_fast_patches(fast) is fast
    assert with_fast_patches(fast, as_bytes=True).video_processor.as_bytes and not fast.video_processor.as_bytes
