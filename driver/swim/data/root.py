"""Where the videos of a file lie, and whether its records may name others."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swim.errors import DataError, Reason
from swim.video.sources import is_url, path_of_url

# A path, a URL, or one of either for each frame.
Source = Path | str | tuple[Path | str, ...]


@dataclass(frozen=True)
class DataRoot:
    """The folder that the paths of a file are relative to.

    untrusted: the file is others' work: a record of it that names a URL, or a path outside the folder once symbolic
    links are resolved, is refused. What it brings within itself, as a data URI, is no harm.
    """

    path: Path
    untrusted: bool = False

    def locate(self, text: str) -> Path | str:
        """The path below the folder, that of a file URL, or the URL or data URI as it stands."""
        if is_url(text) or text.lower().startswith("data:"):
            return text
        return path_of_url(text) or self.path / text

    def locate_video(self, video: str | list[str]) -> Source:
        """The path of a video or image, or those of its frames. Raises DataError (URL, OUTSIDE) where they are refused."""
        source = tuple(map(self.locate, video)) if isinstance(video, list) else self.locate(video)
        if self.untrusted:
            if url := next(self.urls(source), None):
                raise DataError(f"{url}: a URL, in data that is not trusted; fetch it first", reason=Reason.URL)
            if path := next(self.outsiders(source), None):
                problem = f"{path}: leads out of {self.path} to {_real(path)}, in data that is not trusted"
                raise DataError(problem, reason=Reason.OUTSIDE)
        return source

    @staticmethod
    def urls(source: Source | None) -> Iterator[str]:
        """The URLs of a source."""
        return (part for part in _parts(source) if isinstance(part, str) and is_url(part))

    def outsiders(self, source: Source | None) -> Iterator[Path]:
        """The paths of a source that lead out of the folder, those of a frame folder's files among them."""
        folder = _real(self.path)
        for path in _parts(source):
            if isinstance(path, Path):
                yield from (place for place in (path, *_links_in(path)) if not _real(place).is_relative_to(folder))


def as_root(root: "str | Path | DataRoot") -> DataRoot:
    """A trusted folder, unless it is a DataRoot already."""
    return root if isinstance(root, DataRoot) else DataRoot(Path(root))


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
