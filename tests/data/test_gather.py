"""A mixture and the videos that it names, brought together from folders, archives and a store."""

import json
import tarfile
from pathlib import Path

import pytest
import yaml

from swim.cli import main
from swim.data.mixture import load_mixture, raw_row, row_record

from ..video.clips import pictures, write_video
from ..video.stores import RangeServer

TURNS = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A dog."}]


@pytest.fixture
def mixture(tmp_path, monkeypatch) -> Path:
    """Six records: two clips in an archive on a server, one record of each twice; a clip in a folder; one outside; one missing."""
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "web").mkdir()
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4", pictures(4 + ord(name) % 3))
    with tarfile.open(tmp_path / "web/v.tar", "w") as archive:
        for name in ("a", "b"):
            archive.add(tmp_path / f"{name}.mp4", arcname=f"deep/{name}.mp4")
    (tmp_path / "root").mkdir()
    write_video(tmp_path / "root/in.mp4", pictures(5))
    packed = [{"index": f"p{n}", "video": f"deep/{name}.mp4", "conversations": TURNS} for n, name in enumerate("abab")]
    local = [
        {"index": f"l{n}", "video": name, "conversations": TURNS}
        for n, name in enumerate(("in.mp4", "../c.mp4", "none.mp4"))
    ]
    (tmp_path / "packed.json").write_text(json.dumps(packed))
    (tmp_path / "local.json").write_text(json.dumps(local))
    with RangeServer(tmp_path / "web") as server:
        sources = [
            {
                "json_path": "packed.json",
                "data_root": f"{server.url}/v.tar",
                "sampling_strategy": "first:3",
                "weight": 2,
            },
            {"json_path": "local.json", "data_root": "root"},
        ]
        (tmp_path / "mixture.yaml").write_text(yaml.safe_dump({"datasets": sources}))
        yield tmp_path / "mixture.yaml"


def test_records_and_videos_come_together(mixture, tmp_path, capsys):
    output = tmp_path / "out"
    command = ["gather", str(mixture), "--output", str(output), "--concurrency", "2"]
    assert main(command) == 1  # one is missing
    told = capsys.readouterr().out
    assert "5 records" in told and "none.mp4" in told
    [missing] = [json.loads(line) for line in (output / "missing.jsonl").read_text().splitlines()]
    assert missing["position"] == 2 and "no such video" in missing["message"]
    rows = list(load_mixture(output / "mixture.yaml").dataset)
    assert [raw_row(row)["index"] for row in rows] == ["p0", "p1", "p2"] * 2 + ["l0", "l1"]  # with its weight
    for row, original in zip(rows, ["a", "b", "a"] * 2 + ["root/in", "c"]):
        path = row_record(row).path
        assert path.is_relative_to(output) and path.read_bytes() == (tmp_path / f"{original}.mp4").read_bytes()
    assert len(list((output / "videos").rglob("*.mp4"))) == 4
    write_video(tmp_path / "root/none.mp4", pictures(3))
    kept = {path: path.stat().st_mtime_ns for path in (output / "videos").rglob("*.mp4")}
    assert main(command) == 0 and not (output / "missing.jsonl").exists()
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())  # not fetched again


def test_masks_stay_with_their_record(demo_data, tmp_path):
    output = tmp_path / "out"
    assert main(["gather", str(demo_data.train_config), "--output", str(output)]) == 0
    before, after = (list(load_mixture(path).dataset) for path in (demo_data.train_config, output / "mixture.yaml"))
    assert [raw_row(row) for row in after] == [raw_row(row) for row in before] and any(
        "annotation" in raw_row(row) for row in after
    )
