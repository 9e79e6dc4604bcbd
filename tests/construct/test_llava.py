"""The LLaVA-Video filter: what stays, what goes and why, and an even sample."""

import json
from collections import Counter

import pytest

from swim.cli.llava import main
from swim.construct.llava import even_quotas
from swim.data.records import parse_record

from ..video.clips import pictures, write_video

SOURCES = ("0_30_s_youtube_v0_1", "0_30_s_nextqa", "1_2_m_youtube_v0_1")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Videos below a folder for each source; cut.mp4 breaks off, long.mp4 has 40 s."""
    root = tmp_path_factory.mktemp("llava")
    content = write_video(root / "clip.mp4", pictures(6)).read_bytes()
    write_video(root / "long.mp4", pictures(20), milliseconds=[2000 * n for n in range(20)])
    for source in SOURCES:
        (root / source).mkdir()
        for name in ("a", "b", "c", "d"):
            (root / source / f"{name}.mp4").write_bytes(content)
        (root / source / "cut.mp4").write_bytes(content[: len(content) // 3])
    return root


def raw(source: str, video: str, turns: int = 1, **more) -> dict:
    pair = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
    return {"id": f"{source}-{video}", "data_source": source, "video": video, "conversations": pair * turns, **more}


@pytest.fixture
def run(root, tmp_path):
    """Function: (records kept, report) of the command."""

    def make(records: list[dict], *flags: str, path: str = "{data_source}/{video}"):
        source, output = tmp_path / "in.json", tmp_path / "filtered_valid_llava_video_178k_0.json"
        source.write_text(json.dumps(records))
        files = ["--input", str(source), "--video_root", str(root), "--output", str(output), "--path", path]
        assert main([*files, "--workers", "2", *flags]) == 0
        report = json.loads((tmp_path / "filtered_valid_llava_video_178k_0.report.json").read_text())
        kept = json.loads(output.read_text()) if output.exists() else []
        assert (
            report["records"] == len(records) == report["kept"] + sum(report["dropped"].values()) + report["not_drawn"]
        )
        assert report["kept"] == len(kept)
        return kept, report

    return make


def test_readable_videos_stay_with_their_first_turn(run, root):
    records = [
        raw(SOURCES[0], "a.mp4"),
        raw(SOURCES[0], "b.mp4", turns=3),
        raw(SOURCES[0], "cut.mp4"),
        raw(SOURCES[0], "none.mp4"),
        raw(SOURCES[0], "c.mp4", conversations=[]),
        {"id": "x", "conversations": []},
    ]
    kept, report = run(records)
    assert [record["id"] for record in kept] == [records[0]["id"], records[1]["id"]]
    assert all(len(record["conversations"]) == 2 for record in kept) and report["shortened_to_one_turn"] == 1
    assert kept[0]["video"] == f"{SOURCES[0]}/a.mp4" and kept[0]["data_source"] == SOURCES[0]
    assert parse_record(kept[0], "x", root).path.is_file() and parse_record(kept[0], "x", root).instances == []
    assert report["dropped"] == {"malformed record": 2, "unreadable video or image": 1, "missing file": 1}
    assert report["kept_by_duration_and_source"] == {"0_30_s/youtube": 2}


def test_a_sample_is_even_over_durations_and_sources(run):
    records = [raw(SOURCES[0], f"{n}.mp4") for n in "abcd"] * 10 + [raw(SOURCES[1], "a.mp4")]
    records += [raw(SOURCES[2], "cut.mp4")] * 5 + [raw(SOURCES[2], f"{n}.mp4") for n in "abcd"]
    kept, report = run(records, "--sample", "9", "--by", "duration,source")
    assert report["kept_by_duration_and_source"] == {"0_30_s/nextqa": 1, "0_30_s/youtube": 4, "1_2_m/youtube": 4}
    assert run(records, "--sample", "9", "--by", "duration,source")[0] == kept
    by_source = Counter(r["data_source"] for r in run(records, "--sample", "8", "--by", "duration")[0])
    assert by_source[SOURCES[2]] == 4
    assert len(run(records, "--sample", "1000")[0]) == 45
    assert len(run(records, "--sample", "9", "--seed", "1")[0]) == 9


def test_durations_come_from_the_video_where_the_source_has_none(run):
    records = [raw("mine", name, data_source="mine") for name in ("clip.mp4", "long.mp4")]
    _, report = run(records, "--by", "duration", path="{video}")
    assert report["kept_by_duration_and_source"] == {"0_30_s/mine": 1, "30_60_s/mine": 1}


def test_quotas_are_even_and_complete():
    assert even_quotas({"a": 1, "b": 9, "c": 9}, 9) == {"a": 1, "b": 4, "c": 4}
    assert even_quotas({"a": 2, "b": 2}, 9) == {"a": 2, "b": 2}
    assert sum(even_quotas({"a": 5, "b": 5, "c": 5}, 7).values()) == 7 and even_quotas({}, 3) == {}


def test_what_cannot_be_filtered_is_one_clear_line(root, tmp_path, capsys):
    source = tmp_path / "in.json"
    source.write_text(json.dumps([raw(SOURCES[0], "a.mp4")]))
    files = ["--input", str(source), "--video_root", str(root), "--output"]
    for flags, message in (
        ([str(tmp_path / "o.json"), "--by", "colour"], "--by: expected duration or source, found colour"),
        ([str(tmp_path / "o.txt")], "--output must end in .json"),
    ):
        assert main([*files, *flags]) == 2
        assert message in capsys.readouterr().err
    assert main([*files, str(tmp_path / "o.json"), "--path", "{nothing}/{video}"]) == 0  # a record's fault, counted
    assert json.loads((tmp_path / "o.report.json").read_text())["dropped"] == {"malformed record": 1}
