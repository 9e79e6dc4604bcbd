"""Lengths of samples: what is written is read for the same contents, and a row without one is an error."""

import json

import pytest
import yaml

from swim.data.lengths import read_lengths, write_lengths
from swim.data.mixture import load_mixture
from swim.errors import DataError


@pytest.fixture
def mixture_of(tmp_path):
    """mixture_of(strategy, records) -> config of a file of so many records; the file is the same for the same number."""

    def make(strategy: str = "all", records: int = 5, name: str = "some"):
        turns = [{"from": "human", "value": "Hello."}, {"from": "gpt", "value": "Hello."}]
        (tmp_path / f"{name}.json").write_text(json.dumps([{"conversations": turns}] * records))
        config = tmp_path / f"{name}.yaml"
        source = {"json_path": f"{name}.json", "sampling_strategy": strategy, "weight": 2.0}
        config.write_text(yaml.safe_dump({"datasets": [source]}))
        return config

    return make


def test_a_length_goes_by_content_and_position(mixture_of, tmp_path):
    """A record that the mixture repeats has one length; the file may lie elsewhere, and less of it may be read."""
    path, mixture = tmp_path / "lengths.json", load_mixture(mixture_of())
    assert mixture.dataset["position"][:] == [0, 1, 2, 3, 4] * 2
    write_lengths(path, mixture, [10, 11, None, 13, 14] * 2)
    assert read_lengths(path, mixture) == [10, 11, 0, 13, 14] * 2
    elsewhere = load_mixture(mixture_of("end:2", name="elsewhere"))
    assert read_lengths(path, elsewhere) == [13, 14] * 2


def test_a_row_that_was_not_measured_is_named(mixture_of, tmp_path):
    path = tmp_path / "lengths.json"
    write_lengths(path, load_mixture(mixture_of("first:2")), [10, 11] * 2)
    with pytest.raises(DataError, match=r"some\.json, record 2 is not in it; check the mixture again"):
        read_lengths(path, load_mixture(mixture_of()))
    with pytest.raises(DataError, match=r"other\.json, record 0 is not in it"):
        read_lengths(path, load_mixture(mixture_of(records=6, name="other")))


@pytest.mark.parametrize("content", ["", "[]", '{"files": {"0": {"file": "a", "tokens": ["3"]}}}'])
def test_another_file_is_refused(mixture_of, tmp_path, content):
    path = tmp_path / "lengths.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"lengths\.json.*check the mixture again"):
        read_lengths(path, load_mixture(mixture_of()))


def test_no_file_is_one_clear_line(mixture_of, tmp_path):
    with pytest.raises(DataError, match="no such file of lengths"):
        read_lengths(tmp_path / "none.json", load_mixture(mixture_of()))
