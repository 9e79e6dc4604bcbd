"""JSON files to records: lists and lines, gzipped or not, and everything that can be wrong with them."""

import gzip
import hashlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swim.data import streaming
from swim.data.streaming import ENDINGS, file_ending, stream_records
from swim.errors import DataError, Reason

RECORDS = [
    {"index": n, "text": '狗🐶\u2028\n"\\', "numbers": [1, 1.0, -0.5, 1e-7, 2**63 - 1], "none": None} for n in range(5)
]


def encoded(records: list, ending: str) -> bytes:
    if ending.startswith(".jsonl"):
        content = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    else:
        content = json.dumps(records, indent=1).encode()
    return gzip.compress(content) if ending.endswith(".gz") else content


def file_of(folder: Path, content: bytes, ending: str = ".json") -> Path:
    path = folder / f"records{ending}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_of_file_gives_the_same_records_and_shows_all_its_bytes(tmp_path, ending):
    content = encoded(RECORDS, ending)
    digest = hashlib.sha256()
    found = list(stream_records(file_of(tmp_path, content, ending), digest.update))
    assert found == RECORDS
    assert [[type(number) for number in record["numbers"]] for record in found] == [[int, float, float, float, int]] * 5
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=4))
def test_lists_and_lines_agree_with_the_json_module(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("any")
    for ending in (".json", ".jsonl"):
        found = list(stream_records(file_of(folder, encoded(records, ending), ending)))
        assert json.dumps(found) == json.dumps(records)  # also tells 1 from 1.0 and 0.0 from -0.0


def test_endings():
    assert file_ending(Path("a/B.JSON.gz")) == ".json.gz" and file_ending(Path("a.b.jsonl")) == ".jsonl"
    with pytest.raises(DataError, match=r"^a.csv: expected a file that ends in .json, .jsonl, .json.gz, .jsonl.gz"):
        file_ending(Path("a.csv"))


def test_white_space_lines_and_gzip_members(tmp_path):
    assert list(stream_records(file_of(tmp_path, b' \n [ \n{"a": 1} ] \n'))) == [{"a": 1}]
    assert list(stream_records(file_of(tmp_path, b'\n{"a": 1}\r\n  \n{"a": 2}', ".jsonl"))) == [{"a": 1}, {"a": 2}]
    assert (
        list(stream_records(file_of(tmp_path, b"", ".jsonl"))) == list(stream_records(file_of(tmp_path, b"[]"))) == []
    )
    members = gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n')
    assert list(stream_records(file_of(tmp_path, members, ".jsonl.gz"))) == [{"a": 1}, {"a": 2}]


GOOD = b'{"a": 1}'
# content, ending -> records before the error, and what it says
BAD = {
    "cut off": (b"[" + GOOD + b', {"a": ', ".json", 1, "record 1: malformed JSON .*premature EOF: is the file complete"),
    "empty": (b"", ".json", 0, "record 0: malformed JSON .*premature EOF"),
    "text behind the list": (b"[" + GOOD + b"] x", ".json", 1, "record 1: malformed JSON .*trailing garbage"),
    "comma": (b"[" + GOOD + b",]", ".json", 1, "record 1: malformed JSON"),
    "an object": (GOOD, ".json", 0, "found an object; a file of one record per line is a .jsonl"),
    "an object called item": (b'{"item": {}}', ".json", 0, "expected a JSON list"),
    "a number": (b"3", ".json", 0, "record 0: expected a JSON list of records, found .3"),
    "a number in the list": (b"[" + GOOD + b", 3]", ".json", 1, "record 1: expected an object, found int"),
    "a list in the list": (b"[[]]", ".json", 0, "record 0: expected an object, found list"),
    "a list as a line": (b"[]", ".jsonl", 0, "record 0: expected an object, found list"),
    "no UTF-8": (b"[" + GOOD + b', {"a": "\xff"}]', ".json", 1, "record 1: malformed JSON .*UTF8"),
    "no UTF-8 line": (GOOD + b'\n{"a": "\xff"}', ".jsonl", 1, "record 1: malformed JSON in line 2: .*utf-8"),
    "NaN": (b"[" + GOOD + b', {"a": NaN}]', ".json", 1, "record 1: malformed JSON"),
    "NaN in a line": (GOOD + b'\n\n{"a": NaN}', ".jsonl", 1, "record 1: malformed JSON in line 3: NaN is no JSON"),
    "key twice": (b"[" + GOOD + b', {"a": {"b": 1, "b": 1}}]', ".json", 1, "record 1: .*the key 'b' twice in one object"),
    "key twice in a line": (GOOD + b'\n{"b": 1, "b": 1}', ".jsonl", 1, "record 1: .*line 2: the key 'b' twice in one object"),
    "two lines in one": (GOOD + GOOD, ".jsonl", 0, "record 0: malformed JSON in line 1: Extra data"),
    "deep": (b'{"a":' + b"[" * 100_000, ".jsonl", 0, "record 0: malformed JSON in line 1: "),
    "too large an integer": (b'[{"a": 9223372036854775808}]', ".json", 0, "record 0: .*integer overflow"),
    "no gzip": (b"[" + GOOD + b"]", ".json.gz", 0, "record 0: truncated or damaged gzip"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_and_the_records_before_come_first(tmp_path, name):
    content, ending, before, message = BAD[name]
    found = []
    with pytest.raises(DataError, match=message) as error:
        for record in stream_records(file_of(tmp_path, content, ending)):
            found.append(record)
    assert found == [{"a": 1}] * before
    assert error.value.where == f"{tmp_path}/records{ending}, record {before}"


def test_every_cut_of_a_gzip_file_is_an_error(tmp_path):
    content = gzip.compress(json.dumps(RECORDS).encode())
    for length in range(len(content)):
        with pytest.raises(DataError) as error:
            list(stream_records(file_of(tmp_path, content[:length], ".json.gz")))
        assert error.value.reason is (Reason.UNREADABLE if length else Reason.MALFORMED)


def test_the_record_number_is_exact_whatever_the_blocks(tmp_path, monkeypatch):
    content = json.dumps([{"n": n} for n in range(50)])[:-1].encode() + b", oops]"
    for size in (1, 7, 64, 10_000):
        monkeypatch.setattr(streaming, "_BLOCK_BYTES", size)
        with pytest.raises(DataError, match="record 50: malformed JSON"):
            list(stream_records(file_of(tmp_path, content)))


def test_an_endless_line_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_LONGEST_LINE_BYTES", 100)
    with pytest.raises(DataError, match="record 1: line 2 is longer than 100 bytes; is the file a .json list"):
        list(stream_records(file_of(tmp_path, GOOD + b"\n" + b" " * 200, ".jsonl")))


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(DataError, match="none.json: no such file; fix json_path") as error:
        list(stream_records(tmp_path / "none.json"))
    assert error.value.reason is Reason.MISSING
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match="folder.json: cannot be read: Is a directory") as error:
        list(stream_records(tmp_path / "folder.json"))
    assert error.value.reason is Reason.UNREADABLE


def test_floats_are_the_nearest_doubles(tmp_path):
    texts = ["0.1", "123456789.123456789", "5e-324", "1.7976931348623157e308", "2.5e0", "-0.0"]
    content = ('[{"a": [' + ",".join(texts) + "]}]").encode()
    (record,) = stream_records(file_of(tmp_path, content))
    assert record["a"] == [float(text) for text in texts] and math.copysign(1, record["a"][-1]) == -1


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".json.gz", ".jsonl.gz"])
def test_a_byte_order_mark_is_passed_over(tmp_path, ending):
    text = json.dumps(RECORDS) if "jsonl" not in ending else "".join(json.dumps(record) + "\n" for record in RECORDS)
    content = b"\xef\xbb\xbf" + text.encode()
    (tmp_path / f"marked{ending}").write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    assert list(stream_records(tmp_path / f"marked{ending}")) == RECORDS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_another_encoding_is_named(tmp_path, encoding, ending):
    path = tmp_path / f"records{ending}"
    path.write_text('[{"index": "a"}]' if ending == ".json" else '{"index": "a"}\n', encoding=encoding)
    with pytest.raises(DataError, match=r"expected UTF-8, found UTF-(16|32).*; save the file as UTF-8"):
        list(stream_records(path))


HALVES = {
    r"a \ud83d b": "a \ufffe b",
    r"\ude00": "\ufffe",
    r"\ud83d\ude00": "😀",
    r"\uD83D\uDE00\ud83d": "😀\ufffe",
    r"\ud83d\u0041": "\ufffeA",
    r"\ud83d\ud83d\ude00": "\ufffe😀",
    r"\\ud83d": r"\ud83d",
    r"\\\ud83d": "\\\ufffe",
    r"\n\"\u00e9\\": '\n"é\\',
}


@pytest.mark.parametrize("written", HALVES)
def test_half_a_character_in_a_list_is_marked_wherever_a_block_ends(tmp_path, monkeypatch, written):
    """yajl makes a question mark of it; blocks of every length cut the escapes at every place."""
    path = tmp_path / "halves.json"
    path.write_text('[{"a": "' + written + '", "b": "' + written * 3 + '"}, {"a": "😀"}]', encoding="utf-8")
    for block_bytes in range(1, 40):
        monkeypatch.setattr(streaming, "_BLOCK_BYTES", block_bytes)
        assert list(stream_records(path)) == [{"a": HALVES[written], "b": HALVES[written] * 3}, {"a": "😀"}]
