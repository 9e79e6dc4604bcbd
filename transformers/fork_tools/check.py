"""The checks that hold the pin, the patches, the package's metadata and the placed tree together."""

import re
import tomllib
from functools import cached_property
from pathlib import Path

from fork_tools.layout import (
    COMMAND,
    OWN_FILES,
    PACKAGE,
    Fork,
    ForkError,
    fail,
    listing,
    locked,
    tracked_files,
    work_folder,
)
from fork_tools.patches import FIELDS, Step, apply_series, header_fields, read_header, read_series, render
from fork_tools.source import Pin, fetch, read_pin, unpack, upstream_dependencies
from fork_tools.tree import Hashes, hash_placed, hash_tree


class Facts:
    """What several checks need, made once and on first use. A property raises ForkError when its fact cannot be had."""

    def __init__(self, fork: Fork, folder: Path):
        self.fork, self.folder = fork, folder

    @cached_property
    def pin(self) -> Pin:
        return read_pin(self.fork)

    @cached_property
    def patch_names(self) -> list[str]:
        return sorted(path.name for path in self.fork.patches.glob("*.patch"))

    @cached_property
    def archive(self) -> Path:
        return fetch(self.fork, self.pin)

    @cached_property
    def steps(self) -> list[Step]:
        unpack(self.archive, self.pin, self.folder)
        return apply_series(self.fork, self.folder, read_series(self.fork), base=str(self.pin))

    @cached_property
    def result(self) -> Hashes:
        _ = self.steps  # fills self.folder
        return hash_tree(self.folder)

    @cached_property
    def project(self) -> dict:
        try:
            return tomllib.loads(self.fork.pyproject.read_text(encoding="utf-8"))["project"]
        except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
            raise ForkError(f"{self.fork.pyproject} has no readable [project] table: {error!r}") from None


def check(fork: Fork) -> int:
    """Run every check, print one line for each, and return how many failed."""
    failures = []
    with locked(fork), work_folder(fork) as folder:
        facts = Facts(fork, folder)
        broken: set[str] = set()
        for title, needs, run in CHECKS:
            lost = [name for name in needs if name in broken]
            if lost:
                broken.add(title)
                print(f"skip  {title} (needs: {', '.join(lost)})")
                continue
            try:
                problems = run(facts)
            except ForkError as error:
                problems = [str(error)]
            print(f"{'FAIL' if problems else 'ok  '}  {title}", flush=True)
            if problems:
                broken.add(title)
            failures += [f"{title}: {problem}" for problem in problems]
    for failure in failures:
        fail(failure)
    return len(failures)


def check_pin(facts: Facts) -> list[str]:
    """upstream.txt holds one exact requirement with its hash."""
    _ = facts.pin
    return []


def check_series(facts: Facts) -> list[str]:
    """patches/series and the patch files name each other."""
    names = read_series(facts.fork)
    return [
        f"patches/{name} is not listed in patches/series: add its line, or delete the file"
        for name in facts.patch_names
        if name not in names
    ]


def check_headers(facts: Facts) -> list[str]:
    """Every patch says why, how, until when, and which test proves it."""
    problems = []
    for name in facts.patch_names:
        fields = header_fields(read_header(facts.fork, name))
        empty = [f"{key}:" for key in FIELDS if not fields.get(key)]
        if empty:
            problems.append(f"patches/{name} has nothing under {', '.join(empty)}; write the header's fields out")
    return problems


def check_tests(facts: Facts) -> list[str]:
    """The tests that the headers name exist; paths are relative to the repository."""
    problems = []
    for name in facts.patch_names:
        for test in re.split(r"[\s,]+", header_fields(read_header(facts.fork, name)).get("Test", "")):
            path, _, function = test.partition("::")
            file = facts.fork.root.parent / path
            if not test:
                continue
            if not file.is_file():
                problems.append(
                    f"patches/{name} names the test {path}, which is not in {facts.fork.root.parent}; correct Test:"
                )
            elif function and function.split("::")[-1].split("[")[0] not in file.read_text(encoding="utf-8"):
                problems.append(f"patches/{name} names {function}, which is not in {path}; correct Test:")
    return problems


def check_archive(facts: Facts) -> list[str]:
    """The archive has the pinned hash."""
    _ = facts.archive
    return []


def check_apply(facts: Facts) -> list[str]:
    """The patches apply to upstream as released."""
    _ = facts.steps
    return []


def check_canonical(facts: Facts) -> list[str]:
    """Each patch is, byte for byte, what export would write."""
    return [
        f"patches/{step.name} is not as export writes it; run `{COMMAND} export`"
        for step in facts.steps
        if (facts.fork.patches / step.name).read_bytes() != render(step)
    ]


def check_dependencies(facts: Facts) -> list[str]:
    """pyproject.toml asks for what upstream asks for."""
    ours, theirs = set(facts.project.get("dependencies", [])), upstream_dependencies(facts.archive, facts.pin)
    problems = [f"pyproject.toml lacks upstream's dependency {entry!r}; add it" for entry in sorted(theirs - ours)]
    return problems + [
        f"pyproject.toml asks for {entry!r}, upstream does not; remove it" for entry in sorted(ours - theirs)
    ]


def check_version(facts: Facts) -> list[str]:
    """pyproject.toml and the patched __version__ agree, and begin with the pinned release."""
    init = facts.folder / PACKAGE / "__init__.py"
    match = re.search(r'^__version__ = "(.*)"', init.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found, ours = match and match.group(1), facts.project.get("version", "")
    problems = []
    if found != ours:
        problems.append(
            f"pyproject.toml says version {ours!r}, the patched {PACKAGE}/__init__.py says {found!r}; make them equal"
        )
    if not re.fullmatch(re.escape(f"{facts.pin.version}+swim.") + r"\d+", ours):
        problems.append(f"pyproject.toml's version must be {facts.pin.version}+swim.N, found {ours!r}")
    return problems


def check_tree(facts: Facts) -> list[str]:
    """What lies in src/ is the result, if anything does."""
    placed = hash_placed(facts.fork)
    if not placed:
        return []
    differing = {path for path in placed.keys() | facts.result.keys() if placed.get(path) != facts.result.get(path)}
    if not differing:
        return []
    return [
        f"{len(differing)} files in src/ differ from the patched release:\n{listing(differing)}\n"
        f"Run `{COMMAND} build`, or `{COMMAND} export NAME` to keep edits"
    ]


def check_own_files(facts: Facts) -> list[str]:
    """Our own files are there, and git tracks nothing else under src/."""
    problems = [
        f"{path} is one of our own files and is missing"
        for path in sorted(OWN_FILES)
        if not (facts.fork.root / path).is_file()
    ]
    foreign = (tracked_files(facts.fork) or set()) - OWN_FILES
    if foreign:
        problems.append(
            f"git tracks {len(foreign)} files under src/ that are not in OWN_FILES:\n{listing(foreign)}\n"
            "`git rm --cached` what is upstream's, or add what is ours to OWN_FILES in fork_tools/layout.py"
        )
    return problems


CHECKS = (
    ("pin", (), check_pin),
    ("series lists the patches", (), check_series),
    ("patch headers", (), check_headers),
    ("tests named in headers", (), check_tests),
    ("archive hash", ("pin",), check_archive),
    ("patches apply", ("archive hash",), check_apply),
    ("patches are canonical", ("patches apply",), check_canonical),
    ("dependencies", ("archive hash",), check_dependencies),
    ("version", ("patches apply",), check_version),
    ("placed tree", ("patches apply",), check_tree),
    ("own files", (), check_own_files),
)
