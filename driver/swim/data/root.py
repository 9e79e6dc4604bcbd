"""Where the videos of a file lie, and whether its records may name others."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swim.errors import DataError, Reason
from swim.video.archives import is_archive, split_member
from swim.video.remote import is_url, refuse_credentials
from swim.video.sources import path_of_url

# A path, a URL, or one of either for each frame.
Source = Path | str | tuple[Path | str, ...]


@dataclass(frozen=True)
class DataRoot:
    """What the paths of a file are relative to: a folder, a tar archive, a URL (then as text), or a folder in one of the latter.

    untrusted: the file is others' work: a record of it that names a URL, or a path outside the folder once symbolic
    links are resolved, is refused. What it brings within itself, as a data URI, is no harm.
    """

    path: Path | str
    untrusted: bool = False

    def locate(self, text: str) -> Path | str:
        """The path below the folder, that of a file URL, or the URL or data URI as it stands. See `swim.video.archives` for how
        what is in an archive is written."""
        if is_url(text) or text.lower().startswith("data:"):
            return text
        if local := path_of_url(text):
            return local
        root = str(self.path)
        if is_archive(root):
            return place_of(f"{root}::{text}")
        if is_url(root) or split_member(root):
            return place_of(f"{root.rstrip('/')}/{text}")
        return Path(self.path) / text

    def locate_video(self, video: str | list[str]) -> Source:
        """The path of a video or image, or those of its frames. Raises DataError (URL, OUTSIDE) where they are refused."""
        source = tuple(map(self.locate, video)) if isinstance(video, list) else self.locate(video)
        if self.untrusted:
            if url := next((url for url in self.urls(source) if not self._holds(url)), None):
                raise DataError(f"{url}: a URL, in data that is not trusted; fetch it first", reason=Reason.URL)
            if path := next(self.outsiders(source), None):
                problem = f"{path}: leads out of {self.path} to {_real(path)}, in data that is not trusted"
                raise DataError(problem, reason=Reason.OUTSIDE)
        return source

    def _holds(self, url: str) -> bool:
        """Whether a URL lies below this root, which is one itself."""
        root = str(self.path).rstrip("/")
        below = url.startswith((f"{root}/", f"{root}::"))
        return is_url(root) and below and ".." not in url[len(root) :].replace("::", "/").split("/")

    @staticmethod
    def urls(source: Source | None) -> Iterator[str]:
        """The URLs of a source."""
        return (part for part in _parts(source) if isinstance(part, str) and is_url(part))

    def outsiders(self, source: Source | None) -> Iterator[Path]:
        """The paths of a source that lead out of the folder, those of a frame folder's files among them."""
        folder = _real(_archive_of(Path(self.path)))
        for path in _parts(source):
            if isinstance(path, Path):
                places = (_archive_of(path), *_links_in(path))
                yield from (place for place in places if not _real(place).is_relative_to(folder))


def as_root(root: "str | Path | DataRoot") -> DataRoot:
    """A trusted folder, unless it is a DataRoot already."""
    return root if isinstance(root, DataRoot) else DataRoot(place_of(str(root)))


def place_of(text: str) -> Path | str:
    """A path, or a URL as text: a path would lose one of its slashes."""
    return text if is_url(text) else Path(text)


def joined(folder: Path, text: str) -> str:
    """A root that a file in `folder` names, from where the command runs. Raises DataError for a URL with credentials."""
    refuse_credentials(text)
    return text if is_url(text) else str(folder / text)


def _archive_of(path: Path) -> Path:
    """The archive that a path leads into, or the path itself: no name in an archive leads out of it."""
    packed = split_member(str(path))
    return Path(packed[0]) if packed else path


def _real(path: Path) -> Path:
    """The path with its symbolic links resolved. One that cannot be looked up stays as it is: opening it says why."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a null character
        return path


def _links_in(folder: Path) -> list[Path]:
    """The symbolic links in a frame folder; none where `folder` is no folder, or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_symlink()]
    except (OSError, ValueError):
        return []


def _parts(source: Source | None) -> tuple[Path | str, ...]:
    return source if isinstance(source, tuple) else () if source is None else (source,)
