"""Frames to the patches that the vision tower reads, faster than the stock processor makes them."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.video_processing_utils import BaseVideoProcessor

PIXEL_RANGE = "pixel_range"


def with_fast_patches(processor, stock: type[BaseVideoProcessor], as_bytes: bool = False):
    """A copy of the processor that cuts the bytes of sized frames into patches first and turns them into floats last.

    The same values to the bit. Stock makes the floats first, four bytes for one, and copies them three times: a third of
    the whole data path at the paper's size, driver/benchmarks/data_throughput.py has the numbers.

    stock: the class whose patches are in the order of `patchify_videos`; with a video processor of another class, the
    processor itself is returned. as_bytes: leave the floats to `float_patches`, on the device: a quarter of the memory on
    the way. `pixel_values_videos` is uint8 then, and `PIXEL_RANGE` comes with it.

    The copy is for computing with: keep the processor itself for `save_pretrained`.
    """
    given = processor.video_processor
    if type(given) is not stock:
        return processor
    fast = copy.copy(processor)
    fast.video_processor = copy.copy(given)
    patch = partial(_patches_first, stock._preprocess.__get__(given), as_bytes)
    fast.video_processor._preprocess = patch
    return fast


def _patches_first(
    preprocess: Callable[..., BatchFeature], as_bytes: bool, videos: list[torch.Tensor], **settings
) -> BatchFeature:
    """What the stock `preprocess` makes of videos."""
    sized = not settings["do_resize"] and all(video.dtype == torch.uint8 for video in videos)
    if not (sized and settings["do_rescale"] and settings["do_normalize"]):
        return preprocess(videos, **settings)
    to_bytes = 1.0 / settings["rescale_factor"]  # rescaling and normalising in one, with stock's arithmetic
    mean, std = (torch.tensor(settings[name]) * to_bytes for name in ("image_mean", "image_std"))
    sizes = {name: settings[name] for name in ("patch_size", "merge_size", "temporal_patch_size")}
    pixel_range = torch.stack([mean, std])
    patches, grids = patchify_videos(videos, None if as_bytes else pixel_range, **sizes)
    found = {"pixel_values_videos": patches, "video_grid_thw": grids}
    return BatchFeature({**found, PIXEL_RANGE: pixel_range} if as_bytes else found)


def float_patches(patches: torch.Tensor, pixel_range: torch.Tensor) -> torch.Tensor:
    """float32[P, C * n], what the vision tower reads, of uint8[P, C * n]. pixel_range: float32[2, C], mean and standard
    deviation in units of a byte."""
    mean, std = pixel_range[:, :, None]
    return ((patches.unflatten(1, (len(mean), -1)) - mean) / std).flatten(1)


def patchify_videos(
    videos: list[torch.Tensor],
    pixel_range: torch.Tensor | None,
    patch_size: int = 14,
    merge_size: int = 2,
    temporal_patch_size: int = 2,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(float32[P, C * t * p * p], int64[V, 3]): patches of all videos, and each one's grid (steps, rows, columns).

    videos: uint8[F, C, h, w], h and w multiples of p * m; an odd last frame is repeated to fill its step. pixel_range: as
    of `float_patches`; None leaves the patches uint8. Patches go step by step, within it merged cell by merged cell, row by row; within a
    cell its m x m patches; within a patch channel, frame, row, column.
    """
    m, p, t = merge_size, patch_size, temporal_patch_size
    grids = [(-(-len(v) // t), v.shape[2] // p, v.shape[3] // p) for v in videos]
    channels = videos[0].shape[1]
    count = sum(steps * rows * columns for steps, rows, columns in grids)
    patches = torch.empty(count, channels, t * p * p, dtype=torch.uint8 if pixel_range is None else torch.float32)
    filled = 0
    for video, (steps, rows, columns) in zip(videos, grids):
        for step in range(steps):  # one after the other: the bytes of a step stay in the processor's cache
            frames = video[step * t : (step + 1) * t]
            frames = torch.cat([frames, frames[-1:].expand(t - len(frames), -1, -1, -1)])
            cells = frames.reshape(t, channels, rows // m, m, p, columns // m, m, p).permute(2, 5, 3, 6, 1, 0, 4, 7)
            target = patches[filled : filled + rows * columns]
            if pixel_range is None:
                target.view(cells.shape).copy_(cells)
            else:
                mean, std = pixel_range[:, :, None]
                torch.sub(cells.reshape(target.shape), mean, out=target).div_(std)
            filled += rows * columns
    return patches.flatten(1), torch.tensor(grids)
