"""Members of tar archives, local or remote, read in place: an index made once says where each lies."""

import hashlib
import io
import json
import os
import posixpath
import re
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from glob import glob as local_glob
from pathlib import Path

from swim.errors import DataError, Reason
from swim.files import cache_root, write_atomically
from swim.video.fetched import fetched
from swim.video.remote import Stored, glob, is_url, read_range, stat, without_secrets

_MEMBER = re.compile(r"(.+?\.(?:tar(?:\.\w+)?|tgz))::(.+)", re.IGNORECASE | re.DOTALL)
_ARCHIVE = re.compile(r".+\.(?:tar(?:\.\w+)?|tgz)", re.IGNORECASE | re.DOTALL)
_HEADER_BYTES = 1024  # read at a time while an index is made: a header, and a little more
_COPY_BYTES = 1 << 20
_ASKED_AGAIN_S = 600.0
# When a server was asked, and what it said: of an archive, and which match a pattern.
_stored: dict[str, tuple[float, Stored | None]] = {}
_listed: dict[str, tuple[float, list[str]]] = {}


@dataclass(frozen=True)
class Place:
    """Bytes [start, start + size) of an archive. stamp: tells its content from a later one."""

    archive: str
    start: int
    size: int
    stamp: str


def split_member(text: str) -> tuple[str, str] | None:
    """(archive, name in it) of "videos.tar::clips/a.mp4", None for any other text."""
    match = _MEMBER.fullmatch(text)
    return (match.group(1), match.group(2)) if match else None


def is_archive(text: str) -> bool:
    return _ARCHIVE.fullmatch(text) is not None


@contextmanager
def member_file(archive: str, name: str, limit_s: float) -> Iterator[Path]:
    """A member as a file of its own for as long as it is needed. archive: a path or URL, which may hold a `*`.

    Raises DataError (MISSING, UNREADABLE, NOT_READ, TIMEOUT) naming archive and member.
    """
    place = find_member(archive, name, limit_s)
    if is_url(place.archive):
        key = f"{place.archive} {place.stamp} {place.start} {place.size}"

        def fetch() -> bytes:
            return read_range(place.archive, place.start, place.start + place.size, limit_s)

        with fetched(key, place.size, fetch) as path:
            yield path
        return
    with tempfile.NamedTemporaryFile(prefix="swim_") as copy:
        with open(place.archive, "rb") as whole:
            whole.seek(place.start)
            left = place.size
            while left and (chunk := whole.read(min(left, _COPY_BYTES))):
                copy.write(chunk)
                left -= len(chunk)
        if left:
            raise DataError(f"{archive}::{name}: the archive is cut off in it", reason=Reason.UNREADABLE)
        copy.flush()
        yield Path(copy.name)


def find_member(archive: str, name: str, limit_s: float) -> Place:
    """Where a member lies. Raises DataError as `member_file` does."""
    wanted, cut = posixpath.normpath(name), []
    for shard in _shards(archive, limit_s):
        stamp, size = _stamp(shard, limit_s)
        index = _index(shard, stamp, size, limit_s)
        if wanted in index["members"]:
            start, length = index["members"][wanted]
            return Place(shard, start, length, stamp)
        if index["cut"]:
            cut.append(shard)
    said = f"no {name!r} in the archive {without_secrets(archive)}"
    if cut:
        raise DataError(f"{said}: {without_secrets(cut[0])} is cut off; fetch it again", reason=Reason.UNREADABLE)
    raise DataError(said, reason=Reason.MISSING)


def _shards(archive: str, limit_s: float) -> list[str]:
    found = [archive]
    if "*" in archive and is_url(archive):
        asked, found = _listed.get(archive, (0.0, []))
        if not found or time.monotonic() - asked > _ASKED_AGAIN_S:
            found = glob(archive, limit_s)
            _listed[archive] = time.monotonic(), found
    elif "*" in archive:
        found = sorted(local_glob(archive))
    if not found:
        raise DataError(f"no archive matches {without_secrets(archive)}", reason=Reason.MISSING)
    for shard in found:
        if not shard.lower().endswith(".tar"):
            problem = "a compressed archive cannot be read in part; decompress it to a .tar, or unpack it"
            raise DataError(f"{without_secrets(shard)}: {problem}", reason=Reason.UNREADABLE)
    return found


def _stamp(archive: str, limit_s: float) -> tuple[str, int]:
    """(what tells its content from a later one, bytes). A server is asked again after a while only."""
    if is_url(archive):
        asked, stored = _stored.get(archive, (0.0, None))
        if stored is None or time.monotonic() - asked > _ASKED_AGAIN_S:
            stored = stat(archive, limit_s)
            _stored[archive] = time.monotonic(), stored
        return f"{stored.size} {stored.version}", stored.size
    try:
        found = os.stat(archive)
    except OSError as error:
        reason = Reason.of(error, Reason.MISSING)
        raise DataError(f"no such archive: {archive} ({error.strerror})", reason=reason) from None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}", found.st_size


@lru_cache(maxsize=64)
def _index(archive: str, stamp: str, size: int, limit_s: float) -> dict:
    """{"members": {name: [start, bytes]}, "cut": whether the archive ends early}, from $SWIM_CACHE or made now.

    Only headers are read. A cache folder that cannot be used costs time, no more.
    """
    kept = cache_root() / "archives" / f"{hashlib.sha256(archive.encode()).hexdigest()}.json"
    try:
        found = json.loads(kept.read_text(encoding="utf-8"))
        if found["stamp"] == stamp:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    made = {"archive": without_secrets(archive), "stamp": stamp, **_read_headers(archive, size, limit_s)}
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(made))
    except OSError:
        pass
    return made


def _read_headers(archive: str, size: int, limit_s: float) -> dict:
    members: dict[str, list[int]] = {}
    cut = False
    raw = _Ranges(archive, size, limit_s) if is_url(archive) else open(archive, "rb", buffering=0)
    with raw, io.BufferedReader(raw, _HEADER_BYTES) as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as opened:
                for member in opened:
                    name = posixpath.normpath(member.name)
                    linked = members.get(posixpath.normpath(member.linkname)) if member.islnk() else None
                    if linked is not None:
                        members[name] = linked
                    elif member.isreg() and not member.issparse():  # holes are left out of a sparse one
                        if member.offset_data + member.size <= size:
                            members[name] = [member.offset_data, member.size]
                        else:
                            cut = True
        except tarfile.ReadError as error:
            if not members and "unexpected end" not in str(error):
                raise DataError(
                    f"{without_secrets(archive)}: no tar archive ({error})", reason=Reason.UNREADABLE
                ) from None
            cut = True
    return {"members": members, "cut": cut}


class _Ranges(io.RawIOBase):
    """A remote file that is read where it is looked at."""

    def __init__(self, url: str, size: int, limit_s: float):
        self.url, self.size, self.limit_s, self._place = url, size, limit_s, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        return self._place

    def readinto(self, buffer) -> int:
        content = read_range(self.url, self._place, min(self._place + len(buffer), self.size), self.limit_s)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)
