"""Fast patches: the stock processor's values, to the bit."""

import pickle

import pytest
import torch
from transformers import AutoProcessor

from swim.models.family import families
from swim.video.patches import PIXEL_RANGE, float_patches, with_fast_patches


@pytest.fixture(params=families(), ids=lambda family: family.model_type)
def family(request):
    return request.param


@pytest.fixture
def processor(family, tiny_model_dirs):
    return AutoProcessor.from_pretrained(tiny_model_dirs[family.model_type], local_files_only=True)


@pytest.fixture
def fast(processor, family):
    return with_fast_patches(processor, family.video_processor_class)


@pytest.fixture
def cell(family) -> int:
    return family.tiny.pixels["patch_size"] * family.tiny.pixels["merge_size"]


def videos(cell, *shapes) -> list[torch.Tensor]:
    """Noise; each shape in frames and in cells of its height and width."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(frames, 3, rows * cell, columns * cell) for frames, rows, columns in shapes]
    return [torch.randint(0, 256, size, dtype=torch.uint8, generator=generator) for size in sizes]


SHAPES = [[(2, 1, 1)], [(1, 2, 1)], [(5, 2, 3)], [(4, 1, 2), (3, 3, 1), (4, 1, 2)]]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_patches_are_the_stock_processors(processor, fast, cell, shapes):
    settings = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"}
    expected = processor.video_processor(videos=videos(cell, *shapes), **settings)
    found = fast.video_processor(videos=videos(cell, *shapes), **settings)
    assert found.keys() == expected.keys()
    assert found["pixel_values_videos"].dtype == torch.float32
    assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])
    assert torch.equal(found["video_grid_thw"], expected["video_grid_thw"])


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_patches_that_travel_as_bytes_become_the_same_floats(processor, family, cell, shapes):
    settings = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"}
    expected = processor.video_processor(videos=videos(cell, *shapes), **settings)
    found = with_fast_patches(processor, family.video_processor_class, as_bytes=True).video_processor(
        videos=videos(cell, *shapes), **settings
    )
    assert found["pixel_values_videos"].dtype == torch.uint8
    floats = float_patches(found["pixel_values_videos"], found[PIXEL_RANGE])
    assert floats.dtype == torch.float32 and torch.equal(floats, expected["pixel_values_videos"])
    assert torch.equal(found["video_grid_thw"], expected["video_grid_thw"])


def test_frames_with_the_channels_last_in_memory(processor, fast, cell):
    settings = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"}
    (video,) = videos(cell, (4, 2, 3))
    video = video.permute(0, 2, 3, 1).contiguous()
    expected = processor.video_processor(videos=[video.permute(0, 3, 1, 2).contiguous()], **settings)
    found = fast.video_processor(videos=[video.permute(0, 3, 1, 2)], **settings)
    assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])


@pytest.mark.parametrize(
    ("changed", "as_floats"),
    [({"do_resize": True}, False), ({"do_normalize": False}, False), ({"do_rescale": False}, False), ({}, True)],
    ids=str,
)
def test_other_settings_are_left_to_stock(processor, fast, cell, changed, as_floats):
    settings = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"} | changed
    given = [video.float() if as_floats else video for video in videos(cell, (4, 2, 3))]
    expected = processor.video_processor(videos=given, **settings)
    found = fast.video_processor(videos=given, **settings)
    assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])


def test_the_whole_processor_gives_the_same_batch_and_is_left_alone(processor, family, cell):
    text = "<|vision_start|><|video_pad|><|vision_end|>what moves?"
    settings = {"videos_kwargs": {"do_resize": False, "do_sample_frames": False}, "return_tensors": "pt"}
    expected = processor(text=[text], videos=videos(cell, (3, 2, 3)), **settings)
    fast = with_fast_patches(processor, family.video_processor_class)
    for each in (fast, pickle.loads(pickle.dumps(fast))):  # workers may be processes that are started afresh
        found = each(text=[text], videos=videos(cell, (3, 2, 3)), **settings)
        assert found.keys() == expected.keys()
        assert all(torch.equal(torch.as_tensor(found[name]), torch.as_tensor(expected[name])) for name in expected)
    as_bytes = with_fast_patches(processor, family.video_processor_class, as_bytes=True)
    assert PIXEL_RANGE in as_bytes(text=[text], videos=videos(cell, (3, 2, 3)), **settings)
    again = processor(text=[text], videos=videos(cell, (3, 2, 3)), **settings)
    assert again.keys() == expected.keys() and "_preprocess" not in vars(processor.video_processor)


def test_a_video_processor_of_another_class_is_left_as_it_is(processor):
    assert with_fast_patches(processor, type(processor.image_processor)) is processor
