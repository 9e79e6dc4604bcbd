"""Files that survive a kill, and what is said of one that cannot be read."""

import errno
import os
from pathlib import Path

import pytest

from swim.construct.from_masks import read_csv
from swim.construct.mask_files import VideoFacts, read_masks
from swim.data.bench import parse_bench_q
from swim.data.index import open_index
from swim.data.mixture import check_sources, load_annotated, load_mixture
from swim.data.settings import READING_FILE, find_reading
from swim.data.skip_list import SkipList
from swim.data.streaming import stream_records
from swim.errors import DataError, Reason
from swim.eval.items import read_items
from swim.files import (
    append_json_lines,
    cannot_read,
    human_bytes,
    read_json_lines,
    whole_or_not_there,
    write_atomically,
)
from swim.infer.questions import read_questions
from swim.lmms_tasks.__main__ import prepare_items


def test_a_torn_line_harms_no_other(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_json_lines(path, [{"a": 1}, {"b": "\n"}])
    append_json_lines(path, [{"c": 3}])
    assert path.read_text() == '{"a": 1}\n{"b": "\\n"}\n{"c": 3}\n'
    path.write_bytes(path.read_bytes()[:-4])
    append_json_lines(path, [{"d": 4}])
    assert list(read_json_lines(path)) == [{"a": 1}, {"b": "\n"}, {"d": 4}]
    assert list(read_json_lines(tmp_path / "none.jsonl")) == []


def test_a_file_is_as_before_until_it_is_whole(tmp_path):
    path = tmp_path / "records.json"
    write_atomically(path, "old")
    with pytest.raises(OSError, match="disk full"), whole_or_not_there(path) as draft:
        draft.write_text("ne")
        raise OSError("disk full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with whole_or_not_there(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_whole_or_not_there(tmp_path):
    path = tmp_path / "frames"
    with pytest.raises(OSError, match="disk full"), whole_or_not_there(path) as draft:
        draft.mkdir()
        (draft / "0.png").write_bytes(b"0")
        raise OSError("disk full")
    assert list(tmp_path.iterdir()) == []
    with whole_or_not_there(path) as draft:
        draft.mkdir()
        (draft / "0.png").write_bytes(b"0")
    assert [entry.name for entry in path.iterdir()] == ["0.png"]


def test_sizes_are_read_at_a_glance():
    assert [human_bytes(count) for count in (0, 2_340, 56_000_000, 1.5e12)] == [
        "0.0 kB",
        "2.3 kB",
        "56.00 MB",
        "1,500.00 GB",
    ]


# ----------------------------------------------------------------------------------------------------------------------
# Files that a disk, a pipe or a folder gives
# ----------------------------------------------------------------------------------------------------------------------


def read_as_lmms_items(path: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDEOREFER_BENCH_Q", str(path))
        prepare_items("videorefer_bench_q", path.parent)


def read_as_mixture(path: Path):
    (path.parent / "mixture.yaml").write_text(f"datasets: [{{json_path: {path.name}}}]")
    load_mixture(path.parent / "mixture.yaml")


# name: (what reads it, the file's name)
READERS = {
    "records": (lambda path: list(stream_records(path)), "records.json"),
    "records line by line": (lambda path: list(stream_records(path)), "records.jsonl.gz"),
    "the index": (open_index, "records.json"),
    "a file of a mixture": (read_as_mixture, "records.json"),
    "an evaluation file": (load_annotated, "records.json"),
    "a data config": (load_mixture, "mixture.yml"),
    "a data config that is only checked": (check_sources, "mixture.yml"),
    "a skip list": (SkipList.read, "skip.jsonl"),
    "bench items": (lambda path: read_items(path, None, parse_bench_q), "bench.json"),
    "bench items for lmms-eval": (read_as_lmms_items, "bench.json"),
    "questions": (read_questions, "questions.jsonl"),
    "masks in JSON": (lambda path: read_masks(path, VideoFacts(9, 56, 84)), "masks.json"),
    "a mask picture": (lambda path: read_masks(path.parent, VideoFacts(9, 56, 84)), "00000.png"),
    "a mask picture of an object": (lambda path: read_masks(path.parent, VideoFacts(9, 56, 84)), "00000_mask_1.png"),
    "phrases": (lambda path: read_csv(str(path), "phrase"), "phrases.csv"),
    "how a model was trained": (lambda path: find_reading(path.parent), READING_FILE),
}
NOT_THERE = {"how a model was trained"}  # what is no file there is as good as none


def _unreadable(path: Path):
    path.write_text("x")
    path.chmod(0)


# name: (how the path is made, what is said, its reason)
FAULTS = {
    "no answer from the disk": (lambda path: path.symlink_to("/proc/self/mem"), "Input/output error", Reason.NOT_READ),
    "a pipe that nobody fills": (os.mkfifo, "found a pipe or device", Reason.UNREADABLE),
    "a device that never ends": (
        lambda path: path.symlink_to("/dev/zero"),
        "found a pipe or device",
        Reason.UNREADABLE,
    ),
    "a folder": (Path.mkdir, "Is a directory", Reason.UNREADABLE),
    "a loop": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links", Reason.UNREADABLE),
    "another user's": (_unreadable, "Permission denied; let this user read it", Reason.UNREADABLE),
}


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", READERS)
def test_a_file_that_cannot_be_read_is_named_with_the_cause(tmp_path, name, fault):
    if fault == "another user's" and os.geteuid() == 0:
        pytest.skip("root may read every file")
    (read, file_name), (make, message, reason) = READERS[name], FAULTS[fault]
    path = tmp_path / "data" / file_name
    path.parent.mkdir()
    make(path)
    if name in NOT_THERE and fault not in ("no answer from the disk", "another user's"):
        assert read(path) is None
        return
    if name == "masks in JSON" and fault not in ("no answer from the disk", "another user's"):
        message, reason = "expected a folder of PNGs or a .json file|no masks here", Reason.MISSING
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.where == str(path) and len(str(caught.value).splitlines()) == 1
    assert any(words in caught.value.message for words in message.split("|"))
    assert caught.value.reason is reason
    if reason is Reason.NOT_READ:
        assert "give the same command again, or copy the file to another disk" in caught.value.message


@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ETIMEDOUT", "EHOSTDOWN"])
def test_what_a_disk_or_network_may_yet_give_is_told_apart(name):
    """Of these a test can only make EIO."""
    number = getattr(errno, name)
    error = cannot_read(Path("a.json"), OSError(number, os.strerror(number)), "fix it")
    assert error.reason is Reason.NOT_READ and error.message.startswith(f"cannot be read: {os.strerror(number)}; give")


def test_a_disk_that_fails_while_a_known_file_is_hashed_is_not_the_caches_fault(tmp_path, monkeypatch):
    """A file as large as one that the cache knows is hashed first."""
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "empty.jsonl").touch()
    open_index(tmp_path / "empty.jsonl")  # as large as /proc/self/mem says it is
    (tmp_path / "bad.jsonl").symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match="bad.jsonl: cannot be read: Input/output error") as caught:
        open_index(tmp_path / "bad.jsonl")
    assert type(caught.value) is DataError and caught.value.reason is Reason.NOT_READ
