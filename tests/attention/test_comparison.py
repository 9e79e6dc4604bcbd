"""The figure and the animated picture that compare models: what they show, in which order, at which scale."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image

from swim.attention.animation import animate_maps
from swim.attention.figure import best_first, show_maps
from swim.data.mixture import load_mixture
from swim.data.sample import SampleReader
from swim.data.settings import DataSettings
from swim.demo.clips import make_demo_data
from swim.video.clip import VisualBudget


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Two clips, each asked for two of its objects."""
    data = make_demo_data(tmp_path_factory.mktemp("demo"), train_clips=2, held_out_clips=0, workers=1)
    reader = SampleReader(DataSettings(budget=VisualBudget(min_pixels=784, max_pixels=28224)), 28)
    read = [reader(row) for row in load_mixture(data.train_config).dataset]
    return [read[number] for number in (0, 1, 3, 4)]


@pytest.fixture
def drawn(monkeypatch):
    """Function: the figure of `show_maps`, which stays open for the test."""
    figures = []
    monkeypatch.setattr("matplotlib.pyplot.close", figures.append)
    yield lambda *arguments: show_maps(*arguments) or figures[-1]
    monkeypatch.undo()
    plt.close("all")


def found(sample, share: float) -> torch.Tensor:
    """A map with this share of its mass on the sample's object."""
    on_object = torch.from_numpy(sample.masks.shares[0] >= 0.1)
    heat = torch.where(on_object, share / on_object.sum(), (1 - share) / (~on_object).sum())
    return heat.float()


def titles_of(samples) -> list[str]:
    return [sample.record.turns[0].spans[0].phrase for sample in samples]


def test_clips_come_in_the_order_in_which_the_object_is_found(samples):
    shares = (0.9, 0.2, 0.5, 0.6)
    maps = [found(sample, share) for sample, share in zip(samples, shares)]
    assert best_first(samples, maps) == [3, 2, 0, 1]  # a clip counts as its worst question; its questions stay together
    bare = [replace(sample, masks=None) for sample in samples]
    assert best_first(bare, maps) == [0, 1, 2, 3]


def test_masks_finer_than_the_grid_give_the_same_order(samples):
    fine = [
        replace(s, masks=replace(s.masks, shares=s.masks.shares.repeat(2, axis=2).repeat(2, axis=3))) for s in samples
    ]
    maps = [found(sample, share) for sample, share in zip(samples, (0.9, 0.2, 0.5, 0.6))]
    assert best_first(fine, maps) == best_first(samples, maps)


def test_the_figure_names_models_objects_times_and_each_maps_scale(samples, tmp_path, drawn):
    maps = {"before": [torch.full((2, 6, 6), 1 / 72)] * 4, "after": [found(s, 0.8) for s in samples]}
    figure = drawn(tmp_path / "a.png", samples, titles_of(samples), maps)
    texts = [text.get_text() for text in figure.texts]
    for expected in ("clip", "before", "after", "0.0 s", "1.0 s", *titles_of(samples)):
        assert expected in [text.replace("\n", " ") for text in texts], expected
    assert texts.count("max 1.4 %") == 4
    highest = [f"max {100 * float(heat.max()):.1f} %" for heat in maps["after"]]
    assert all(text in texts for text in highest)
    assert any("from 0 to each map's maximum" in text for text in texts)
    panels = [axis for axis in figure.axes if axis.images]
    assert len(panels) == 4 * 3 * 2 + 1  # questions, clip and two models, steps; the colour bar
    assert figure.get_size_inches()[0] == pytest.approx(7.0, abs=0.1)


def test_faint_maps_are_as_bright_as_strong_ones(samples, tmp_path, drawn):
    heat = found(samples[0], 0.8)
    pictures = []
    for factor in (1.0, 0.05):
        figure = drawn(tmp_path / "a.png", samples[:1], ["a"], {"model": [heat * factor]})
        pictures.append([image.get_array() for axis in figure.axes for image in axis.images])
    assert all(np.abs(a.astype(int) - b.astype(int)).max() <= 1 for a, b in zip(*pictures))


@pytest.mark.parametrize("steps", [1, 5])
def test_any_number_of_steps_and_models_is_drawn(samples, tmp_path, drawn, steps):
    long = [replace(s, masks=None) for s in samples[:2]]
    maps = {name: [torch.rand(min(steps, 2), 6, 6) for _ in long] for name in "abcdef"[:steps]}
    figure = drawn(tmp_path / "a.png", long, ["$1", "$2"], maps)
    boxes = [axis.get_position() for axis in figure.axes]
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in boxes)


def test_the_animation_plays_every_question_for_as_long_as_its_clip(samples, tmp_path):
    maps = {"before": [torch.full((2, 6, 6), 1 / 72)] * 4, "after": [found(s, 0.8) for s in samples]}
    animate_maps(tmp_path / "o.webp", samples, maps)
    assert (tmp_path / "o.webp").stat().st_size < 1.5e6
    with Image.open(tmp_path / "o.webp") as picture:
        assert picture.n_frames == sum(sample.clip.total for sample in samples) and picture.info["loop"] == 0
        durations, frames = [], []
        for number in range(picture.n_frames):
            picture.seek(number)
            frames.append(np.asarray(picture.convert("RGB")).astype(int))
            durations.append(picture.info["duration"])
    assert set(durations) == {1000 / samples[0].clip.fps}
    before, after = frames[0][80:, :280], frames[0][80:, 284:564]
    assert np.abs(before - after).max() > 100
    assert len({frame[:46].tobytes() for frame in frames}) == 4  # the question stands above its clip
