"""A folder of things made from files, each made once per content, by whichever process comes first.

    <sha256><suffix>/     what was made from that content; it got its name when it was complete and on the disk
    known/<path>.json     which content a file had when it was last looked at
    building/, locks/     of processes at work

A file's path, size, time of change and inode say whether it must be read again to know its content.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from swim.data.streaming import JSON_STEP
from swim.errors import DataError
from swim.files import cannot_read, check_file, to_disk, write_atomically

_BLOCK_BYTES = 1 << 20
# A file that changes within the clock's tick keeps its time of change: a younger one is looked at again.
_SETTLED_NS = 2 * 10**9
_PATIENCE_S, _ABANDONED_S = 5.0, 24 * 3600.0
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)


class ContentCache:
    """The cache below `root`.

    build: called with a file and an empty folder, puts what it makes of the file there and returns the SHA-256 of the
    bytes that it read, in hex. Methods raise OSError when the cache cannot be used, DataError for a file that cannot be read.
    """

    def __init__(self, root: Path, build: Callable[[Path, Path], str]):
        self.root = root
        self.build = build

    def find(self, path: Path, suffix: str) -> tuple[Path, str]:
        """(folder made from the file's content, content hash). Files of another suffix are made into something else.

        One process builds, the others wait for it.
        """
        _stamp(path)  # there is a file
        sha256 = self._known(path, suffix)
        if sha256 is None:
            for name in ("known", "building", "locks"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with self._alone(_key(path)) as locked:
                if locked:
                    self._remove_abandoned(_key(path))
                sha256 = self._known(path, suffix) or self._learn(path, suffix)
        return self._folder(sha256, suffix), sha256

    def _known(self, path: Path, suffix: str) -> str | None:
        """The content hash, when the file looks as it did last time and its folder is there."""
        try:
            seen = json.loads(self._memo(path).read_text())
            sha256 = seen.pop("sha256")
        except (FileNotFoundError, ValueError, TypeError, AttributeError, KeyError):
            return None
        return sha256 if seen == _stamp(path) and _is_complete(self._folder(sha256, suffix)) else None

    def _learn(self, path: Path, suffix: str) -> str:
        """The content hash of a file, read for it; its folder is there afterwards."""
        stamp, sha256 = _stamp(path), None
        if self._may_have(stamp["size"], suffix):
            sha256 = _hash(path)
        if sha256 is None or not _is_complete(self._folder(sha256, suffix)):
            sha256 = self._make(path, stamp["size"], suffix)
        if _stamp(path) != stamp:
            raise DataError("the file changed while it was read; rerun once nothing is writing to it", str(path))
        if abs(time.time_ns() - stamp["mtime_ns"]) > _SETTLED_NS:
            write_atomically(self._memo(path), json.dumps(stamp | {"sha256": sha256}))
        return sha256

    def _make(self, path: Path, size: int, suffix: str) -> str:
        """Builds in a folder of its own, which gets its name when everything in it is on the disk."""
        folder = self.root / "building" / f"{_key(path)}@{socket.gethostname()}@{secrets.token_hex(4)}"
        folder.mkdir()
        try:
            sha256 = self.build(path, folder)
            sizes = {entry.name: entry.stat().st_size for entry in folder.iterdir()}
            write_atomically(folder / "meta.json", json.dumps({"source_bytes": size, "sizes": sizes}))
            for entry in (*folder.iterdir(), folder):
                to_disk(entry)
            target = self._folder(sha256, suffix)
            if target.exists() and not _is_complete(target):  # damaged from outside
                shutil.rmtree(target)
            try:
                os.rename(folder, target)
            except OSError:
                if not _is_complete(target):  # else another process was first with the same content
                    raise
            to_disk(self.root)
            return sha256
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _may_have(self, size: int, suffix: str) -> bool:
        """Was anything made from a file of this size? Then hashing the file first may save the work."""
        return any((_meta(folder) or {}).get("source_bytes") == size for folder in self.root.glob(f"*{suffix}"))

    def _folder(self, sha256: str, suffix: str) -> Path:
        return self.root / f"{sha256}{suffix}"

    def _memo(self, path: Path) -> Path:
        return self.root / "known" / f"{_key(path)}.json"

    @contextmanager
    def _alone(self, key: str, wait: bool = True) -> Iterator[bool]:
        """Holds a path's lock; False where the file system has no locks. Raises Timeout without `wait`.

        The lock saves work. What is built without it is as right.
        """
        lock = FileLock(self.root / "locks" / f"{key}.lock", fallback_to_soft=False)
        try:
            lock.acquire(timeout=_PATIENCE_S if wait else 0)
        except Timeout:
            if not wait:
                raise
            print("waiting for another process that reads the same file", file=sys.stderr, flush=True)
            lock.acquire()
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def _remove_abandoned(self, own_key: str):
        """Removes what killed builds left. Whoever holds a path's lock knows that nobody builds it.

        Locks may not reach other hosts: their folders go when nothing was written for a day. What cannot be removed
        stays.
        """
        for folder in (self.root / "building").iterdir():
            key, _, rest = folder.name.partition("@")
            try:
                if rest.rpartition("@")[0] != socket.gethostname():
                    written = max(entry.stat().st_mtime for entry in (folder, *folder.iterdir()))
                    if time.time() - written < _ABANDONED_S:
                        continue
                if key == own_key:
                    shutil.rmtree(folder)
                    continue
                with self._alone(key, wait=False) as locked:
                    if locked:
                        shutil.rmtree(folder)
            except OSError:  # at work (Timeout), gone, or another user's
                continue


def progress(path: Path, what: str) -> tqdm:
    """A bar in bytes of the file; a small file shows none."""
    return tqdm(
        total=path.stat().st_size, unit="B", unit_scale=True, desc=f"{what} {path.name}", delay=2, mininterval=1
    )


def _hash(path: Path) -> str:
    """Raises DataError for a file that cannot be read: the cache is not at fault."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file, progress(path, "hashing") as bar:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                bar.update(len(block))
    except OSError as error:
        raise cannot_read(path, error, JSON_STEP) from None
    return digest.hexdigest()


def _key(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]


def _stamp(path: Path) -> dict:
    """What changes with a file's content. Raises DataError for a file that is missing or is none."""
    try:
        check_file(path)
        found = path.stat()
    except OSError as error:
        raise cannot_read(path, error, JSON_STEP) from None
    return {"path": str(path.resolve()), "size": found.st_size, "mtime_ns": found.st_mtime_ns, "inode": found.st_ino}


def _meta(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "meta.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _is_complete(folder: Path) -> bool:
    meta = _meta(folder)
    try:
        return meta is not None and all((folder / name).stat().st_size == size for name, size in meta["sizes"].items())
    except FileNotFoundError:
        return False
