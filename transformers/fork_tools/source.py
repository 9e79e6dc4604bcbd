"""The upstream release: the pin in upstream.txt, the archive that it names, and what is taken out of that archive."""

import email.parser
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from fork_tools.layout import PACKAGE, Fork, ForkError, file_sha256, say

PIN_FORM = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.!+_-]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})"
)


@dataclass(frozen=True)
class Pin:
    """One exact upstream release."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"

    @property
    def archive_name(self) -> str:
        return f"{self.name}-{self.version}.tar.gz"


def read_pin(fork: Fork) -> Pin:
    """Return the pin. Raises ForkError unless upstream.txt is one line `name==version --hash=sha256:<64 hex digits>`."""
    lines = fork.pin.read_text(encoding="utf-8").splitlines() if fork.pin.is_file() else []
    wanted = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    match = PIN_FORM.fullmatch(wanted[0]) if len(wanted) == 1 else None
    if match is None:
        raise ForkError(
            f"{fork.pin} must hold one line `name==version --hash=sha256:<64 hex digits>`.\n"
            f"Found: {wanted or 'nothing'}.\nTake the sha256 of the source archive from the release's page on the package index."
        )
    return Pin(**match.groupdict())


def fetch(fork: Fork, pin: Pin) -> Path:
    """Return the path of the pinned archive in the cache, downloaded if need be. Raises ForkError on a wrong hash."""
    archive = fork.cache / pin.archive_name
    if archive.is_file():
        found = file_sha256(archive)
        if found == pin.sha256:
            return archive
        say(
            f"{archive} is not what the pin {pin} names (expected sha256 {pin.sha256}, found {found}); fetching it again"
        )
        archive.unlink()
    else:
        say(f"fetching {pin}")
    output = download(fork, pin)
    if not archive.is_file():
        raise ForkError(f"pip downloaded {pin}, but {archive} is not there. pip said:\n{tail(output)}")
    found = file_sha256(archive)
    if found != pin.sha256:
        archive.unlink()
        raise wrong_hash(fork, pin, found)
    return archive


def download(fork: Fork, pin: Pin) -> str:
    """Have pip download the pinned archive into the cache; return what it printed. Raises ForkError when it fails."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
    ]
    # Only upstream itself must be a source archive; what builds its metadata may come as wheels.
    command += ["--require-hashes", "--no-deps", "--no-binary", pin.name]
    command += ["-r", str(fork.pin), "-d", str(fork.cache)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == 0:
        return done.stdout
    other = re.search(r"Got\s+([0-9a-f]{64})", done.stdout)
    if other:
        raise wrong_hash(fork, pin, other.group(1))
    raise ForkError(
        f"pip could not download {pin} (pinned in {fork.pin}). pip said:\n{tail(done.stdout)}\n"
        f"Check the network and pip's index settings, or put {pin.archive_name} into {fork.cache} yourself."
    )


def wrong_hash(fork: Fork, pin: Pin, found: str) -> ForkError:
    """Return the error for an archive that is not the pinned one."""
    return ForkError(
        f"the archive of {pin} is not the one pinned in {fork.pin}.\n  expected sha256 {pin.sha256}\n  found    sha256 {found}\n"
        "If you changed the pin, take the sha256 of the .tar.gz from the release's page. If you did not, the index or a proxy "
        "served another file: do not use it; find out why first."
    )


def tail(output: str, lines: int = 15) -> str:
    """Return the last `lines` lines of `output`, indented."""
    return "\n".join(f"  {line}" for line in output.strip().splitlines()[-lines:])


def unpack(archive: Path, pin: Pin, folder: Path) -> None:
    """Unpack the archive's package into `folder`/src/transformers. Raises ForkError when the archive has none."""
    top = f"{pin.name}-{pin.version}/"
    try:
        with tarfile.open(archive) as tar:
            members = [member for member in tar if member.name.startswith(f"{top}{PACKAGE}/") and not member.isdir()]
            for member in members:
                member.name = member.name.removeprefix(top)
            # The "data" filter refuses links and paths that lead out of the folder, and drops owners and odd modes.
            tar.extractall(folder, members, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise ForkError(f"{archive} cannot be unpacked: {error}.\nDelete it and run the same command again.") from error
    if not members:
        raise ForkError(
            f"{archive} has no folder {top}{PACKAGE}/; the fork takes upstream's sources from there.\n"
            f"Check that {pin} is the release you mean; if upstream moved its sources, PACKAGE in fork_tools/layout.py has to follow."
        )


def upstream_dependencies(archive: Path, pin: Pin) -> set[str]:
    """Return the archive's Requires-Dist entries that belong to no extra, as written there."""
    with tarfile.open(archive) as tar:
        text = tar.extractfile(f"{pin.name}-{pin.version}/PKG-INFO").read().decode("utf-8")
    entries = email.parser.Parser().parsestr(text, headersonly=True).get_all("Requires-Dist") or []
    return {entry for entry in entries if not re.search(r";.*\bextra\s*==", entry)}
