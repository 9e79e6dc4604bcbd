"""The memory-mapped index of a JSON file: its rows, and that nothing that happens to a build can spoil it."""

import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swim.data import index
from swim.data.index import CacheError, open_index
from swim.data.records import parse_record
from swim.errors import DataError

RECORDS = [
    {"index": 0, "annotation": [{"0": {"segmentation": {"size": [2, 2], "counts": "\\_Z7"}}}], "text": "狗🐶"},
    {"id": "b", "own": [1, 1.0, None, True, {"annotation": 3}]},
    {"annotation": None},
    {"annotation": []},
    {},
]
PEAK = 'next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "index"


def written(path: Path, records: list = RECORDS) -> Path:
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    content = (lines if ".jsonl" in path.name else json.dumps(records)).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def large(path: Path, megabytes: int) -> Path:
    """A file of records of 28 KB, like those of the mixture."""
    rng = random.Random(0)
    frames = [json.dumps("".join(chr(rng.randrange(48, 112)) for _ in range(2700))) for _ in range(20)]
    with open(path, "w") as file:
        for number in range(megabytes * 1000 // 28):
            masks = (
                f'"{n}": {{"segmentation": {{"size": [720, 1280], "counts": {rng.choice(frames)}}}}}' for n in range(10)
            )
            file.write(f'{"," if number else "["}{{"index": {number}, "annotation": [{{{", ".join(masks)}}}]}}')
        file.write("]")
    return path


def child(code: str, *arguments, **options) -> subprocess.Popen:
    code = f"import sys, resource\nfrom swim.data.index import open_index\n{code}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], **pipes, **options)


def arrow_bytes(cache: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(cache.glob("*/records.arrow"))]


def test_rows(tmp_path):
    path = written(tmp_path / "a.json")
    found = open_index(path)
    assert found.path == path and found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {name: feature.dtype for name, feature in found.dataset.features.items()} == {
        "position": "int32", "record": "string", "annotation": "string",
    }  # fmt: skip
    assert found.dataset["position"][:] == [0, 1, 2, 3, 4]
    assert [json.loads(text) for text in found.dataset["record"]] == [
        {name: value for name, value in record.items() if name != "annotation"} for record in RECORDS
    ]
    assert found.dataset["annotation"][:] == [json.dumps(RECORDS[0]["annotation"]), "", "null", "[]", ""]


@pytest.mark.parametrize("ending", [".jsonl", ".json.gz", ".jsonl.gz"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, ending):
    one, other = (open_index(written(tmp_path / f"a{kind}")).dataset for kind in (".json", ending))
    assert one[:] == other[:]


def test_rows_are_mapped_and_travel_as_a_path(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(index, "_BATCH_RECORDS", 2)  # three batches
    dataset = open_index(written(tmp_path / "a.json")).dataset
    (file,) = dataset.cache_files
    assert Path(file["filename"]).parent.parent == cache and dataset.data.nbytes > 0
    assert [json.loads(dataset[n]["record"]).get("id") for n in (4, 1, 0)] == [None, "b", None]


def test_files_without_records(tmp_path):
    for name, content in {"a.json": "[]", "b.jsonl": "\n", "c.jsonl": ""}.items():
        (tmp_path / name).write_text(content)
        assert len(open_index(tmp_path / name).dataset) == 0


def test_the_same_bytes_under_another_ending_are_another_thing(tmp_path):
    line = tmp_path / "a.jsonl"
    line.write_text('{"a": 1}')
    open_index(line)
    line.rename(tmp_path / "a.json")
    with pytest.raises(DataError, match="a.json, record 0: expected a JSON list"):
        open_index(tmp_path / "a.json")


def test_bad_files_are_named_every_time_and_leave_nothing(tmp_path, cache):
    (tmp_path / "b.json").write_text('[{"a": 1}, {"a": ' + "[" * 2000 + "]" * 2000 + "}]")
    for name in ("b.json", "b.json"):
        with pytest.raises(DataError, match=f"{name}, record 1: cannot be kept as text"):
            open_index(tmp_path / name)
    assert arrow_bytes(cache) == [] and not list((cache / "building").iterdir())


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_half_a_character_is_a_fault_of_its_record_alone(tmp_path, ending):
    """The index holds the file; the record is refused when it is read, as others are that do not fit."""
    lines = ['{"a": "whole"}', '{"a": "half \\ud800 b"}', '{"a": "😀"}']
    text = "\n".join(lines) if ending == "jsonl" else f"[{','.join(lines)}]"
    (tmp_path / f"a.{ending}").write_text(text, encoding="utf-8")
    rows = [json.loads(row["record"])["a"] for row in open_index(tmp_path / f"a.{ending}").dataset]
    assert rows[0] == "whole" and rows[2] == "😀"
    with pytest.raises(DataError, match="half a character"):
        parse_record({"conversations": [], "a": rows[1]}, "a, record 1", tmp_path)


def test_a_killed_build_leaves_nothing_that_is_trusted(tmp_path, cache, monkeypatch):
    path = large(tmp_path / "a.json", megabytes=40)
    process = child("open_index(sys.argv[1])", path)
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size > 1 << 20 for file in cache.glob("building/*/records.arrow")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert arrow_bytes(cache) == [] and len(list((cache / "building").iterdir())) == 1
    again = open_index(path)
    assert not list((cache / "building").iterdir())
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "undisturbed"))
    undisturbed = open_index(path)
    assert (
        (again.sha256, len(again.dataset))
        == (undisturbed.sha256, len(undisturbed.dataset))
        == (again.sha256, 40_000 // 28)
    )
    assert arrow_bytes(cache) == arrow_bytes(tmp_path / "undisturbed" / "index") and len(arrow_bytes(cache)) == 1


def test_two_processes_that_come_together_build_once(tmp_path, cache):
    path = large(tmp_path / "a.json", megabytes=10)
    count = "from swim.data import index\nwrite = index._write_index\nindex._write_index = lambda *a: print('built') or write(*a)"
    processes = [child(f"{count}\nprint(len(open_index(sys.argv[1]).dataset))", path) for _ in range(2)]
    outputs = [process.communicate()[0].split() for process in processes]
    assert sorted(outputs) == [["357"], ["built", "357"]] and len(arrow_bytes(cache)) == 1


def test_memory_of_a_build_is_bounded(tmp_path):
    path = large(tmp_path / "a.json", megabytes=200)
    process = child(f"before = {PEAK}; open_index(sys.argv[1]); print(before, {PEAK})", path)
    before, peak = map(int, process.communicate()[0].split())
    assert path.stat().st_size > 190e6 and peak - before < 150e6


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    path = written(tmp_path / "a.json")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "file"))
    message = "^.*file/index: the index of .*a.json cannot be kept here: Not a directory; set SWIM_CACHE"
    with pytest.raises(CacheError, match=message):
        open_index(path)


def test_a_full_disk_is_named_and_what_was_written_goes(tmp_path, cache):
    path = large(tmp_path / "a.json", megabytes=5)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"  # a file may not grow further
    process = child(f"{limit}\nopen_index(sys.argv[1])", path)
    error = process.communicate()[1]
    assert (
        process.returncode == 1
        and "CacheError" in error.splitlines()[-1]
        and "set SWIM_CACHE to a folder with room" in error
    )
    assert not list((cache / "building").iterdir()) and arrow_bytes(cache) == []


def test_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("SWIM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    open_index(written(tmp_path / "a.json"))
    assert len(arrow_bytes(tmp_path / ".cache/swim/index")) == 1
    assert os.listdir(tmp_path / ".cache/swim") == ["index"]
