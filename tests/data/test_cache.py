"""Things made from files: once per content, by one of many processes, and never half."""

import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import socket
import time
from pathlib import Path

import pytest

from swim.data.cache import ContentCache
from swim.errors import DataError, Reason

HOUR_NS = 3600 * 10**9


class Copies:
    """A cache whose builds copy the file; `built` holds one entry for each, whichever process it was."""

    def __init__(self, root: Path, seconds: float = 0.0):
        self.cache = ContentCache(root / "cache", self.copy)
        self.log = root / "log"
        self.seconds = seconds

    def copy(self, path: Path, folder: Path) -> str:
        with self.log.open("a") as log:
            log.write(f"{path.name}\n")
        content = path.read_bytes()
        time.sleep(self.seconds)
        (folder / "copy").write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def find(self, path: Path, suffix: str = "-v1") -> bytes:
        folder, sha256 = self.cache.find(path, suffix)
        content = (folder / "copy").read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        return content

    @property
    def built(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def copies(tmp_path):
    return Copies(tmp_path)


def written(path: Path, content: bytes, age_ns: int = HOUR_NS) -> Path:
    path.write_bytes(content)
    changed = time.time_ns() - age_ns
    os.utime(path, ns=(changed, changed))
    return path


def leftovers(copies: Copies) -> list[str]:
    return sorted(path.name for path in (copies.cache.root / "building").iterdir())


def test_a_file_is_read_once(copies, tmp_path, monkeypatch):
    path = written(tmp_path / "a", b"one")
    assert copies.find(path) == b"one" and copies.built == ["a"]
    monkeypatch.setattr("swim.data.cache._hash", None)  # not even for its hash
    assert copies.find(path) == b"one" and copies.built == ["a"]
    monkeypatch.chdir(tmp_path)
    assert copies.find(Path("a")) == b"one" and copies.built == ["a"]


@pytest.mark.parametrize("change", ["content and time", "size", "another file in its place"])
def test_changed_content_is_noticed(copies, tmp_path, change):
    path = written(tmp_path / "a", b"one")
    copies.find(path)
    before = path.stat()
    if change == "another file in its place":
        os.replace(written(tmp_path / "b", b"two"), path)
    else:
        path.write_bytes(b"two" if change == "content and time" else b"longer")
    if change != "content and time":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert copies.find(path) == path.read_bytes() != b"one" and copies.built == ["a", "a"]


def test_a_change_within_one_tick_of_the_clock_is_noticed(copies, tmp_path):
    path = written(tmp_path / "a", b"one", age_ns=0)
    before = path.stat()
    copies.find(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert copies.find(path) == b"two"


def test_equal_content_is_built_once_and_another_suffix_is_another_thing(copies, tmp_path):
    for name in ("a", "b"):
        assert copies.find(written(tmp_path / name, b"one")) == b"one"
    assert copies.built == ["a"]
    os.utime(tmp_path / "a")  # touched: read for its hash, not built
    assert copies.find(tmp_path / "a") == b"one" and copies.built == ["a"]
    assert copies.find(written(tmp_path / "c", b"two")) == b"two" and copies.built == ["a", "c"]
    assert copies.find(tmp_path / "a", "-v2") == b"one" and copies.built == ["a", "c", "a"]


@pytest.mark.parametrize("damage", ["cut", "missing", "no meta", "half a meta", "half a memo", "foreign memo"])
def test_damage_from_outside_is_repaired(copies, tmp_path, damage):
    path = written(tmp_path / "a", b"one")
    folder, _ = copies.cache.find(path, "-v1")
    (memo,) = (copies.cache.root / "known").iterdir()
    harm = {
        "cut": lambda: (folder / "copy").write_bytes(b"o"),
        "missing": lambda: (folder / "copy").unlink(),
        "no meta": lambda: (folder / "meta.json").unlink(),
        "half a meta": lambda: (folder / "meta.json").write_text('{"source_'),
        "half a memo": lambda: memo.write_text(memo.read_text()[:-9]),
        "foreign memo": lambda: memo.write_text("[]"),
    }
    harm[damage]()
    assert copies.find(path) == b"one"
    assert copies.built == ["a"] * (1 if "memo" in damage else 2) and leftovers(copies) == []


def test_processes_that_come_together_build_once(tmp_path):
    copies, path = Copies(tmp_path, seconds=0.5), written(tmp_path / "a", b"one")
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=copies.find, args=(path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4 and copies.built == ["a"]


def test_without_locks_it_is_still_right(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path, first, second = written(tmp_path / "a", b"one"), Copies(tmp_path), Copies(tmp_path)

    def overtaken(path: Path, folder: Path) -> str:
        assert second.find(path) == b"one"  # a whole other build, from here to the end
        return first.copy(path, folder)

    first.cache.build = overtaken
    assert first.find(path) == b"one" and first.built == ["a", "a"] and leftovers(first) == []


def test_a_failed_build_leaves_nothing(copies, tmp_path):
    path = written(tmp_path / "a", b"one")

    def fail(path: Path, folder: Path) -> str:
        copies.copy(path, folder)
        raise DataError("bad")

    good, copies.cache.build = copies.cache.build, fail
    for _ in range(2):
        with pytest.raises(DataError, match="bad"):
            copies.find(path)
    assert leftovers(copies) == [] and not list(copies.cache.root.glob("*-v1"))
    copies.cache.build = good
    assert copies.find(path) == b"one"


def test_a_file_that_changes_while_it_is_read_is_refused(copies, tmp_path):
    path = written(tmp_path / "a", b"one")

    def slow(path: Path, folder: Path) -> str:
        sha256 = copies.copy(path, folder)
        path.write_bytes(b"other")
        return sha256

    good, copies.cache.build = copies.cache.build, slow
    with pytest.raises(DataError, match="a: the file changed while it was read; rerun once nothing is writing to it"):
        copies.find(path)
    copies.cache.build = good
    assert copies.find(path) == b"other"


def test_a_missing_file_is_named(copies, tmp_path):
    with pytest.raises(DataError, match="none: no such file") as error:
        copies.find(tmp_path / "none")
    assert error.value.reason is Reason.MISSING


def test_what_killed_builds_left_is_removed(copies, tmp_path):
    path = written(tmp_path / "a", b"one")
    copies.find(path)
    building, locks = copies.cache.root / "building", copies.cache.root / "locks"
    (own,) = (lock.stem for lock in locks.iterdir())
    here, day = socket.gethostname(), 25 * HOUR_NS
    kept = [f"{'1' * 32}@{here}@0", f"{'2' * 32}@elsewhere@0"]  # at work: locked here, young on another host
    removed = [f"{own}@{here}@0", f"{'3' * 32}@{here}@0", f"{'4' * 32}@elsewhere@0", f"{own}@elsewhere@0"]
    for name in kept + removed:
        (building / name).mkdir()
        (building / name / "copy").touch()
    for name in removed[2:]:
        for old in (building / name / "copy", building / name):
            os.utime(old, ns=(0, time.time_ns() - day))
    with open(locks / f"{'1' * 32}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        copies.find(written(path, b"two"))
        assert leftovers(copies) == kept


def test_it_says_that_it_waits(tmp_path, monkeypatch, capsys):
    copies, path = Copies(tmp_path), written(tmp_path / "a", b"one")
    copies.find(path)
    (lock,) = (copies.cache.root / "locks").iterdir()
    fork = multiprocessing.get_context("fork")
    held = fork.Event()

    def hold():
        with open(lock, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            held.set()
            time.sleep(0.5)

    process = fork.Process(target=hold)
    process.start()
    assert held.wait(10)
    monkeypatch.setattr("swim.data.cache._PATIENCE_S", 0.05)
    assert copies.find(written(path, b"two")) == b"two"
    process.join()
    assert "waiting for another process" in capsys.readouterr().err


def test_the_layout_of_the_folder(copies, tmp_path):
    folder, sha256 = copies.cache.find(written(tmp_path / "a", b"one"), ".json-v1")
    assert folder == tmp_path / "cache" / f"{hashlib.sha256(b'one').hexdigest()}.json-v1" and sha256 in folder.name
    assert json.loads((folder / "meta.json").read_text()) == {"source_bytes": 3, "sizes": {"copy": 3}}
    shutil.rmtree(tmp_path / "cache")  # a cache may go at any time
    assert copies.find(tmp_path / "a", ".json-v1") == b"one"
