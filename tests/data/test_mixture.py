"""The YAML mixture: which records of which files, how often, and how they come back."""

import gzip
import hashlib
import json
import pickle
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from swim.data.mixture import load_mixture, repeat, row_record, select
from swim.errors import DataError, Reason

RLE = {"size": [4, 4], "counts": [0, 16]}


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
    assert select(1000, "random:4", 7) == [154, 331, 404, 970]  # on every machine


@pytest.mark.parametrize(
    "strategy", ["", "half", "first", "first:", "first:-1", "last:3", "first:1.5", "random:%", "all:3", "first:3 "]
)
def test_unknown_strategies_are_errors(strategy):
    with pytest.raises(DataError, match="sampling_strategy: expected all, first:N, end:N or random:N"):
        select(10, strategy)


@pytest.mark.parametrize("strategy", ["first:11", "end:11", "random:11", "first:120%"])
def test_more_than_there_are_is_an_error(strategy):
    with pytest.raises(DataError, match="asks for 1[12] records of a file with 10"):
        select(10, strategy)


def test_weights():
    assert repeat([4, 7], 1.0) == [4, 7] and repeat([4, 7], 3.0) == [4, 7, 4, 7, 4, 7] and repeat([], 2.5) == []
    assert repeat([4, 7], 2.5, seed=1) in ([4, 7, 4, 7, 4], [4, 7, 4, 7, 7])
    assert repeat(list(range(1000)), 0.004, 7) == [154, 331, 404, 970]


@given(
    st.integers(0, 60),
    st.sampled_from(["all", "first:{}", "end:{}", "random:{}", "random:{}%"]),
    st.integers(0, 60),
    st.floats(0.01, 4.0),
    st.integers(0, 5),
)
def test_counts_and_order_of_any_choice(count, strategy, amount, weight, seed):
    amount = amount if "%" in strategy else min(amount, count)
    strategy = strategy.format(amount)
    chosen = select(count, strategy, seed)
    expected = {"a": count, "%": round(count * amount / 100)}.get("a" if strategy == "all" else strategy[-1], amount)
    assert len(chosen) == expected and chosen == sorted(set(chosen)) and set(chosen) <= set(range(count))
    rows = repeat(chosen, weight, seed)
    assert (chosen, rows) == (select(count, strategy, seed), repeat(chosen, weight, seed))
    assert abs(len(rows) - weight * len(chosen)) <= 0.5 + 1e-9
    repeats = Counter(rows)
    assert set(repeats) <= set(chosen) and set(repeats[position] - int(weight) for position in chosen) <= {0, 1}


def records_of(name: str, count: int) -> list[dict]:
    turns = [{"from": "human", "value": "<video>\nWhat is the <ins>狗🐶</ins>?"}, {"from": "gpt", "value": "A dog."}]
    annotation = [{"3": {"segmentation": RLE}}]
    return [
        {
            "index": f"{name}{n}",
            "video": f"{n}.mp4",
            "conversations": turns,
            **({"annotation": annotation} if n % 2 else {}),
        }
        for n in range(count)
    ]


@pytest.fixture
def folder(tmp_path):
    """config/mix.yaml beside data/a.json and data/b.json, of 4 and 3 records."""
    for name, count in (("a", 4), ("b", 3)):
        path = tmp_path / "data" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(records_of(name, count), ensure_ascii=False), "utf-8")
    (tmp_path / "config").mkdir()
    return tmp_path


def written(folder, content) -> Path:
    path = folder / "config" / "mix.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    return path


def mixed(folder, *sources, **options):
    return load_mixture(written(folder, {"datasets": list(sources)}), **options)


