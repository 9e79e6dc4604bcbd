"""The fork's build, check and export, on a temporary fork of a small upstream release of our own."""

import contextlib
import fcntl
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "transformers"))

import fork_backend  # noqa: E402
from fork_tools.layout import OWN_FILES, Fork  # noqa: E402
from fork_tools.patches import Step, render, verify_rendered  # noqa: E402

OWNS = sorted(OWN_FILES)
OWN = OWNS[0]
MODELING = "src/transformers/models/qwen2_5_vl/modeling.py"
UTILS = "src/transformers/utils.py"
INIT = "src/transformers/__init__.py"

UPSTREAM = {
    INIT: '"""A small release."""\n\n__version__ = "1.0"\n',
    UTILS: "".join(f"line_{number} = {number}\n" for number in range(40)),
    MODELING: "".join(f"layer_{number} = {number}\n\n" for number in range(40)),
    "src/transformers/models/__init__.py": "",
    "src/transformers/models/qwen2_5_vl/__init__.py": "",
    "src/transformers/py.typed": "",
    "setup.py": "raise SystemExit('never unpacked')\n",
    "PKG-INFO": (
        "Metadata-Version: 2.1\nName: transformers\nVersion: 1.0\nRequires-Dist: numpy>=1.17\n"
        "Requires-Dist: tqdm\nRequires-Dist: torch>=2; extra == 'torch'\n\nA small release.\n"
    ),
    # pip asks a source archive for its metadata before it hands it out; this backend needs nothing from an index.
    "pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = 'tiny'\nbackend-path = ['.']\n",
    "tiny.py": (
        "import pathlib\n\ndef prepare_metadata_for_build_wheel(folder, config_settings=None):\n"
        "    info = pathlib.Path(folder, 'transformers-1.0.dist-info')\n    info.mkdir()\n"
        "    (info / 'METADATA').write_text(pathlib.Path('PKG-INFO').read_text())\n    return info.name\n\n"
        "def build_wheel(*arguments):\n    raise SystemExit('not needed')\n"
    ),
}

HEADER = "Why: a reason\nHow: a way\nDrop-when: upstream has it\nTest: tests/test_it.py::test_it\n\n"
VERSION_PATCH = f"""{HEADER}diff --git a/{INIT} b/{INIT}
--- a/{INIT}
+++ b/{INIT}
@@ -1,3 +1,3 @@
 \"\"\"A small release.\"\"\"
 
-__version__ = "1.0"
+__version__ = "1.0+swim.1"
"""
UTILS_PATCH = f"""{HEADER}diff --git a/{UTILS} b/{UTILS}
--- a/{UTILS}
+++ b/{UTILS}
@@ -3,7 +3,7 @@
 line_2 = 2
 line_3 = 3
 line_4 = 4
-line_5 = 5
+line_5 = "patched"
 line_6 = 6
 line_7 = 7
 line_8 = 8
"""
PYPROJECT = '[project]\nname = "transformers"\nversion = "1.0+swim.1"\ndependencies = ["numpy>=1.17", "tqdm"]\n'


