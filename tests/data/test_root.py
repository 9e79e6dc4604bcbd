"""What files that others made may name as their videos."""

import json
import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from swim.cli.bench_d import main as bench_d
from swim.cli.bench_q import main as bench_q
from swim.cli.check import main as check
from swim.cli.construct import main as construct
from swim.cli.grounding import main as grounding
from swim.cli.infer import main as infer
from swim.cli.llava import main as llava
from swim.cli.review import main as review
from swim.cli.visualize import main as visualize
from swim.data.mixture import load_annotated, load_mixture, row_record
from swim.data.root import DataRoot
from swim.demo.bench import write_benches
from swim.errors import DataError, Reason


@pytest.fixture
def root(demo_data, tmp_path):
    """A folder with a clip, and beside it a private one, to which links of several kinds lead."""
    record = json.loads(demo_data.train_json.read_text())[0]
    clip = (demo_data.data_root / record["video"]).read_bytes()
    folder = tmp_path / "with space" / "videos"
    (folder / "frames").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    for path in (
        folder / "clip.mp4",
        tmp_path / "private" / "film.mp4",
        tmp_path / "private" / "a.jpg",
        folder / "frames" / "a.jpg",
    ):
        path.write_bytes(clip)
    (folder / "link.mp4").symlink_to("../../private/film.mp4")
    (folder / "inner.mp4").symlink_to("clip.mp4")
    (folder / "linked").symlink_to(tmp_path / "private")
    (folder / "frames" / "b.jpg").symlink_to(tmp_path / "private" / "a.jpg")
    return folder


INSIDE = [
    "clip.mp4",
    "./frames/../clip.mp4",
    "inner.mp4",
    ["clip.mp4", "clip.mp4"],
    "data:video/mp4;base64,AAAA",
    "none.mp4",
]
OUTSIDE = [
    "../../private/film.mp4",
    "link.mp4",
    "linked/film.mp4",
    "linked/none.mp4",
    "linked",
    "frames",  # one of its files leads out
    "/etc/hostname",
    "file:///etc/hostname",
    ["clip.mp4", "/etc/hostname"],
]
URLS = ["http://127.0.0.1:1/a.mp4", "HTTPS://host/a.mp4", ["clip.mp4", "http://127.0.0.1:1/a.png"]]


@pytest.mark.parametrize("video", INSIDE, ids=str)
def test_what_lies_within_the_folder_is_taken(root, video):
    assert DataRoot(root, untrusted=True).locate_video(video) == DataRoot(root).locate_video(video)


@pytest.mark.parametrize(
    ("video", "reason"), [*((v, Reason.OUTSIDE) for v in OUTSIDE), *((v, Reason.URL) for v in URLS)], ids=str
)
def test_untrusted_data_may_name_nothing_else(root, video, reason):
    DataRoot(root).locate_video(video)
    with pytest.raises(DataError, match="in data that is not trusted") as caught:
        DataRoot(root, untrusted=True).locate_video(video)
    assert caught.value.reason == reason


def test_a_root_that_is_itself_a_link_is_no_way_out(root, tmp_path):
    (tmp_path / "data").symlink_to(root)
    assert DataRoot(tmp_path / "data", untrusted=True).locate_video("clip.mp4") == tmp_path / "data" / "clip.mp4"


@pytest.fixture
def mixture(root, demo_data, tmp_path):
    """mixture(untrusted) is the YAML of a record for every video above that is there, and of an image."""
    base = json.loads(demo_data.train_json.read_text())[0]
    base = {key: value for key, value in base.items() if key != "annotation"}
    records = [{**base, "video": video} for video in ["clip.mp4", "inner.mp4", "link.mp4", *URLS]]
    records.append({**base, "video": None, "image": "/etc/hostname"})
    (tmp_path / "others.json").write_text(json.dumps(records))

    def make(**keys):
        source = {"json_path": "others.json", "data_root": str(root), **keys}
        (tmp_path / "others.yaml").write_text(yaml.safe_dump({"datasets": [source]}))
        return tmp_path / "others.yaml"

    return make


def test_a_mixture_that_is_not_trusted_refuses_by_record(mixture):
    rows = list(load_mixture(mixture(untrusted=True)).dataset)
    found = []
    for row in rows:
        try:
            found.append(row_record(row).path.name)
        except DataError as error:
            assert error.where.startswith(f"{row['file']}, record {row['position']}")
            found.append(error.reason)
    assert found == ["clip.mp4", "inner.mp4", Reason.OUTSIDE, *[Reason.URL] * 3, Reason.OUTSIDE]
    assert [row_record(row).where for row in load_mixture(mixture()).dataset]