def names(mixture) -> list[str]:
    return [json.loads(record)["index"] for record in mixture.dataset["record"]]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_relative_paths_are_relative_to_the_yaml(folder, monkeypatch):
    monkeypatch.chdir(folder / "data")
    half = {"json_path": "../data/a.json", "data_root": "../clips", "sampling_strategy": "end:50%"}
    mixture = mixed(folder, half, {"json_path": "../data/b.json"})
    assert mixture.dataset.column_names == [
        "position",
        "record",
        "annotation",
        "file",
        "data_root",
        "folder_fps",
        "untrusted",
        "masks",
    ]
    assert names(mixture) == ["a2", "a3", "b0", "b1", "b2"]
    assert mixture.dataset["position"][:] == [2, 3, 0, 1, 2]
    config = folder / "config"
    assert mixture.dataset["file"][:] == [f"{config}/../data/a.json"] * 2 + [f"{config}/../data/b.json"] * 3
    assert [Path(root).resolve() for root in mixture.dataset["data_root"]] == [folder / "clips"] * 2 + [config] * 3


def test_a_row_becomes_its_record(folder):
    mixture = mixed(folder, {"json_path": "../data/a.json", "data_root": str(folder / "clips"), "folder_fps": 6})
    assert json.loads(mixture.dataset[1]["record"]) == {
        k: v for k, v in records_of("a", 2)[1].items() if k != "annotation"
    }
    assert [json.loads(text or "null") for text in mixture.dataset["annotation"][:2]] == [
        None,
        [{"3": {"segmentation": RLE}}],
    ]
    plain, supervised = (row_record(row) for row in mixture.dataset.select([0, 1]))
    assert supervised.where == f"{folder}/config/../data/a.json, record 1 (a1)"
    assert supervised.path == folder / "clips/1.mp4" and supervised.instances == [{3: RLE}]
    assert plain.instances == [] and supervised.turns[0].text == plain.turns[0].text == "What is the 狗🐶?"


def test_a_record_s_own_rate_wins(folder):
    (folder / "data/c.jsonl").write_text("".join(json.dumps(record) + "\n" for record in (
        records_of("c", 1)[0] | {"video": ["0.jpg", "1.jpg"], "fps": 12}, records_of("c", 1)[0] | {"video": "frames"},
    )))  # fmt: skip
    for keys, rates in ({}, [12.0, None]), ({"folder_fps": 6}, [12.0, 6.0]):
        mixture = mixed(folder, {"json_path": "../data/c.jsonl", **keys})
        assert [row_record(row).fps for row in mixture.dataset] == rates


def test_bad_records_are_named_when_their_row_is_read(folder):
    (folder / "data/c.json").write_text(json.dumps([{"id": "x"}]))
    (row,) = mixed(folder, {"json_path": "../data/c.json"}).dataset
    with pytest.raises(DataError, match=r"^.*data/c.json, record 0 \(x\): conversations: Field required") as error:
        row_record(row)
    assert error.value.reason is Reason.MALFORMED


def test_an_absolute_path_stays(folder):
    mixture = mixed(folder, {"json_path": str(folder / "data/a.json"), "data_root": "/clips"})
    assert set(mixture.dataset["data_root"]) == {"/clips"} and set(mixture.dataset["file"]) == {f"{folder}/data/a.json"}


def test_the_seed_reaches_the_choice(folder):
    path = written(
        folder, {"datasets": [{"json_path": "../data/a.json", "sampling_strategy": "random:2", "weight": 1.5}]}
    )
    chosen = {tuple(names(load_mixture(path, seed))) for seed in range(20)}
    assert len(chosen) > 3 and names(load_mixture(path, 3)) == names(load_mixture(path, 3))


def test_a_share_of_the_records_keeps_its_masks_and_all_keep_their_text(demo_data):
    whole, some = (load_mixture(demo_data.train_config, 1, mask_share=share) for share in (1.0, 0.3))
    records = [[row_record(row) for row in mixture.dataset] for mixture in (whole, some)]
    assert [[turn.text for turn in record.turns] for record in records[0]] == [
        [turn.text for turn in record.turns] for record in records[1]
    ]
    assert all(record.instances for record in records[0])
    assert sum(bool(record.instances) for record in records[1]) == round(0.3 * len(records[0]))
    drawn = {tuple(load_mixture(demo_data.train_config, seed, mask_share=0.3).dataset["masks"]) for seed in range(9)}
    assert len(drawn) > 3 and tuple(some.dataset["masks"]) in drawn
    assert not any(load_mixture(demo_data.train_config, mask_share=0.0).dataset["masks"])


