"""The YAML mixture: which records of which files."""

import json
from pathlib import Path

import pytest
import yaml

from swim.data.errors import DataError
from swim.data.mixture import load_mixture, select


def test_strategies():
    assert select(4, "all") == [0, 1, 2, 3]
    assert select(10, "first:3") == [0, 1, 2]
    assert select(10, "end:20%") == [8, 9]
    assert select(10, "first:0") == []
    assert select(10, "first:100%") == list(range(10))
    assert select(7, "end:1") == [6]
    assert select(1000, "first:0.5%") == [0, 1, 2, 3, 4]
    assert select(0, "all") == []


def test_a_random_choice_depends_on_the_seed_alone():
    one, again, other = (select(1000, "random:10%", seed) for seed in (1, 1, 2))
    assert one == again == sorted(set(one)) and len(one) == 100 and set(one) <= set(range(1000))
    assert other != one and len(other) == 100
    assert select(5, "random:5") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("strategy", ["", "half", "first", "first:", "first:-1", "last:3", "first:1.5", "random:%", "all:3", "first:3 "])
def test_unknown_strategies_are_errors(strategy):
    with pytest.raises(DataError, match="sampling_strategy: expected all, first:N, end:N or random:N"):
        select(10, strategy)


@pytest.mark.parametrize("strategy", ["first:11", "end:11", "random:11", "first:120%"])
def test_more_than_there_are_is_an_error(strategy):
    with pytest.raises(DataError, match="asks for 1[12] records of a file with 10"):
        select(10, strategy)


@pytest.fixture
def folder(tmp_path):
    """config/mix.yaml beside data/a.json and data/b.json, of 4 and 3 records."""
    for name, count in (("a", 4), ("b", 3)):
        path = tmp_path / "data" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([{"index": f"{name}{n}", "text": "狗🐶"} for n in range(count)], ensure_ascii=False), "utf-8")
    (tmp_path / "config").mkdir()
    return tmp_path


def written(folder, content) -> Path:
    path = folder / "config" / "mix.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    return path


def test_relative_paths_are_relative_to_the_yaml(folder, monkeypatch):
    sources = [
        {"json_path": "../data/a.json", "data_root": "../clips", "sampling_strategy": "end:50%"},
        {"json_path": "../data/b.json"},
    ]
    path = written(folder, {"datasets": sources})
    monkeypatch.chdir(folder / "data")
    dataset = load_mixture(path)
    assert dataset.column_names == ["record", "where", "data_root"]
    assert [json.loads(record)["index"] for record in dataset["record"]] == ["a2", "a3", "b0", "b1", "b2"]
    assert json.loads(dataset["record"][0]) == {"index": "a2", "text": "狗🐶"}
    config = folder / "config"
    assert dataset["where"][:3] == [f"{config}/../data/a.json, record {n}" for n in (2, 3)] + [f"{config}/../data/b.json, record 0"]
    assert [Path(root).resolve() for root in dataset["data_root"]] == [folder / "clips"] * 2 + [config] * 3


def test_an_absolute_path_stays(folder):
    path = written(folder, {"datasets": [{"json_path": str(folder / "data/a.json"), "data_root": "/clips"}]})
    assert set(load_mixture(path)["data_root"]) == {"/clips"}


def test_the_seed_reaches_the_choice(folder):
    path = written(folder, {"datasets": [{"json_path": "../data/a.json", "sampling_strategy": "random:2"}]})
    chosen = {tuple(load_mixture(path, seed)["record"]) for seed in range(20)}
    assert len(chosen) > 1 and tuple(load_mixture(path, 3)["record"]) == tuple(load_mixture(path, 3)["record"])


BAD = {
    "malformed YAML": ("datasets: [", "mix.yaml: malformed YAML"),
    "empty": ("", "mix.yaml: the file: .*expected datasets"),
    "a list": ("- a", "mix.yaml: the file: "),
    "no datasets": ("other: 1", "mix.yaml: datasets: Field required"),
    "unknown top key": ("datasets: []\nseed: 1", "mix.yaml: seed: Extra inputs are not permitted"),
    "unknown key": ("datasets: [{json_path: ../data/a.json, data_roots: .}]", "mix.yaml: datasets.0.data_roots: Extra inputs"),
    "no json_path": ("datasets: [{data_root: .}]", "mix.yaml: datasets.0.json_path: Field required"),
    "no records": ("datasets: []", "mix.yaml: the mixture selects no record"),
    "nothing chosen": ('datasets: [{json_path: ../data/a.json, sampling_strategy: "first:0"}]', "selects no record"),
    "missing file": ("datasets: [{json_path: ../data/c.json}]", "data/c.json: no such file; fix json_path"),
    "unknown strategy": ("datasets: [{json_path: ../data/a.json, sampling_strategy: some}]", "sampling_strategy: .*found 'some'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations_are_named(folder, name):
    content, message = BAD[name]
    with pytest.raises(DataError, match=message):
        load_mixture(written(folder, content))


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(DataError, match="none.yaml: no such data config"):
        load_mixture(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{", "a.json: malformed JSON"),
        (b"", "a.json: malformed JSON"),
        (b"[\xff]", "a.json: malformed JSON"),
        (b'{"a": 1}', "a.json: expected a JSON list of records, found dict"),
    ],
)
def test_bad_json_is_named(folder, content, message):
    (folder / "data" / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_mixture(written(folder, {"datasets": [{"json_path": "../data/a.json"}]}))
