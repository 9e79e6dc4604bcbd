"""A checkpoint is finished beside training, and what goes wrong with it is not lost."""

import errno
from threading import Event

import pytest

from swim.train import checkpoints
from swim.train.checkpoints import Checkpoints
from swim.train.faults import TrainingFault
from swim.train.run import train
from swim.train.trainer import LogShortRuns

KEYS = {"max_steps": 5, "save_steps": 2, "save_total_limit": 1, "logging_steps": 2}


def test_no_step_waits_for_the_disk(configure, monkeypatch):
    """The disk has the first checkpoint only after the next step has begun: were it waited for, no step would begin."""
    went_on, waited = Event(), []

    class Watch(LogShortRuns):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2:
                assert Checkpoints(args.output_dir).complete() == []
                went_on.set()

    monkeypatch.setattr(checkpoints, "to_disk", lambda path: waited.append(went_on.wait(60)))
    monkeypatch.setattr("swim.train.run.LogShortRuns", Watch)
    config = configure(**KEYS)
    train(config)
    assert waited and all(waited)
    assert [path.name for path in Checkpoints(config.output_dir).complete()] == ["checkpoint-5"]


@pytest.mark.parametrize("step", [2, 5])
def test_a_disk_that_fails_in_the_background_ends_the_run_with_its_name(configure, monkeypatch, step):
    """Found when the next checkpoint is saved, or at the end; the earlier one counts."""

    def fails(path):
        if f"checkpoint-{step}" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoints, "to_disk", fails)
    config = configure(**KEYS)
    with pytest.raises(TrainingFault, match=f"cannot save checkpoint-{step}: the disk is full"):
        train(config)
    complete = [path.name for path in Checkpoints(config.output_dir).complete()]
    assert complete == ([] if step == 2 else ["checkpoint-4"])
