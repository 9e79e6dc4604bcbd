"""Caption files in the layouts of HC-STVG and Ref-L4, and a list of one's own."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swim.data.root import DataRoot
from swim.errors import DataError
from swim.eval.captioned import read_captions

PROMPT = "Describe the {subject} in the {visual}."


@pytest.fixture
def write(tmp_path):
    def write(content, name: str = "captions.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def questions(path, **more) -> dict[str, str]:
    return {key: item.asked(PROMPT).turns[0].text for key, item in read_captions(path, **more).items.items()}


def test_hc_stvg(write):
    tube = {"bbox": [[1, 2, 3, 4]], "img_num": 600, "st_time": 1.0, "ed_time": 2.5, "Chinese": "..."}
    path = write(
        {
            "a.mp4": {"English": "The bald man in the black suit walks to the door.", **tube},
            "b.mp4": {"English": "He gets up and walks to the bed.", **tube},
            "c.mp4": {"English": "The man walks.", "subject": "boy", **tube},
        }
    )
    assert questions(path) == {
        "a.mp4": "Describe the bald man in the video.",
        "b.mp4": "Describe the person in the video.",
        "c.mp4": "Describe the boy in the video.",
    }
    first = read_captions(path, limit=1).items
    assert list(first) == ["a.mp4"] and first["a.mp4"].video == path.parent / "a.mp4"
    assert first["a.mp4"].references == ("The bald man in the black suit walks to the door.",)


def test_ref_l4_rows_of_one_box_are_one_object(tmp_path):
    rows = [
        {
            "id": 7,
            "caption": "A red car at the kerb.",
            "bbox": [1.0, 2.0, 3.0, 4.0],
            "file_name": "x.jpg",
            "split": "val",
        },
        {"id": 8, "caption": "The parked car.", "bbox": [1.0, 2.0, 3.0, 4.0], "file_name": "x.jpg", "split": "val"},
        {
            "id": 9,
            "caption": "A red car at the kerb.",
            "bbox": [1.0, 2.0, 3.0, 4.0],
            "file_name": "x.jpg",
            "split": "val",
        },
        {"id": 10, "caption": "A dog.", "bbox": [1.0, 2.0, 3.0, 5.0], "file_name": "x.jpg", "split": "val"},
    ]
    path = tmp_path / "ref-l4-val.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    items = read_captions(path, tmp_path / "images").items
    assert {key: item.references for key, item in items.items()} == {
        "7": ("A red car at the kerb.", "The parked car."),
        "10": ("A dog.",),
    }
    assert items["7"].image == tmp_path / "images/x.jpg" and items["7"].named() == "red car"


def test_a_list_of_ones_own(write):
    items = [
        {"video": "a.mp4", "captions": ["It sleeps.", "Sleeping."], "subject": "dog", "id": "s"},
        {"image": "b.png", "caption": "Two small cats."},
        {"image": "b.png", "caption": "Old cat, asleep."},
    ]
    assert questions(write(items)) == {
        "s": "Describe the dog in the video.",
        "1": "Describe the two small cats in the image.",
        "2": "Describe the old cat in the image.",
    }
    assert read_captions(write(items)).items["s"].asked("What happens?").turns[0].text == "What happens?"


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "malformed JSON"),
        ("3", "expected a JSON list or object, found int"),
        ("[]", "no captions in it"),
        ({"a.mp4": {"bbox": []}}, "item 'a.mp4': English"),
        ([{"video": "a.mp4"}], "item 0: captions"),
        ([{"caption": "A dog."}], 'item 0: .*expected either "video" or "image"'),
        ([{"video": "a.mp4", "image": "b.png", "caption": "A dog."}], 'expected either "video" or "image"'),
        (
            [{"video": "a.mp4", "caption": "A", "id": 1}, {"video": "b.mp4", "caption": "B", "id": 1}],
            "'1' is given twice",
        ),
    ],
)
def test_what_does_not_fit_is_named(write, content, message):
    path = write(content)
    with pytest.raises(DataError, match=message) as caught:
        read_captions(path)
    assert str(path) in str(caught.value)


def test_a_caption_that_names_nothing_asks_for_a_subject(write):
    path = write([{"video": "a.mp4", "caption": "It sleeps."}])
    with pytest.raises(DataError, match=r'item 0: .*It sleeps.* begins with no noun; add "subject"'):
        questions(path)
    assert read_captions(path).items["0"].asked("What happens?")


def test_others_files_do_not_lead_out(write, tmp_path):
    path = write([{"video": "../a.mp4", "caption": "A dog."}])
    with pytest.raises(DataError, match="item 0: .*leads out of"):
        read_captions(path, DataRoot(tmp_path, untrusted=True))


def test_no_parquet_is_named(tmp_path):
    path = tmp_path / "captions.parquet"
    path.write_bytes(b"PAR?")
    with pytest.raises(DataError, match="captions.parquet: not a parquet file"):
        read_captions(path)
