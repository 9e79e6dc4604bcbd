"""The same batch, to the bit, from a folder, a tar archive, an S3 store, and an archive there; and what training refuses."""

import json
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

from swim.data.collator import SwimCollator
from swim.data.mixture import load_mixture, raw_row, row_record
from swim.data.records import parse_record
from swim.data.root import DataRoot, as_root
from swim.data.sample import USUAL_CELL_PX, SampleReader
from swim.data.settings import DataSettings
from swim.errors import DataError, Reason
from swim.video.clip import VisualBudget, read_clip
from swim.video.remote import stat

from ..video.stores import RangeServer, s3_with

SETTINGS = DataSettings(VisualBudget(max_frames=4, min_pixels=784, max_pixels=28224))


@pytest.fixture(scope="module")
def packed(demo_data, tmp_path_factory) -> Path:
    """A folder with the demo's clips/, clips.tar, clips-0.tar and clips-1.tar, and train.json."""
    folder = tmp_path_factory.mktemp("packed")
    (folder / "clips").symlink_to(demo_data.data_root / "clips")
    (folder / "train.json").write_bytes(demo_data.train_json.read_bytes())
    names = sorted({record["video"] for record in json.loads(demo_data.train_json.read_text())})
    for archive, some in (("clips", names), ("clips-0", names[::2]), ("clips-1", names[1::2])):
        with tarfile.open(folder / f"{archive}.tar", "w", dereference=True) as opened:
            for name in some:
                opened.add(demo_data.data_root / name, arcname=name)
    return folder


def batch_of(folder: Path, root: str, processor, config) -> dict:
    """The first four records of a mixture with this data_root."""
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump({"datasets": [{"json_path": str(folder / "train.json"), "data_root": root}]}))
    rows = [row_record(row) for row, _ in zip(load_mixture(path).dataset, range(4))]
    return SwimCollator(processor, config, SETTINGS)(rows)


def test_a_batch_is_the_same_from_wherever_it_comes(packed, tiny_processor, make_tiny_config, monkeypatch, tmp_path):
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))
    config = make_tiny_config()
    expected = batch_of(packed, ".", tiny_processor, config)
    with s3_with(packed, "data") as bucket:
        roots = ["clips.tar", "clips-*.tar", bucket, f"{bucket}/clips.tar", f"{bucket}/clips-*.tar"]
        for root in roots:
            found = batch_of(packed, root, tiny_processor, config)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value, (
                    root,
                    name,
                )


RAW = {"conversations": [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A dog."}]}


@pytest.mark.parametrize(
    "root", ["/data", "/data/videos.tar", "/data/videos.tar::part", "s3://bucket", "s3://bucket/v.tar"]
)
def test_what_lies_below_its_root_is_taken_untrusted(root):
    record = parse_record(
        {**RAW, "video": "a/b.mp4"}, "x", DataRoot(Path(root) if root[0] == "/" else root, untrusted=True)
    )
    between = "::" if root.endswith(".tar") else "/"
    assert str(record.path) == f"{root}{between}a/b.mp4"


@pytest.mark.parametrize(
    "root, video, reason",
    [
        ("/data", "s3://other/a.mp4", Reason.URL),
        ("/data", "../other.tar::a.mp4", Reason.OUTSIDE),
        ("/data/videos.tar", "https://host/a.mp4", Reason.URL),
        ("s3://bucket/mine", "s3://bucket/yours/a.mp4", Reason.URL),
        ("s3://bucket/mine", "../yours/a.mp4", Reason.URL),
        ("s3://bucket/mine", "file:///etc/passwd", Reason.OUTSIDE),
    ],
)
def test_what_leads_elsewhere_is_refused(root, video, reason):
    with pytest.raises(DataError) as caught:
        parse_record({**RAW, "video": video}, "x", DataRoot(Path(root) if root[0] == "/" else root, untrusted=True))
    assert caught.value.reason is reason


class _Clips(torch.utils.data.Dataset):
    def __init__(self, sources: list[str]):
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, number: int) -> int:
        return int(read_clip(self.sources[number]).frames.sum())


def test_forked_workers_read_a_store_that_their_parent_has_read(packed, monkeypatch, tmp_path):
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SWIM_REMOTE_CACHE_GB", "0")  # each fetches for itself
    names = [f"clips/train/0000{n}.mp4" for n in range(4)]
    with s3_with(packed, "forked") as bucket:
        clips = _Clips([f"{bucket}/{name}" for name in names])
        expected = [clips[number] for number in range(len(clips))]
        loader = torch.utils.data.DataLoader(
            clips, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        assert list(loader) == expected


def test_what_is_elsewhere_is_looked_up_and_not_fetched(packed, monkeypatch, tmp_path):
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))
    reader = SampleReader(SETTINGS, USUAL_CELL_PX)
    with s3_with(packed, "looked-up") as bucket:
        for root in (bucket, f"{bucket}/clips.tar", str(packed / "clips.tar")):
            reader.check_files(parse_record({**RAW, "video": "clips/train/00000.mp4"}, "x", as_root(root)))
            with pytest.raises(DataError) as caught:
                reader.check_files(parse_record({**RAW, "video": "clips/train/none.mp4"}, "x", as_root(root)))
            assert caught.value.reason is Reason.MISSING
    assert not (tmp_path / "cache/remote").exists()


def test_credentials_stand_in_no_mixture(packed):
    path = packed / "secret.yaml"
    path.write_text(yaml.safe_dump({"datasets": [{"json_path": "train.json", "data_root": "s3://key:word@bucket/x"}]}))
    with pytest.raises(DataError, match="s3://bucket/x: credentials in a URL") as caught:
        load_mixture(path)
    assert "word" not in str(caught.value)


def test_json_files_may_be_remote_too(packed, monkeypatch, tmp_path):
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))

    def rows(json_path: str) -> list[dict]:
        (tmp_path / "mixture.yaml").write_text(
            yaml.safe_dump({"datasets": [{"json_path": json_path, "data_root": "x"}]})
        )
        return [raw_row(row) for row in load_mixture(tmp_path / "mixture.yaml").dataset]

    expected = rows(str(packed / "train.json"))
    with s3_with(packed, "records") as bucket, RangeServer(packed) as server:
        for name in (f"{bucket}/train.json", f"{bucket}/tr*.json", f"{server.url}/train.json"):
            assert rows(name) == expected
        sent = server.sent
        assert rows(f"{server.url}/train.json") == expected and server.sent == sent
        for name, message in (
            (f"{bucket}/none.json", "no such file"),
            (f"{bucket}/none*.json", "no file fits this pattern"),
            (f"{server.url}/tr*.json", "a web server does not list its files"),
        ):
            with pytest.raises(DataError, match=message):
                rows(name)


def test_faults_of_a_store_are_told_apart(packed, monkeypatch, tmp_path):
    """A server in the store's place that refuses, breaks and stalls."""
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hidden")
    with RangeServer(packed) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        for faults, limit_s, reason, message in (
            ([403] * 9, 60.0, Reason.MISSING, "not permitted .*check the credentials in the environment"),
            ([500] * 99, 60.0, Reason.NOT_READ, "cannot be fetched"),
            (["stall"] * 9, 1.0, Reason.TIMEOUT, "not there after 1 s"),
        ):
            server.faults["a.mp4"] = list(faults)
            with pytest.raises(DataError, match=f"s3://bucket/a.mp4: .*{message}") as caught:
                stat("s3://bucket/a.mp4", limit_s)
            assert caught.value.reason is reason and "hidden" not in str(caught.value)
