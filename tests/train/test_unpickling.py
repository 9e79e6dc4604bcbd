"""Nothing in a checkpoint that somebody hands over is run."""

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as distributed_checkpoint

from swim.cli import export
from swim.errors import DataError
from swim.train.checkpoints import MARKER, mark
from swim.train.unpickling import listed_classes_only

from .conftest import SHARING
from .processes import Launch, run_through


class Payload:
    """Whoever unpickles it makes the folder `path`."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def payload(tmp_path):
    """A payload; at the end of the test it must not have run."""
    yield Payload(tmp_path / "run_by_a_pickle")
    assert not (tmp_path / "run_by_a_pickle").exists()


@pytest.mark.parametrize("stage", ["ZeRO-2", "ZeRO-3"])
def test_crafted_shards_are_neither_exported_nor_resumed(configure, tmp_path, payload, capsys, stage):
    steps = {"max_steps": 2, "save_steps": 1, "save_total_limit": 2}
    config = configure(per_device_train_batch_size=2, **steps, **SHARING[stage])
    run_through(config)
    checkpoint = Path(config.output_dir) / "checkpoint-1"
    (checkpoint / "model.safetensors").unlink()
    assert export.main([str(checkpoint), "--output", str(tmp_path / "honest"), "--dtype", "float32"]) == 0
    (shard,) = checkpoint.glob("global_step1/*optim_states.pt")
    state = torch.load(shard, weights_only=False)
    state["optimizer_state_dict"]["note"] = payload
    torch.save(state, shard)
    capsys.readouterr()
    assert export.main([str(checkpoint), "--output", str(tmp_path / "crafted")]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: {shard}: its pickle asks for posix.mkdir, which no checkpoint needs")
    (checkpoint / MARKER).unlink()
    mark(checkpoint, 1)  # as whoever crafted it would
    shutil.rmtree(Path(config.output_dir) / "checkpoint-2")
    (Path(config.output_dir) / "finished.json").unlink()
    launch = Launch(config)
    assert launch.wait() == [1], launch.log[-3000:]
    assert f"error: {shard}: its pickle asks for posix.mkdir" in launch.log


def test_a_crafted_index_of_torchs_checkpoints_is_not_read(tmp_path, payload):
    distributed_checkpoint.save({"a": torch.ones(3), "b": {"c": 1}}, checkpoint_id=tmp_path / "sharded")
    with listed_classes_only(tmp_path):
        loaded = {"a": torch.zeros(3)}
        distributed_checkpoint.load(loaded, checkpoint_id=tmp_path / "sharded")
    assert loaded["a"].tolist() == [1, 1, 1]
    index = tmp_path / "sharded" / ".metadata"
    index.write_bytes(pickle.dumps({"state_dict_metadata": payload}))
    with pytest.raises(DataError) as error, listed_classes_only(tmp_path):
        pass
    assert str(error.value).startswith(f"{index}: its pickle asks for posix.mkdir")


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04."])
def test_an_index_that_is_none_is_named(tmp_path, content):
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(DataError, match=r"\.metadata: "), listed_classes_only(tmp_path):
        pass


def test_what_a_library_loads_without_asking_is_restricted_too(tmp_path, payload):
    torch.save({"x": payload}, tmp_path / "state.pt")
    with pytest.raises(DataError) as error, listed_classes_only(tmp_path):
        torch.load(tmp_path / "state.pt", weights_only=False)
    assert str(error.value).startswith(f"{tmp_path / 'state.pt'}: its pickle asks for posix.mkdir")
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