def test_weights_repeat_what_the_strategy_takes(folder):
    some = {"json_path": "../data/a.json", "sampling_strategy": "first:2", "weight": 2.5}
    mixture = mixed(folder, some, {"json_path": "../data/b.json"})
    assert names(mixture)[:4] == ["a0", "a1", "a0", "a1"] and names(mixture)[4] in ("a0", "a1")
    assert names(mixture)[5:] == ["b0", "b1", "b2"]
    assert [(s.records, s.selected, s.weight) for s in mixture.sources] == [(4, 5, 2.5), (3, 3, 1.0)]


def test_patterns_take_files_in_order(folder):
    odd = folder / "data/[x]"
    odd.mkdir()
    for number in (10, 2, 1):
        (odd / f"part-{number}.json.gz").write_bytes(gzip.compress(json.dumps(records_of(f"p{number}-", 2)).encode()))
    mixture = mixed(folder, {"json_path": "../data/*/part-*.json.gz", "sampling_strategy": "end:1"})
    assert names(mixture) == ["p1-1", "p10-1", "p2-1"]
    (folder / "data/[ab].json").write_text(json.dumps(records_of("literal", 1)))
    assert names(mixed(folder, {"json_path": "../data/[ab].json"})) == ["literal0"]
    with pytest.raises(DataError, match=r"part-\*.json: no file fits this pattern; fix json_path") as error:
        mixed(folder, {"json_path": "../data/part-*.json"})
    assert error.value.reason is Reason.MISSING


def test_the_skip_list_goes_by_content(folder):
    hashes = {name: sha256_of(folder / f"data/{name}.json") for name in "ab"}
    entries = [(hashes["a"], 1), (hashes["a"], 1), (hashes["a"], 3), (hashes["b"], 2), ("0" * 64, 1)]
    skip_list = folder / "skip.jsonl"
    others = {"file": "elsewhere", "reason": "x"}
    skip_list.write_text("".join(json.dumps({"sha256": s, "position": p, **others}) + "\n" for s, p in entries))
    sources = [
        {"json_path": "../data/a.json", "sampling_strategy": "end:3", "weight": 2},
        {"json_path": "../data/b.json"},
    ]
    mixture = mixed(folder, *sources, skip_list=skip_list)
    assert names(mixture) == ["a2", "a2", "b0", "b1"]
    assert [(s.records, s.selected, s.skipped) for s in mixture.sources] == [(4, 2, 4), (3, 2, 1)]
    assert mixture.unmatched_skips == 1
    skip_list.write_text("".join(json.dumps({"sha256": hashes["b"], "position": n}) + "\n" for n in range(3)))
    assert names(mixed(folder, sources[1], {"json_path": "../data/a.json"}, skip_list=skip_list)) == [
        "a0",
        "a1",
        "a2",
        "a3",
    ]
    with pytest.raises(DataError, match="selects no record"):
        mixed(folder, sources[1], skip_list=skip_list)


def test_what_a_mixture_says_of_itself(folder):
    skip_list = folder / "skip.jsonl"
    skip_list.write_text(json.dumps({"sha256": "0" * 64, "position": 1}))
    mixture = mixed(
        folder, {"json_path": "../data/a.json", "weight": 0.5}, {"json_path": "../data/b.json"}, skip_list=skip_list
    )
    hashes = {name: sha256_of(folder / f"data/{name}.json") for name in "ab"}
    assert mixture.hashes == {f"{folder}/config/../data/{name}.json": hashes[name] for name in "ab"}
    told = json.loads(json.dumps(mixture.to_dict()))
    assert (told["rows"], told["unmatched_skips"], len(told["sources"])) == (5, 1, 2)
    assert told["sources"][0] == {
        "json_path": f"{folder}/config/../data/a.json", "data_root": f"{folder}/config", "records": 4, "selected": 2,
        "strategy": "all", "weight": 0.5, "folder_fps": None, "sha256": hashes["a"], "skipped": 0, "untrusted": False,
    }  # fmt: skip
    text = mixture.describe()
    assert "warning: entries of the skip list that belong to no file of this mixture: 1" in text
    assert (
        f"\n  {folder}/config/../data/a.json\n    2 rows of 4 records (all, weight 0.5), SHA-256 {hashes['a'][:12]}\n"
        in text
    )
    assert "together 5 rows of 2 files" in text and "untrusted" not in text


