"""The environment is the one that was tested: all of it is locked, and setup.sh says what is in its way."""

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[1]
DRIVER = ["driver/requirements.in", "driver/pyproject.toml"]
LOCKS = {
    "driver/requirements.lock": DRIVER,
    "run_scripts/eval/lmms_eval_requirements.lock": ["run_scripts/eval/lmms_eval_requirements.in"],
}


def locked(path: str) -> dict[str, Requirement]:
    """What a lock file asks for on this machine, by name."""
    text = (REPOSITORY / path).read_text()
    found = [Requirement(line.rstrip(" \\")) for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    return {
        requirement.name: requirement
        for requirement in found
        if not requirement.marker or requirement.marker.evaluate()
    }


@pytest.mark.parametrize("path", LOCKS)
def test_a_lock_is_as_new_as_its_inputs(path):
    content = b"".join((REPOSITORY / source).read_bytes() for source in LOCKS[path])
    first = (REPOSITORY / path).read_text().splitlines()[0]
    assert hashlib.sha256(content).hexdigest() in first, f"{path} is stale: bash run_scripts/lock.sh"


@pytest.mark.parametrize("path", LOCKS)
def test_everything_in_a_lock_has_one_version_and_a_hash(path):
    entries = re.split(r"(?m)^(?=[a-z0-9])", (REPOSITORY / path).read_text())[1:]
    assert len(entries) > 100
    for entry in entries:
        assert "==" in entry.splitlines()[0] and "--hash=sha256:" in entry, entry


def test_what_is_installed_is_what_is_locked():
    wrong = {}
    for name, requirement in locked("driver/requirements.lock").items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = None
        if version is None or not requirement.specifier.contains(version.split("+")[0], prereleases=True):
            wrong[name] = (version, str(requirement.specifier))
    assert wrong == {}


def test_the_drivers_own_pins_are_in_its_lock():
    project = tomllib.loads((REPOSITORY / "driver/pyproject.toml").read_text())["project"]
    pins = [Requirement(line) for line in project["dependencies"]]
    lock = locked("driver/requirements.lock")
    assert {
        pin.name: str(pin.specifier)
        for pin in pins
        if str(lock[canonicalize_name(pin.name)].specifier) != str(pin.specifier)
    } == {}


@pytest.fixture
def lonely(tmp_path):
    """Function: (status, stderr lines) of setup.sh in a folder of its own, where no Python is to be found."""
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "dirname", "cat", "sha256sum", "cut", "pwd", "env"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
    shutil.copy(REPOSITORY / "setup.sh", tmp_path)

    def run(**variables: str) -> tuple[int, list[str]]:
        environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path), **variables}
        done = subprocess.run(["bash", str(tmp_path / "setup.sh")], env=environment, capture_output=True, text=True)
        return done.returncode, (done.stdout + done.stderr).splitlines()

    return run


def test_a_machine_without_python_is_told_in_one_line(lonely):
    status, (line,) = lonely()
    assert status == 1 and line.startswith("setup: no Python of at least 3.11.4 found; install one")


@pytest.mark.parametrize("name", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_environment_that_is_gone_is_told_in_one_line(lonely, tmp_path, name):
    status, (line,) = lonely(**{name: str(tmp_path / "gone"), "CONDA_DEFAULT_ENV": "work"})
    assert (
        status == 1 and line.startswith(f"setup: {tmp_path}/gone/bin/python is no Python") and f"unset {name}" in line
    )


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="the sizes are of this platform")
@pytest.mark.parametrize(("small", "needed"), [("packages", "6.6"), ("downloads", "2.0")])
def test_a_disk_too_small_for_the_packages_is_told_before_the_downloads(tmp_path, small_disk, small, needed):
    disk = small_disk(100_000_000)
    environment = (disk if small == "packages" else tmp_path) / "a venv"
    venv.create(environment, with_pip=True)
    downloads = disk if small == "downloads" else tmp_path
    variables = os.environ | {"VIRTUAL_ENV": str(environment), "TMPDIR": str(downloads)}
    command = ["bash", str(REPOSITORY / "setup.sh")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Collecting" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert re.match(
        rf"setup: 0\.1 GB free in {disk}\S* ?.*, about {needed} GB needed; make room, or name another", line
    )


def test_help_makes_no_environment(tmp_path):
    """lmms_eval.sh has an environment of its own, which takes minutes to make."""
    environment = os.environ | {"SWIM_LMMS_ENV": str(tmp_path / "none"), "VIRTUAL_ENV": sys.prefix}
    command = ["bash", str(REPOSITORY / "run_scripts/eval/lmms_eval.sh"), "--help"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "--tasks" in done.stdout and not (tmp_path / "none").exists()
