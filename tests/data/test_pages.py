"""Pages of memory-mapped rows: read, and not kept."""

import ctypes
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import Dataset

from swim.data.pages import GiveBackPages

ROWS, ROW_BYTES = 2000, 20_000
READ = """
import random, sys
from datasets import Dataset
from swim.data.pages import GiveBackPages

dataset = Dataset.from_file(sys.argv[1])
if sys.argv[2] == "given back":
    dataset = dataset.with_transform(GiveBackPages([dataset]))
dataset[0]

def mapped():  # of the file, in bytes
    with open("/proc/self/smaps") as lines:
        found = False
        for line in lines:
            if "-" in line.split()[0]:
                found = line.rstrip().endswith(sys.argv[1])
            elif found and line.startswith("Rss:"):
                return int(line.split()[1]) * 1024

before = mapped()
for number in random.Random(0).sample(range(len(dataset)), len(dataset)):
    assert dataset[number]["text"] == dataset[number]["text"][:1] * 20_000
print(before, mapped())
"""


@pytest.fixture(scope="module")
def mapped(tmp_path_factory) -> Dataset:
    folder = tmp_path_factory.mktemp("pages") / "rows"
    Dataset.from_dict({"text": [chr(97 + n % 26) * ROW_BYTES for n in range(ROWS)]}).save_to_disk(folder)
    (file,) = folder.glob("*.arrow")
    return Dataset.from_file(str(file))


def test_a_reader_stays_as_small_as_it_began(mapped):
    file = mapped.cache_files[0]["filename"]
    sizes = {}
    for how in ("given back", "kept"):
        output = subprocess.run(
            [sys.executable, "-c", READ, file, how], check=True, capture_output=True, text=True
        ).stdout
        sizes[how] = [int(number) for number in output.split()]
    assert sizes["kept"][1] > 0.9 * ROWS * ROW_BYTES  # what happens without it
    assert sizes["given back"][1] <= 4 << 20


def test_rows_are_as_they_were(mapped):
    given_back = mapped.with_transform(GiveBackPages([mapped]))
    assert given_back[3] == mapped[3] and given_back[[1999, 0]] == mapped[[1999, 0]] and given_back[:2] == mapped[:2]
    assert [row["text"][0] for row in given_back.select([2, 1])] == ["c", "b"]


def test_it_names_the_mapping_of_the_file_and_nothing_else(mapped):
    transform = GiveBackPages([mapped, Dataset.from_dict({"text": ["in memory"]}), mapped.select([])])
    transform({})
    file = Path(mapped.cache_files[0]["filename"])
    mappings = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(file))]
    spans = [[int(address, 16) for address in fields[0].split("-")] for fields in mappings]
    assert len(transform._ranges) == 1
    (start, size_bytes), address = transform._ranges[0], mapped.data.column(0).chunk(0).buffers()[2].address
    assert [start, start + size_bytes] in spans and start <= address < start + size_bytes
    assert ctypes.string_at(address, 4) == b"aaaa"


def test_another_process_finds_its_own_mapping(mapped):
    transform = GiveBackPages([mapped])
    transform({})
    again = pickle.loads(pickle.dumps(transform))
    assert again._ranges is None and again({"a": 1}) == {"a": 1} and len(again._ranges) == 1