def test_the_check_reports_both_trusted_or_not(mixture, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swim.data.sample._PAUSE_S", 0.01)
    for untrusted in (True, False):
        output = tmp_path / f"untrusted {untrusted}"
        check([str(mixture(untrusted=untrusted)), "--decode", "none", "--workers", "0", "--output", str(output)])
        report = json.loads((output / "report.json").read_text())
        if untrusted:
            assert report["by_reason"] == {str(Reason.URL): 3, str(Reason.OUTSIDE): 2} and report["urls"] == 0
            assert report["mixture"]["sources"][0]["untrusted"]
        else:
            assert report["by_reason"] == {str(Reason.NOT_READ): 3}
            assert report["outside_root"] == 2
            assert "records that name a path out of data_root" in capsys.readouterr().out


def test_questions_of_others_are_read_with_an_option(root, tmp_path, capsys, tiny_model_dir):
    (tmp_path / "q.jsonl").write_text(
        '{"video": "clip.mp4", "prompt": "What?"}\n{"video": "link.mp4", "prompt": "What?"}\n'
    )
    options = ["--batch", str(tmp_path / "q.jsonl"), "--video_root", str(root), "--output", str(tmp_path / "out")]
    assert infer([*options, "--model", str(tiny_model_dir), "--untrusted"]) != 0
    told = capsys.readouterr().err
    assert "q.jsonl, line 2" in told and f"leads out of {root} to {os.path.realpath(root / 'link.mp4')}" in told


def test_construction_reads_no_private_video_of_an_untrusted_file(root, demo_data, tmp_path, capsys):
    record = json.loads(demo_data.train_json.read_text())[0]
    turns = [{"from": "human", "value": "What is <object0>?"}, {"from": "gpt", "value": "A circle."}]
    record |= {"conversations": turns, "video": "../../private/film.mp4", "annotation": record["annotation"][:1]}
    (tmp_path / "in.json").write_text(json.dumps([record]))
    options = ["--input", str(tmp_path / "in.json"), "--video_root", str(root), "--model", "any", "--dry_run"]
    for flags, requests in ((["--untrusted"], 0), ([], 1)):
        assert construct([*options, "--output", str(tmp_path / "out"), *flags]) == 0
        assert f"{requests} requests to any" in capsys.readouterr().out


@pytest.mark.parametrize("untrusted", [True, False])
def test_a_path_that_cannot_be_looked_up_is_a_missing_file_of_its_record(root, mixture, tmp_path, untrusted):
    """A name that is too long, a null character or a loop of links would end the check, not the record."""
    (root / "loop.mp4").symlink_to("loop.mp4")
    records = json.loads((tmp_path / "others.json").read_text())[:1]
    records += [{**records[0], "video": video} for video in ("x" * 5000 + ".mp4", "a\0b.mp4", "loop.mp4")]
    (tmp_path / "others.json").write_text(json.dumps(records))
    output = tmp_path / "out"
    check([str(mixture(untrusted=untrusted)), "--decode", "none", "--workers", "0", "--output", str(output)])
    report = json.loads((output / "report.json").read_text())
    assert report["by_reason"] == {str(Reason.MISSING): 3} and report["records"] == 4


@pytest.fixture
def site(root, tmp_path, monkeypatch):
    """The address at which a real HTTP server gives the private folder."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    pages = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "private"))
    with ThreadingHTTPServer(("127.0.0.1", 0), pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


WAYS_OUT = {
    "two dots": ("../../private/film.mp4", "leads out of "),
    "a link": ("link.mp4", "leads out of "),
    "a URL": ("{site}/film.mp4", "a URL, in data that is not trusted; fetch it first"),
}
BUDGET = ["--max_frames", "2", "--min_pixels", "784", "--max_pixels", "3136"]
# name: the command, the flag of its file, its other flags
MODEL_COMMANDS = {
    "Bench-Q": (bench_q, "--questions", ["--max_new_tokens", "2"]),
    "Bench-D": (bench_d, "--questions", ["--max_new_tokens", "2", "--dry_run"]),
    "grounding": (grounding, "--data", []),
    "visualize": (visualize, "--records", ["--max_new_tokens", "2"]),
}


@pytest.fixture
def asked(root, demo_data, site, tmp_path, tiny_model_dir):
    """Function: the status of a command for one item of the demo whose video is of WAYS_OUT."""
    benches = write_benches(demo_data.held_out_json)
    files = {"Bench-Q": benches.bench_q, "Bench-D": benches.bench_d}

    def run(name: str, way: str, *flags: str) -> int:
        main, file_flag, own = MODEL_COMMANDS[name]
        item = json.loads(files.get(name, demo_data.held_out_json).read_text())[0]
        (tmp_path / "others.json").write_text(json.dumps([item | {"video": WAYS_OUT[way][0].format(site=site)}]))
        options = [file_flag, str(tmp_path / "others.json"), "--video_root", str(root), "--model", str(tiny_model_dir)]
        return main([*options, *BUDGET, *own, "--output", str(tmp_path / "out"), *flags])

    return run


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("name", MODEL_COMMANDS)
def test_a_model_is_shown_no_private_video_of_an_untrusted_file(asked, name, way, tmp_path, capsys):
    assert asked(name, way, "--untrusted") == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: {tmp_path / 'others.json'}, ") and WAYS_OUT[way][1] in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "way"), zip(MODEL_COMMANDS, [*WAYS_OUT, "two dots"]))
def test_a_model_is_shown_the_same_video_where_the_file_is_trusted(asked, name, way, tmp_path):
    assert asked(name, way) == 0 and (tmp_path / "out").is_dir()


def test_a_review_page_shows_no_private_video_of_an_untrusted_file(root, demo_data, site, tmp_path):
    record = json.loads(demo_data.train_json.read_text())[0]
    videos = ["clip.mp4", *(video.format(site=site) for video, _ in WAYS_OUT.values())]
    (tmp_path / "others.json").write_text(json.dumps([record | {"video": video} for video in videos]))
    pages = {}
    for flags in ([], ["--untrusted"]):
        output = tmp_path / "review.html"
        assert review([str(tmp_path / "others.json"), "--video_root", str(root), "--output", str(output), *flags]) == 0
        pages[bool(flags)] = output.read_text()
    assert "4 of 4 records, 0 of them with a problem" in pages[False]
    assert "4 of 4 records, 3 of them with a problem" in pages[True]
    assert pages[True].count("<img") * 4 == pages[False].count("<img")
    assert pages[True].count("leads out of ") == 2 and "a URL, in data that is not trusted" in pages[True]


def test_the_llava_filter_opens_no_private_video_of_an_untrusted_file(root, site, tmp_path):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
    videos = ["clip.mp4", *(video.format(site=site) for video, _ in WAYS_OUT.values())]
    (tmp_path / "in.json").write_text(json.dumps([{"video": video, "conversations": turns} for video in videos]))
    options = ["--input", str(tmp_path / "in.json"), "--video_root", str(root), "--workers", "1"]
    reports = {}
    for flags in ([], ["--untrusted"]):
        assert llava([*options, "--output", str(tmp_path / "out.json"), *flags]) == 0
        reports[bool(flags)] = json.loads((tmp_path / "out.report.json").read_text())
    assert (reports[False]["kept"], reports[True]["kept"]) == (3, 1)  # a URL is none of LLaVA-Video's
    assert reports[True]["dropped"] == {str(Reason.OUTSIDE): 2, str(Reason.URL): 1}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_an_evaluation_file_of_others_is_refused_before_training_begins(root, demo_data, site, tmp_path, way):
    record = json.loads(demo_data.held_out_json.read_text())[0] | {"video": WAYS_OUT[way][0].format(site=site)}
    (tmp_path / "others.json").write_text(json.dumps([record]))
    (row,) = load_annotated(tmp_path / "others.json", root)
    assert row_record(row).path == DataRoot(root).locate(record["video"])
    with pytest.raises(DataError, match=WAYS_OUT[way][1]) as caught:
        load_annotated(tmp_path / "others.json", root, untrusted=True)
    assert caught.value.where.startswith(f"{tmp_path / 'others.json'}, record 0")
    (tmp_path / "others.json").write_text(json.dumps([record | {"video": "clip.mp4"}]))
    (row,) = load_annotated(tmp_path / "others.json", root, untrusted=True)
    assert row["untrusted"] and row_record(row).path == root / "clip.mp4"  # a link made later is refused then
    (root / "clip.mp4").unlink()
    (root / "clip.mp4").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="leads out of "):
        row_record(row)
