"""Members of tar archives and files on stores: the same frames as from a folder, and an error that names what is wrong."""

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from PIL import Image

from swim.errors import DataError, Reason
from swim.video import archives
from swim.video.archives import find_member, split_member
from swim.video.clip import read_clip
from swim.video.fetched import fetched
from swim.video.remote import scheme_of, without_secrets

from .clips import moving_pictures, write_video
from .stores import RangeServer, s3_with


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """clips/a.mp4, clips/b.mp4, c.png; all.tar with all of them, shard-0.tar and shard-1.tar with one clip each."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "clips").mkdir()
    for name, count in (("a", 12), ("b", 7)):
        write_video(folder / f"clips/{name}.mp4", moving_pictures(count))
    Image.new("RGB", (56, 84), "red").save(folder / "c.png")
    pack(folder / "all.tar", folder, ["clips/a.mp4", "clips/b.mp4", "c.png"])
    pack(folder / "shard-0.tar", folder, ["clips/a.mp4"])
    pack(folder / "shard-1.tar", folder, ["./clips/b.mp4"])
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SWIM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pack(path: Path, folder: Path, names: list[str]):
    with tarfile.open(path, "w") as archive:
        for name in names:
            archive.add(folder / name, arcname=name)


def same(source, path: Path, **more) -> bool:
    found, expected = read_clip(source, **more), read_clip(path)
    return found.numbers == expected.numbers and bool((found.frames == expected.frames).all())


def problem(source, **more) -> DataError:
    with pytest.raises(DataError) as caught:
        read_clip(source, **more)
    return caught.value


def test_names_of_members_and_urls():
    assert split_member("/data/x.tar::a/b.mp4") == ("/data/x.tar", "a/b.mp4")
    assert split_member("s3://b/x-*.TAR::a.mp4") == ("s3://b/x-*.TAR", "a.mp4")
    assert split_member("x.tar") is None and split_member("odd::name.mp4") is None
    assert scheme_of("S3://b/a") == "s3" and scheme_of("/a/b") == "" and scheme_of("C:\\a") == ""
    assert without_secrets("https://me:pw@host:8/a.mp4?sig=x") == "https://host:8/a.mp4?..."


@pytest.mark.parametrize("archive", ["all.tar", "shard-*.tar"])
def test_a_member_is_the_file(files, archive):
    assert same(f"{files}/{archive}::clips/a.mp4", files / "clips/a.mp4")
    assert same(Path(f"{files}/{archive}::./clips/b.mp4"), files / "clips/b.mp4")


def test_an_image_in_an_archive(files):
    assert read_clip(f"{files}/all.tar::c.png").total == 1


def test_long_and_odd_names(files, tmp_path):
    for archive_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        name = "f" * 150 + "/caf\u00e9 :: \u732b.mp4"
        with tarfile.open(tmp_path / "odd.tar", "w", format=archive_format) as archive:
            archive.add(files / "clips/a.mp4", arcname=name)
        assert same(f"{tmp_path}/odd.tar::{name}", files / "clips/a.mp4")


def test_links_name_their_file_and_folders_are_none(files, tmp_path):
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        archive.add(files / "clips", arcname="clips")
        for name, target in (("again.mp4", "clips/a.mp4"), ("lost.mp4", "clips/none.mp4")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, target
            archive.addfile(link)
    assert same(f"{tmp_path}/links.tar::again.mp4", files / "clips/a.mp4")
    for name in ("lost.mp4", "clips"):
        assert problem(f"{tmp_path}/links.tar::{name}").reason is Reason.MISSING


def test_what_is_wrong_is_named(files, tmp_path):
    whole = (files / "all.tar").read_bytes()
    place = find_member(f"{files}/all.tar", "clips/b.mp4", 5)
    (tmp_path / "cut.tar").write_bytes(whole[: place.start + 100])
    (tmp_path / "no.tar").write_bytes(b"no archive at all" * 100)
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        archive.add(files / "c.png", arcname="c.png")
    for source, reason, message in (
        (f"{files}/all.tar::clips/x.mp4", Reason.MISSING, f"no 'clips/x.mp4' in the archive {files}/all.tar"),
        (f"{tmp_path}/none.tar::a.mp4", Reason.MISSING, f"no such archive: {tmp_path}/none.tar"),
        (f"{tmp_path}/none-*.tar::a.mp4", Reason.MISSING, "no archive matches"),
        (f"{tmp_path}/cut.tar::clips/b.mp4", Reason.UNREADABLE, "cut.tar is cut off; fetch it again"),
        (f"{tmp_path}/no.tar::a.mp4", Reason.UNREADABLE, "no.tar: no tar archive"),
        (f"{tmp_path}/packed.tar.gz::c.png", Reason.UNREADABLE, "a compressed archive cannot be read in part"),
    ):
        found = problem(source)
        assert found.reason is reason and message in str(found)
    assert same(f"{tmp_path}/cut.tar::clips/a.mp4", files / "clips/a.mp4")  # what is whole can be read


def test_an_archive_that_changes_is_indexed_again(files, tmp_path):
    path = tmp_path / "changing.tar"
    pack(path, files, ["clips/a.mp4"])
    assert same(f"{path}::clips/a.mp4", files / "clips/a.mp4")
    pack(path, files, ["c.png", "clips/b.mp4"])
    assert same(f"{path}::clips/b.mp4", files / "clips/b.mp4")
    assert problem(f"{path}::clips/a.mp4").reason is Reason.MISSING


def test_a_store_and_an_archive_there_give_the_same_frames(files, own_cache):
    with s3_with(files, "videos") as bucket:
        for source in (f"{bucket}/clips/a.mp4", f"{bucket}/all.tar::clips/a.mp4", f"{bucket}/shard-*.tar::clips/a.mp4"):
            assert same(source, files / "clips/a.mp4")
        missing = problem(f"{bucket}/clips/x.mp4")
        assert missing.reason is Reason.MISSING and f"{bucket}/clips/x.mp4: cannot be fetched (no such file)" in str(
            missing
        )
        assert problem(f"{bucket}/all.tar::x.mp4").reason is Reason.MISSING
        secret = problem("s3://key:secret@videos/clips/a.mp4")
        assert "credentials in a URL" in str(secret) and "secret@" not in str(secret)
    left = problem(f"{bucket}/clips/b.mp4", time_limit_s=2)  # the server has gone
    assert left.reason.may_pass


def test_parts_of_a_large_archive_cost_little(files, tmp_path, own_cache):
    """A gigabyte of 2 MB members, sparse on the disk, with the clip in their middle."""
    clip = (files / "clips/a.mp4").read_bytes()
    path, pad = tmp_path / "large.tar", 2_000_000
    with path.open("wb") as file:
        for number in range(500):
            member = tarfile.TarInfo("clip.mp4" if number == 250 else f"{number}.mp4")
            member.size = len(clip) if number == 250 else pad
            file.write(member.tobuf())
            if number == 250:
                file.write(clip)
            else:
                file.seek(pad, os.SEEK_CUR)
            file.seek(-file.tell() % 512, os.SEEK_CUR)
        file.truncate(file.tell() + 1024)
    assert path.stat().st_size > 990e6
    with RangeServer(tmp_path) as server:
        assert same(f"{server.url}/large.tar::clip.mp4", files / "clips/a.mp4")
        assert server.sent <= len(clip) + 1e6
        before = server.sent
        assert same(f"{server.url}/large.tar::clip.mp4", files / "clips/a.mp4") and server.sent == before  # kept here
        assert problem(f"{server.url}/large.tar::none.mp4").reason is Reason.MISSING and server.sent == before


def test_faults_of_a_server_are_told_apart(files):
    with RangeServer(files) as server:
        source = f"{server.url}/all.tar::clips/a.mp4"
        for faults, reason, message in (
            ([403], Reason.MISSING, "all.tar: cannot be fetched (403"),
            ([404], Reason.MISSING, "(404"),
            ([500] * 9, Reason.NOT_READ, "(500"),
            ([None, "cut", "cut", "cut", "cut"], Reason.NOT_READ, "the transfer broke off"),
        ):
            server.faults["all.tar"] = list(faults)
            archives._stored.clear()  # what it has said is known for a while
            found = problem(source, time_limit_s=8)
            assert found.reason is reason and message in str(found) and server.url in str(found)
        archives._stored.clear()
        server.faults["all.tar"] = ["stall"] * 9
        began = time.monotonic()
        assert problem(source, time_limit_s=1).reason is Reason.TIMEOUT and time.monotonic() - began < 4
        archives._stored.clear()
        server.faults["all.tar"] = [503, 502]  # both pass
        assert same(source, files / "clips/a.mp4", time_limit_s=10)


def test_the_cache_keeps_to_its_size_and_takes_nothing_that_is_read(own_cache, monkeypatch):
    monkeypatch.setenv("SWIM_REMOTE_CACHE_GB", "0.000003")  # 3,000 bytes
    calls = []

    def content(name: str):
        calls.append(name)
        return name.encode() * 1000

    with fetched("a", 1000, lambda: content("a")) as first:
        for name in "bcd":
            with fetched(name, 1000, lambda name=name: content(name)) as path:
                assert path.read_bytes() == name.encode() * 1000
        assert first.read_bytes() == b"a" * 1000
    kept = [path for path in (own_cache / "remote").iterdir() if path.is_file() and path.name != ".lock"]
    assert sum(path.stat().st_size for path in kept) <= 3000 and not any((own_cache / "remote/in_use").iterdir())
    with fetched("d", 1000, lambda: content("d")) as path:
        assert path.read_bytes() == b"d" * 1000
    assert calls == list("abcd")
    with fetched("a", 1000, lambda: content("a")):
        assert calls == list("abcda")  # it was the longest not read
    with fetched("large", 4000, lambda: b"l" * 4000) as path:
        assert path.stat().st_size == 4000
    assert not path.exists()
    monkeypatch.setenv("SWIM_REMOTE_CACHE_GB", "much")
    with pytest.raises(ValueError, match="SWIM_REMOTE_CACHE_GB: expected gigabytes"), fetched("a", 1, lambda: b"a"):
        pass


def test_what_is_damaged_is_fetched_again(own_cache):
    for _ in range(2):
        with fetched("a", 4, lambda: b"good") as path:
            assert path.read_bytes() == b"good"
        [entry] = [path for path in (own_cache / "remote").iterdir() if path.is_file() and path.name != ".lock"]
        entry.write_bytes(b"ba")


def test_a_kill_while_the_cache_is_written_leaves_nothing_that_is_trusted(own_cache):
    script = """
import os, signal, sys
from swim.video import fetched
def killed(path): os.kill(os.getpid(), signal.SIGKILL)
fetched.to_disk = killed  # the bytes are written, the name is not yet given
with fetched.fetched("a", 4, lambda: b"half"): pass
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ}, capture_output=True)
    assert done.returncode == -9, done.stderr[-500:]
    assert any((own_cache / "remote/building").iterdir())
    with fetched("a", 4, lambda: b"good") as path:
        assert path.read_bytes() == b"good"


def test_processes_share_the_cache(files, own_cache):
    with RangeServer(files) as server:
        script = f"from swim.video.clip import read_clip; print(read_clip('{server.url}/all.tar::clips/a.mp4').total)"
        running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(3)]
        assert [process.communicate()[0] for process in running] == [b"12\n"] * 3
        before = server.sent
        assert same(f"{server.url}/all.tar::clips/a.mp4", files / "clips/a.mp4") and server.sent == before
