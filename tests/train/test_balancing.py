"""Sorting the samples of a step moves them between processes and micro-steps, and nothing else."""

import json

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler

from swim.cli.check import main as check
from swim.data.lengths import read_lengths
from swim.data.mixture import load_mixture
from swim.train.balancing import SortedSteps
from swim.train.config import ConfigError
from swim.train.run import train

from .conftest import SHARING, weights
from .processes import curve, run_killed, run_through

# 12 records: three steps of four samples an epoch, a checkpoint inside the second one.
EACH_BY_ITSELF = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 7, "save_steps": 2}


@pytest.fixture
def lengths(configure, tmp_path, demo_data):
    """lengths.json of the demo's records as `swim check` writes it, with lengths of many sizes in place of its own."""
    config = configure("checked")
    path = tmp_path / "checked.yaml"
    path.write_text(json.dumps(config.to_flat(), default=str))
    options = ["--train_config", str(path), "--workers", "0", "--output", str(tmp_path / "check")]
    assert check([str(demo_data.train_config), *options]) == 0
    path = tmp_path / "check" / "lengths.json"
    content = json.loads(path.read_text())
    for entry in content["files"].values():
        entry["tokens"] = [(37 * number) % 101 for number in range(len(entry["tokens"]))]
    path.write_text(json.dumps(content))
    return path


def assert_near(found: list[dict], expected: list[dict]):
    """The first step is equal but for the order of sums; Adam then divides by gradients' sizes, and rounding grows. Other
    samples in a step change its numbers by a tenth and more."""
    for entry, other in zip(found, expected, strict=True):
        assert entry == pytest.approx(other, rel=1e-4 if entry["step"] == 1 else 1e-2)


def test_each_step_keeps_its_samples_with_the_longest_first():
    lengths = [5, 1, 9, 3, 7, 2, 8, 4, 6, 0]
    ordered = SortedSteps(range(10), lengths, processes=1, accumulation=4)
    assert [lengths[row] for row in ordered] == [9, 5, 3, 1, 8, 7, 4, 2, 6, 0] and len(ordered) == 10


def test_processes_take_turns_with_the_longest():
    lengths = [5, 1, 9, 3, 7, 2, 8, 4, 6, 0]
    ordered = SortedSteps(range(10), lengths, processes=2, accumulation=3)
    assert [lengths[row] for row in ordered] == [9, 7, 3, 5, 2, 1, 8, 6, 0, 4]


def test_epochs_are_shuffled_as_without_it():
    def epochs(wrap):
        sampler = wrap(SeedableRandomSampler(range(12), generator=torch.Generator(), data_seed=3))
        orders = []
        for epoch in (0, 1, 5):
            sampler.set_epoch(epoch)
            orders.append(list(sampler))
        return orders

    plain = epochs(lambda sampler: sampler)
    assert plain[0] != plain[1] != plain[2]
    for order, sorted_order in zip(plain, epochs(lambda sampler: SortedSteps(sampler, list(range(12)), 1, 4))):
        steps = [order[first : first + 4] for first in (0, 4, 8)]
        assert sorted_order == [row for step in steps for row in sorted(step, reverse=True)]


def test_the_run_is_that_of_the_unsorted_samples_and_resumes_exactly(configure, lengths):
    """Loss, gradient and weights up to the order in which floats are added; the resumed log to the last digit."""
    plain, ours = configure("plain", **EACH_BY_ITSELF), configure("sorted", **EACH_BY_ITSELF, lengths=lengths)
    train(plain)
    train(ours)
    assert_near(curve(ours.output_dir), curve(plain.output_dir))
    got, wanted = weights(ours.output_dir), weights(plain.output_dir)
    for name, tensor in wanted.items():
        # Adam divides by the gradient's size: where that is near 0, rounding becomes a share of the learning rate (2e-3)
        torch.testing.assert_close(got[name], tensor, rtol=0, atol=1e-3, msg=name)
    broken = configure("broken", **EACH_BY_ITSELF, lengths=lengths)
    run_killed(broken, kills=1, seed=0)
    assert curve(broken.output_dir) == curve(ours.output_dir)


def test_micro_steps_of_all_processes_have_about_one_length(configure, make_trainer, lengths):
    config = configure(**EACH_BY_ITSELF)
    mixture = load_mixture(config.data_config)
    known = read_lengths(lengths, mixture)
    trainer = make_trainer(config)
    trainer.lengths = known
    loader = trainer.get_train_dataloader()
    rows = [row for batch in loader.batch_sampler for row in batch]
    steps = [[known[row] for row in rows[first : first + 4]] for first in range(0, len(rows), 4)]
    assert steps == [sorted(step, reverse=True) for step in steps] and len(set(map(tuple, steps))) > 1


@pytest.mark.slow
def test_two_processes_learn_the_same_sorted(configure, lengths):
    keys = {**EACH_BY_ITSELF, "gradient_accumulation_steps": 2, **SHARING["ZeRO-2"]}
    plain, ours = configure("plain", **keys), configure("sorted", **keys, lengths=lengths)
    run_through(plain, 2)
    run_through(ours, 2)
    assert_near(curve(ours.output_dir), curve(plain.output_dir))


def test_larger_micro_batches_are_refused(configure, lengths):
    with pytest.raises(ConfigError, match="lengths: sorting would .* set per_device_train_batch_size to 1"):
        configure(lengths=lengths, per_device_train_batch_size=2)