def test_rows_stay_mapped(folder):
    some = {"json_path": "../data/b.json", "sampling_strategy": "random:2"}
    mixture = mixed(folder, {"json_path": "../data/a.json", "weight": 1.5}, some)
    assert [Path(file["filename"]).name for file in mixture.dataset.cache_files] == ["records.arrow"] * 2
    again = pickle.loads(pickle.dumps(mixture.dataset))
    assert again[:] == mixture.dataset[:] and len(again) == 8


BAD = {
    "malformed YAML": ("datasets: [", "mix.yaml: malformed YAML"),
    "empty": ("", "mix.yaml: the file: .*expected datasets"),
    "a list": ("- a", "mix.yaml: the file: "),
    "no datasets": ("{}", "mix.yaml: datasets: Field required"),
    "unknown top key": ("datasets: []\nseed: 1", "mix.yaml: seed: unknown key"),
    "unknown key": ("datasets: [{json_path: ../data/a.json, data_roots: .}]", "mix.yaml: datasets.0.data_roots: unknown key; did you mean 'data_root'"),
    "no json_path": ("datasets: [{data_root: .}]", "mix.yaml: datasets.0.json_path: Field required"),
    "no weight": ("datasets: [{json_path: ../data/a.json, weight: 0}]", "mix.yaml: datasets.0.weight: .*greater than 0"),
    "negative weight": ("datasets: [{json_path: ../data/a.json, weight: -1}]", "datasets.0.weight: .*greater than 0"),
    "endless weight": ("datasets: [{json_path: ../data/a.json, weight: .inf}]", "datasets.0.weight: .*finite"),
    "no rate": ("datasets: [{json_path: ../data/a.json, folder_fps: 0}]", "datasets.0.folder_fps: .*greater than 0"),
    "no records": ("datasets: []", "mix.yaml: the mixture selects no record"),
    "nothing chosen": ('datasets: [{json_path: ../data/a.json, sampling_strategy: "first:0"}]', "selects no record"),
    "almost no weight": ("datasets: [{json_path: ../data/a.json, weight: 0.01}]", "selects no record"),
    "missing file": ("datasets: [{json_path: ../data/c.json}]", "data/c.json: no such file; fix json_path"),
    "another kind of file": ("datasets: [{json_path: mix.yaml}]", "mix.yaml: expected a file that ends in .json"),
    "unknown strategy": (
        "datasets: [{json_path: ../data/a.json}, {json_path: ../data/b.json, sampling_strategy: some}]",
        "mix.yaml: datasets.1: sampling_strategy: .*found 'some'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_configurations_are_named(folder, name):
    content, message = BAD[name]
    with pytest.raises(DataError, match=message):
        load_mixture(written(folder, content))


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(DataError, match="none.yaml: no such data config") as error:
        load_mixture(tmp_path / "none.yaml")
    assert error.value.reason is Reason.MISSING


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{", "a.json, record 0: malformed JSON"),
        (b"", "a.json, record 0: malformed JSON"),
        (b"[\xff]", "a.json, record 0: malformed JSON"),
        (b'{"a": 1}', "a.json, record 0: expected a JSON list of records, found an object"),
    ],
)
def test_bad_json_is_named(folder, content, message):
    (folder / "data" / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        mixed(folder, {"json_path": "../data/a.json"})


def test_the_mixtures_that_come_with_it_are_well_formed():
    for path in (Path(__file__).resolve().parents[2] / "data_config").glob("*.yaml"):
        with pytest.raises(DataError, match="no such file|no file fits this pattern"):  # the data is not part of it
            load_mixture(path)
