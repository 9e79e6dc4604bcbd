"""What was fetched from elsewhere, kept on the local disk: shared by processes, within a size, whole or not there.

    remote/<key>          a file; it got its name when it was complete and on the disk
    remote/building/      of processes that fetch
    files/                JSON files, which stay
    remote/in_use/        links to files that are being read, so that making room takes none of them away

Below $SWIM_CACHE (default ~/.cache/swim); at most $SWIM_REMOTE_CACHE_GB (default 20; 0 keeps nothing).
"""

import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from swim.files import cache_root, to_disk, whole_or_not_there
from swim.video.remote import read_range, stat

_ABANDONED_S = 24 * 3600.0
_DEFAULT_GB = 20.0
_PART_BYTES = 64 << 20


def limit_bytes() -> float:
    """Raises ValueError for a setting that is no size."""
    text = os.environ.get("SWIM_REMOTE_CACHE_GB") or str(_DEFAULT_GB)
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = -1.0
    if not limit >= 0:
        raise ValueError(f"SWIM_REMOTE_CACHE_GB: expected gigabytes, 0 or more, found {text!r}")
    return limit


@contextmanager
def fetched(key: str, size: int, fetch: Callable[[], bytes]) -> Iterator[Path]:
    """A file with what `fetch()` returns, `size` bytes, from the cache if something of that key is there.

    key: never the same for other content.
    """
    limit = limit_bytes()
    if size > limit:
        with tempfile.NamedTemporaryFile(prefix="swim_") as file:
            file.write(fetch())
            file.flush()
            yield Path(file.name)
        return
    root = cache_root() / "remote"
    for folder in (root / "building", root / "in_use"):
        folder.mkdir(parents=True, exist_ok=True)
    entry = root / hashlib.sha256(key.encode()).hexdigest()
    link = root / "in_use" / secrets.token_hex(8)
    if not _hold(entry, link, size):
        draft = root / "building" / secrets.token_hex(8)
        try:
            draft.write_bytes(fetch())
            to_disk(draft)
            os.link(draft, link)
            os.replace(draft, entry)
        finally:
            draft.unlink(missing_ok=True)
        _make_room(root, limit)
    try:
        yield link
    finally:
        link.unlink(missing_ok=True)


def kept_copy(url: str, limit_s: float = 600.0) -> Path:
    """A file of a server or store as a file here, fetched in parts; as long as the server says that it is the same, once.

    It stays: nothing makes room for others. limit_s: for one part. Raises DataError naming the URL.
    """
    found = stat(url, limit_s)
    key = hashlib.sha256(f"{url} {found.size} {found.version}".encode()).hexdigest()
    target = cache_root() / "files" / key / (Path(url.split("?")[0]).name or "file")
    if target.exists() and target.stat().st_size == found.size:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_not_there(target) as draft, draft.open("wb") as file:
        for start in tqdm(range(0, found.size, _PART_BYTES), desc=f"fetching {target.name}", unit="part", delay=2):
            file.write(read_range(url, start, min(start + _PART_BYTES, found.size), limit_s))
    return target


def _hold(entry: Path, link: Path, size: int) -> bool:
    """Whether the entry is there, whole, and held by the link."""
    try:
        os.link(entry, link)
    except FileNotFoundError:
        return False
    if link.stat().st_size != size:  # damaged from outside
        link.unlink()
        return False
    os.utime(link)
    return True


def _make_room(root: Path, limit: float):
    """Removes the files that were longest not read, and what killed processes left, while another does not do so already."""
    try:
        with FileLock(root / ".lock", timeout=0):
            old = time.time() - _ABANDONED_S
            for left in (*(root / "building").iterdir(), *(root / "in_use").iterdir()):
                if _changed(left) < old:
                    left.unlink(missing_ok=True)
            entries = [(entry, entry.stat()) for entry in root.iterdir() if entry.is_file() and entry.name != ".lock"]
            total = sum(found.st_size for _, found in entries)
            for entry, found in sorted(entries, key=lambda pair: pair[1].st_mtime_ns):
                if total <= limit:
                    return
                entry.unlink(missing_ok=True)
                total -= found.st_size
    except (Timeout, FileNotFoundError):
        pass


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()
