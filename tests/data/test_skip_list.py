"""The skip list: which lines it takes, and what it does not take."""

import json

import pytest

from swim.data.skip_list import SkipList
from swim.errors import DataError, Reason

ONE, TWO = "1" * 64, "2" * 64


def written(path, *entries):
    path.write_text(
        "".join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) + "\n" for line in entries)
    )
    return path


def test_positions_by_content(tmp_path):
    entry = {
        "sha256": ONE,
        "position": 3,
        "file": "a.json",
        "reason": "missing file",
        "message": "line\u2028end",
        "step": 7,
    }
    path = written(
        tmp_path / "skip.jsonl", entry, {"sha256": ONE, "position": 0}, "\n", entry, {"sha256": TWO, "position": 1}
    )
    skips = SkipList.read(path)
    assert skips.positions(ONE) == {0, 3} and skips.positions(TWO) == {1} and skips.positions("3" * 64) == set()
    assert skips.unmatched({ONE, TWO}) == 0 and skips.unmatched({TWO}) == 3 and skips.unmatched(set()) == 4


def test_none_skips_nothing():
    assert SkipList.read(None).positions(ONE) == set() and SkipList.read(None).unmatched(set()) == 0


BAD = {
    "no JSON": "{\n",
    "a list": "[]\n",
    "no hash": {"position": 1},
    "hash null": {"sha256": None, "position": 1},
    "hash of another kind": {"sha256": "1" * 40, "position": 1},
    "no position": {"sha256": ONE},
    "negative": {"sha256": ONE, "position": -1},
    "text": {"sha256": ONE, "position": "1"},
    "true": {"sha256": ONE, "position": True},
    "a fraction": {"sha256": ONE, "position": 1.5},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_named(tmp_path, name):
    path = written(tmp_path / "skip.jsonl", {"sha256": ONE, "position": 3}, "\n", BAD[name])
    with pytest.raises(DataError, match='skip.jsonl, line 3: .*expected {"sha256": hash of the JSON file, "position"'):
        SkipList.read(path)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(DataError, match="none.jsonl: no such skip list; fix skip_list") as error:
        SkipList.read(tmp_path / "none.jsonl")
    assert error.value.reason is Reason.MISSING
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff")
    with pytest.raises(DataError, match="bytes.jsonl: expected UTF-8, found"):
        SkipList.read(tmp_path / "bytes.jsonl")