def write_archive(path: Path, files: dict[str, str]) -> str:
    """Write a source archive of release 1.0 with `files`; return its sha256."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"transformers-1.0/{name}")
            info.size, info.mode = len(text.encode()), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Copy:
    """A fork in a temporary repository, and the folder from which its pip downloads."""

    root: Path
    index: Path

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run a command without any package index but our folder; return its exit status and what it printed."""
        own = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "PIP_CONFIG_FILE": os.devnull}
        printed = io.StringIO()
        with (
            mock.patch.dict(os.environ, own | environment),
            mock.patch.object(fork_backend, "FORK", Fork(self.root)),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            return fork_backend.main(list(arguments)), printed.getvalue()

    def succeed(self, *arguments: str, **environment: str) -> str:
        status, printed = self.run(*arguments, **environment)
        assert status == 0, printed
        return printed

    def refuse(self, *arguments: str, **environment: str) -> str:
        """Run a command that must fail with a message; return what it printed."""
        status, printed = self.run(*arguments, **environment)
        assert status == 1, printed
        return printed

    def read(self, path: str) -> str:
        return (self.root / path).read_text()

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(text)

    def edit(self, path: str, old: str, new: str) -> None:
        text = self.read(path)
        assert text.count(old) == 1
        self.write(path, text.replace(old, new))

    def add_patch(self, name: str, text: str) -> None:
        self.write(f"patches/{name}", text)
        self.write("patches/series", self.read("patches/series") + f"{name}\n")

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Return the modification time and the content of everything under src/ and patches/."""
        files = [path for folder in ("src", "patches") for path in (self.root / folder).rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture
def fork(tmp_path: Path) -> Copy:
    """A fork of the small release with two patches, inside a git repository that ignores what the build places."""
    root, index = tmp_path / "repository" / "transformers", tmp_path / "index"
    for folder in (root / "patches", root / ".cache", index, root.parent / "tests"):
        folder.mkdir(parents=True)
    shutil.copy(REPOSITORY / "transformers/fork_backend.py", root)
    shutil.copytree(
        REPOSITORY / "transformers/fork_tools", root / "fork_tools", ignore=shutil.ignore_patterns("__pycache__")
    )
    copy = Copy(root, index)
    digest = write_archive(index / "transformers-1.0.tar.gz", UPSTREAM)
    shutil.copy(index / "transformers-1.0.tar.gz", root / ".cache")
    copy.write("upstream.txt", f"transformers==1.0 --hash=sha256:{digest}\n")
    copy.write("pyproject.toml", PYPROJECT)
    copy.write("patches/series", "")
    copy.add_patch("0001-version.patch", VERSION_PATCH)
    copy.add_patch("0002-utils.patch", UTILS_PATCH)
    for own in OWNS:
        (root / own).parent.mkdir(parents=True, exist_ok=True)
        copy.write(own, "ours = True\n")
    (root.parent / "tests/test_it.py").write_text("def test_it():\n    pass\n")
    kept = "".join(f"!/transformers/{own}\n" for own in OWNS)
    (root.parent / ".gitignore").write_text(f"/transformers/src/**\n/transformers/.*\n{kept}__pycache__/\n")
    git(root.parent, "init", "-q")
    git(root.parent, "add", "-f", *(f"transformers/{own}" for own in OWNS))
    return copy


def test_build_places_the_patched_release_and_keeps_our_file(fork):
    message = fork.succeed("build")
    assert "built transformers==1.0 with 2 patches: 6 files, 6 written, 0 removed" in message
    placed = {
        path.relative_to(fork.root).as_posix() for path in (fork.root / "src/transformers").rglob("*") if path.is_file()
    }
    assert placed == {name for name in UPSTREAM if name.startswith("src/")} | {*OWNS}
    assert '"1.0+swim.1"' in fork.read(INIT)
    assert fork.read(UTILS) == UPSTREAM[UTILS].replace("line_5 = 5", 'line_5 = "patched"')
    assert fork.read(OWN) == "ours = True\n"
    assert not (fork.root / "setup.py").exists()
    assert not list(fork.root.glob(".build-*"))


def test_second_build_writes_nothing(fork):
    fork.succeed("build")
    before = fork.snapshot()
    assert "up to date" in fork.succeed("build")
    assert fork.snapshot() == before


def test_build_ignores_the_callers_git_variables_and_settings(fork, tmp_path):
    """A git hook exports GIT_DIR; apply.ignorewhitespace would let a patch with other context through."""
    settings = tmp_path / "gitconfig"
    settings.write_text("[apply]\n\tignorewhitespace = change\n[core]\n\tautocrlf = true\n")
    fork.succeed("build", GIT_DIR=str(fork.root.parent / ".git"), GIT_CONFIG_GLOBAL=str(settings))
    assert b"\r" not in (fork.root / UTILS).read_bytes()
    assert '"patched"' in fork.read(UTILS)
    fork.write("patches/0002-utils.patch", UTILS_PATCH.replace(" line_4 = 4", " line_4  =  4"))
    assert "0002-utils.patch does not apply" in fork.refuse("build", GIT_CONFIG_GLOBAL=str(settings))


def test_archive_is_downloaded_when_the_cache_is_empty_or_corrupt(fork):
    archive = fork.root / ".cache/transformers-1.0.tar.gz"
    archive.unlink()
    assert "fetching transformers==1.0" in fork.succeed("build")
    good = archive.read_bytes()
    archive.write_bytes(good[:-10])
    (fork.root / UTILS).unlink()
    message = fork.succeed("build")
    assert "is not what the pin transformers==1.0 names" in message and "fetching it again" in message
    assert archive.read_bytes() == good


def test_wrong_hash_is_refused(fork):
    wrong = "0" * 64
    right = hashlib.sha256((fork.index / "transformers-1.0.tar.gz").read_bytes()).hexdigest()
    fork.write("upstream.txt", f"transformers==1.0 --hash=sha256:{wrong}\n")
    message = fork.refuse("build")
    for part in (
        "transformers==1.0",
        "upstream.txt",
        f"expected sha256 {wrong}",
        f"found    sha256 {right}",
        "take the sha256",
    ):
        assert part in message
    assert not (fork.root / INIT).exists()


def test_failed_download_shows_what_pip_said(fork):
    (fork.root / ".cache/transformers-1.0.tar.gz").unlink()
    (fork.index / "transformers-1.0.tar.gz").unlink()
    message = fork.refuse("build")
    assert "pip could not download transformers==1.0" in message
    assert "No matching distribution" in message


@pytest.mark.parametrize("pin", ["", "transformers==1.0\n", "transformers>=1.0 --hash=sha256:" + "0" * 64 + "\n"])
def test_malformed_pin_is_refused(fork, pin):
    fork.write("upstream.txt", pin)
    assert "must hold one line `name==version --hash=sha256:<64 hex digits>`" in fork.refuse("build")


def test_patch_that_no_longer_applies_is_named_and_changes_nothing(fork):
    fork.succeed("build")
    before = fork.snapshot()
    fork.write("patches/0002-utils.patch", UTILS_PATCH.replace("line_4 = 4", "line_4 = 'other'"))
    message = fork.refuse("build")
    assert "patches/0002-utils.patch does not apply to transformers==1.0" in message
    assert f"patch failed: {UTILS}:3" in message
    assert "What to do" in message
    fork.write("patches/0002-utils.patch", UTILS_PATCH)
    assert {path: content for path, (_, content) in fork.snapshot().items()} == {
        path: content for path, (_, content) in before.items()
    }


def test_patch_of_our_own_file_is_refused(fork):
    fork.add_patch("0003-own.patch", f"{HEADER}--- a/{OWN}\n+++ b/{OWN}\n@@ -1 +1 @@\n-ours = True\n+ours = False\n")
    assert f"it changes {OWN}" in fork.refuse("build")


def test_missing_git_is_named(fork):
    assert "the command `git`, which was not found on PATH" in fork.refuse("build", PATH="/nowhere")


def test_half_finished_build_is_repaired(fork):
    fork.succeed("build")
    state = json.loads(fork.read("src/.fork-state.json"))
    (fork.root / MODELING).unlink()
    fork.write(UTILS, UPSTREAM[UTILS])
    # As a build that was killed leaves it: utils.py is still what the build before it had placed.
    state |= {"status": "placing", "replaced": {UTILS: hashlib.sha256(UPSTREAM[UTILS].encode()).hexdigest()}}
    fork.write("src/.fork-state.json", json.dumps(state))
    (fork.root / ".build-killed").mkdir()
    message = fork.succeed("build")
    assert "repairing a half-finished earlier build (1 of its files are missing)" in message
    assert "2 written" in message
    assert '"patched"' in fork.read(UTILS) and (fork.root / MODELING).is_file()
    assert not (fork.root / ".build-killed").exists()
    assert "up to date" in fork.succeed("build")


def test_missing_file_is_put_back(fork):
    fork.succeed("build")
    (fork.root / UTILS).unlink()
    assert "repairing" in fork.succeed("build")
    assert (fork.root / UTILS).is_file()


@pytest.mark.parametrize("path", [UTILS, "src/transformers/added_by_hand.py"])
def test_hand_edits_are_not_lost_unless_told(fork, path):
    fork.succeed("build")
    fork.write(path, "by_hand = True\n")
    for patch in (UTILS_PATCH, UTILS_PATCH.replace('"patched"', '"patched again"')):
        fork.write("patches/0002-utils.patch", patch)
        message = fork.refuse("build")
        assert path in message and "export NAME" in message and "build --discard" in message
        assert fork.read(path) == "by_hand = True\n"
    fork.succeed("build", "--discard")
    assert '"patched again"' in fork.read(UTILS)
    assert not (fork.root / "src/transformers/added_by_hand.py").exists()
    assert fork.read(OWN) == "ours = True\n"


def test_hand_edit_in_a_half_finished_build_is_not_lost(fork):
    fork.succeed("build")
    state = json.loads(fork.read("src/.fork-state.json"))
    fork.write("src/.fork-state.json", json.dumps(state | {"status": "placing"}))
    fork.write(UTILS, "by_hand = True\n")
    assert UTILS in fork.refuse("build")


def test_files_of_unknown_origin_are_not_overwritten(fork):
    fork.write(UTILS, "by_hand = True\n")
    assert UTILS in fork.refuse("build")
    assert fork.read(UTILS) == "by_hand = True\n"
    assert not (fork.root / INIT).exists()
    fork.succeed("build", "--discard")
    assert '"patched"' in fork.read(UTILS)


def test_files_that_a_new_build_lacks_are_removed(fork):
    added = "src/transformers/models/extra/added.py"
    fork.add_patch("0003-add.patch", f"{HEADER}--- /dev/null\n+++ b/{added}\n@@ -0,0 +1 @@\n+added = True\n")
    fork.succeed("build")
    assert fork.read(added) == "added = True\n"
    fork.write("patches/series", "0001-version.patch\n0002-utils.patch\n")
    assert "0 written, 1 removed" in fork.succeed("build")
    assert not (fork.root / added).parent.exists()


def test_own_file_that_git_tracks_is_kept_and_a_clash_is_refused(fork):
    other = "src/transformers/ours_too.py"
    fork.write(other, "ours = 2\n")
    git(fork.root, "add", "-f", other)
    fork.succeed("build", "--discard")
    assert fork.read(other) == "ours = 2\n"
    git(fork.root, "add", "-f", UTILS)
    fork.write("patches/series", "0001-version.patch\n")
    message = fork.refuse("build")
    assert UTILS in message and "git rm --cached" in message


def test_second_of_two_builds_waits_for_the_first(fork):
    with (fork.root / ".cache/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [sys.executable, fork.root / "fork_backend.py", "build"], stdout=subprocess.PIPE, text=True
        )
        assert "waiting" in waiting.stdout.readline()
        assert not (fork.root / INIT).exists()
    output, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 0 and "built" in output


def test_hook_ends_with_the_message_alone(fork):
    fork.write("upstream.txt", "")
    for call in (
        "prepare_metadata_for_build_editable('.')",
        "build_editable('.')",
        "build_wheel('.')",
        "build_sdist('.')",
    ):
        done = subprocess.run(
            [sys.executable, "-c", f"import fork_backend; fork_backend.{call}"],
            cwd=fork.root,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_export_is_canonical_and_byte_stable(fork):
    loose = UTILS_PATCH.replace("\n\ndiff", "\ndiff").replace("\n---", "\nindex 1111111..2222222 100644\n---")
    loose = loose.replace("line_6 = 6\n line_7 = 7\n line_8 = 8\n", "line_6 = 6\n").replace(
        "@@ -3,7 +3,7 @@", "@@ -3,5 +3,5 @@"
    )
    fork.write("patches/0002-utils.patch", loose)
    fork.succeed("build")
    assert "rewrote: 0002-utils.patch" in fork.succeed("export")
    assert fork.read("patches/0002-utils.patch") == UTILS_PATCH
    assert fork.read("patches/0001-version.patch") == VERSION_PATCH
    before = fork.snapshot()
    assert "up to date" in fork.succeed("build")
    assert fork.snapshot() == before
    assert "rewrote: none" in fork.succeed("export")
    assert fork.read("patches/0002-utils.patch") == UTILS_PATCH


@pytest.mark.parametrize("name", ["0001-version", "0002-utils.patch", "0003-new"])
def test_export_folds_edits_into_a_patch(fork, name):
    fork.succeed("build")
    fork.edit(UTILS, "line_30 = 30\n", "line_30 = 'edited'\n")
    fork.write("src/transformers/added.py", "added = True")
    wanted = {path: fork.read(path) for path in (INIT, UTILS, "src/transformers/added.py")}
    fork.succeed("export", name)
    patch = fork.read(f"patches/{name.removesuffix('.patch')}.patch")
    assert "+line_30 = 'edited'\n" in patch and "+added = True\n\\ No newline at end of file\n" in patch
    assert patch.startswith("Why:\nHow:\nDrop-when:\nTest:\n\n" if name == "0003-new" else HEADER)
    assert "up to date" in fork.succeed("build")
    shutil.rmtree(fork.root / "src/transformers")
    fork.succeed("build")
    assert {path: fork.read(path) for path in wanted} == wanted
    assert "rewrote: none" in fork.succeed("export")


def test_export_that_would_break_a_later_patch_changes_nothing(fork):
    fork.succeed("build")
    fork.edit(UTILS, "line_6 = 6\n", "line_6 = 'edited'\n")
    before = fork.snapshot()
    message = fork.refuse("export", "0001-version")
    assert "nothing was changed" in message and "0001-version.patch" in message
    assert fork.snapshot() == before
    fork.succeed("export", "0002-utils")
    assert "+line_6 = 'edited'" in fork.read("patches/0002-utils.patch")


def test_export_brings_back_a_patch_that_was_taken_out_of_the_series(fork):
    fork.write("patches/series", "0001-version.patch\n")
    fork.succeed("build")
    fork.edit(UTILS, "line_7 = 7\n", "line_7 = 'rebased'\n")
    fork.succeed("export", "0002-utils")
    assert fork.read("patches/series") == "0001-version.patch\n0002-utils.patch\n"
    patch = fork.read("patches/0002-utils.patch")
    assert patch.startswith(HEADER) and "'rebased'" in patch and "patched" not in patch


@pytest.mark.parametrize(
    ("name", "prepare", "part"),
    [
        ("0003-new", lambda fork: None, "no file in src/ was edited"),
        ("Bad Name", lambda fork: fork.write(UTILS, "edited\n"), "0003-some-words.patch"),
        ("0003-new", lambda fork: (fork.root / UTILS).unlink(), "src/ lacks 1 files"),
        ("0003-new", lambda fork: fork.write("patches/series", "0001-version.patch\n"), "changed since src/ was built"),
        ("0003-new", lambda fork: (fork.root / "src/.fork-state.json").unlink(), "Run `build` first"),
        ("0002-utils", lambda fork: fork.write(UTILS, UPSTREAM[UTILS]), "undo all of 0002-utils.patch"),
    ],
)
def test_export_refuses_with_a_reason(fork, name, prepare, part):
    fork.succeed("build")
    prepare(fork)
    before = fork.snapshot()
    assert part in fork.refuse("export", name)
    assert fork.snapshot() == before


def test_check_passes_with_and_without_a_placed_tree(fork):
    for command in ("check", "build", "check"):
        message = fork.succeed(command)
        assert "FAIL" not in message and "skip" not in message


FAULTS = {
    "pin": (lambda fork: fork.write("upstream.txt", "transformers\n"), "must hold one line"),
    "missing patch": (lambda fork: (fork.root / "patches/0002-utils.patch").unlink(), "lists patches that are not in"),
    "unlisted patch": (lambda fork: fork.write("patches/0009-x.patch", UTILS_PATCH), "0009-x.patch is not listed"),
    "listed twice": (lambda fork: fork.add_patch("0002-utils.patch", UTILS_PATCH), "more than once: 0002-utils.patch"),
    "empty field": (
        lambda fork: fork.edit("patches/0001-version.patch", "Why: a reason", "Why:"),
        "nothing under Why:",
    ),
    "no field": (
        lambda fork: fork.edit("patches/0001-version.patch", "Drop-when:", "Until:"),
        "nothing under Drop-when:",
    ),
    "no test": (lambda fork: (fork.root.parent / "tests/test_it.py").unlink(), "names the test tests/test_it.py"),
    "no test function": (
        lambda fork: (fork.root.parent / "tests/test_it.py").write_text(""),
        "names test_it, which is not",
    ),
    "hash": (
        lambda fork: fork.write("upstream.txt", f"transformers==1.0 --hash=sha256:{'0' * 64}\n"),
        "expected sha256 000",
    ),
    "does not apply": (
        lambda fork: fork.edit("patches/0002-utils.patch", " line_4 = 4", " line_4 = 0"),
        "does not apply",
    ),
    "not canonical": (
        lambda fork: fork.edit("patches/0002-utils.patch", "line_8 = 8\n", "line_8 = 8\n\n"),
        "is not as export",
    ),
    "dependency lacking": (
        lambda fork: fork.edit("pyproject.toml", ', "tqdm"', ""),
        "lacks upstream's dependency 'tqdm'",
    ),
    "dependency of ours": (lambda fork: fork.edit("pyproject.toml", '"tqdm"', '"tqdm", "x"'), "asks for 'x'"),
    "version": (lambda fork: fork.edit("pyproject.toml", "1.0+swim.1", "1.0+swim.2"), "make them equal"),
    "version form": (lambda fork: fork.edit("pyproject.toml", "1.0+swim.1", "1.1+swim.1"), "must be 1.0+swim.N"),
    "edited tree": (lambda fork: fork.write(UTILS, "by_hand = True\n"), "1 files in src/ differ"),
    "tracked": (lambda fork: git(fork.root, "add", "-f", MODELING), "git tracks 1 files under src/"),
    "own file gone": (lambda fork: (fork.root / OWN).unlink(), "one of our own files and is missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_finds(fork, fault):
    fork.succeed("build")
    spoil, part = FAULTS[fault]
    spoil(fork)
    message = fork.refuse("check")
    assert "FAIL" in message and part in message


def test_check_lists_every_failure(fork):
    for fault in ("unlisted patch", "empty field", "dependency lacking", "version"):
        FAULTS[fault][0](fork)
    message = fork.refuse("check")
    for fault in ("unlisted patch", "empty field", "dependency lacking", "version"):
        assert FAULTS[fault][1] in message
    assert message.count("FAIL") == 4


def test_rendered_patches_apply_for_odd_texts(fork):
    """Random files with missing last newlines, form feeds, empty and new files: git must make the wanted file of each."""
    dice = random.Random(0)

    def some_text() -> bytes | None:
        lines = [
            dice.choice(["a\n", "b\n", "\n", "\x0c\n", "x\u2028y\n", "--- a/x\n", "\r\n"])
            for _ in range(dice.randrange(12))
        ]
        return dice.choice([None, b"", "".join(lines).encode(), ("".join(lines) + "end").encode()])

    for _ in range(40):
        paths = [f"src/transformers/{name}.py" for name in "abc"]
        step = Step(
            "0001-x.patch", HEADER, {path: some_text() for path in paths}, {path: some_text() for path in paths}
        )
        step.after["src/transformers/a.py"] = b"always = 'another text'\n"
        changed = [path for path in paths if step.before[path] != step.after[path]]
        step.before, step.after = ({path: side[path] for path in changed} for side in (step.before, step.after))
        verify_rendered(Fork(fork.root), step, render(step))


def test_the_repositorys_own_fork_passes_check():
    root = REPOSITORY / "transformers"
    if not list((root / ".cache").glob("transformers-*.tar.gz")):
        pytest.skip("the fork was not built here: its archive is not in transformers/.cache")
    done = subprocess.run([sys.executable, root / "fork_backend.py", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_git_tracks_no_upstream_file():
    listed = subprocess.run(["git", "ls-files", "--", "transformers"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git repository")
    ours = ("README.md", "upstream.txt", "pyproject.toml", "fork_backend.py", "fork_tools/", "patches/", *OWNS)
    assert [name for name in listed.stdout.split() if not name.removeprefix("transformers/").startswith(ours)] == []
