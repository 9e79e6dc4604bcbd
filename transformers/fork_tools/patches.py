"""The patch series: reading it, applying it with git, and writing a patch in the one canonical form.

A patch is a header (free text and the four fields below) and a unified diff with three lines of context, paths
`a/src/transformers/...` and `b/src/transformers/...`, files sorted, no dates and no hashes.
"""

import difflib
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from fork_tools.layout import COMMAND, OWN_FILES, PACKAGE, Fork, ForkError, run_git

FIELDS = ("Why", "How", "Drop-when", "Test")
HEADER_TEMPLATE = "".join(f"{name}:\n" for name in FIELDS)
BODY_START = re.compile(r"^(?:diff --git |--- (?:a/|/dev/null))", re.MULTILINE)
OTHER_DIFF = re.compile(r"^(?:rename from|copy from|GIT binary patch).*", re.MULTILINE)

Contents = dict[str, bytes | None]


@dataclass
class Step:
    """One applied patch: its header and the files it touches before and after; None where there is no file."""

    name: str
    header: str
    before: Contents = field(default_factory=dict)
    after: Contents = field(default_factory=dict)


def read_series(fork: Fork) -> list[str]:
    """Return the patch names in the order in which they apply. Raises ForkError on a missing file or a name given twice."""
    if not fork.series.is_file():
        raise ForkError(
            f"{fork.series} is missing: it lists the patches, one name per line, in the order in which they apply."
        )
    lines = [line.strip() for line in fork.series.read_text(encoding="utf-8").splitlines()]
    names = [line for line in lines if line and not line.startswith("#")]
    missing = [name for name in names if not (fork.patches / name).is_file()]
    if missing:
        raise ForkError(
            f"{fork.series} lists patches that are not in {fork.patches}:\n" + "\n".join(f"  {n}" for n in missing)
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ForkError(f"{fork.series} lists more than once: {', '.join(twice)}. Keep one line of each.")
    return names


def read_header(fork: Fork, name: str) -> str:
    """Return everything in the patch that stands before its diff."""
    text = (fork.patches / name).read_text(encoding="utf-8")
    start = BODY_START.search(text)
    return text[: start.start()] if start else text


def header_fields(header: str) -> dict[str, str]:
    """Return the header's fields by name, each on one line. A field runs until the next one starts.

    >>> header_fields("Why: rows of attention\\n  leave the layer\\nTest: tests/a.py\\n")
    {'Why': 'rows of attention leave the layer', 'Test': 'tests/a.py'}
    """
    parts = re.split(rf"^({'|'.join(FIELDS)}):", header, flags=re.MULTILINE)
    return {name: " ".join(value.split()) for name, value in zip(parts[1::2], parts[2::2])}


def git_apply(tree: Path, patch: Path, *options: str) -> bytes:
    """Run `git apply` on `tree` and return its output. Raises ForkError with git's own words."""
    # Inside of a repository git takes the paths as the repository's and skips, in silence, those outside of the current
    # folder. The ceiling keeps it from finding one: `tree` is then just a folder.
    done = run_git(["apply", "--whitespace=nowarn", *options, str(patch)], cwd=tree, ceiling=tree.parent)
    if done.returncode:
        raise ForkError("\n".join(f"  git: {line}" for line in os.fsdecode(done.stderr).strip().splitlines()))
    return done.stdout


def touched_files(tree: Path, patch: Path) -> list[str]:
    """Return the files that the patch changes.

    Raises ForkError when one is outside of the package or is our own, and for renames, copies and binary files, which the
    canonical form cannot say.
    """
    text = patch.read_text(encoding="utf-8")
    start = BODY_START.search(text)
    other = OTHER_DIFF.search(text, start.start() if start else 0)
    if other:
        raise ForkError(
            f"  it has the line `{other.group()}`; write it with plain additions, changes and deletions of text files"
        )
    rows = os.fsdecode(git_apply(tree, patch, "--numstat", "-z")).split("\0")
    paths = [row.split("\t", 2)[2] for row in rows if row]
    for path in paths:
        if not path.startswith(f"{PACKAGE}/") or path in OWN_FILES:
            raise ForkError(f"  it changes {path}; a patch may change upstream's files under {PACKAGE}/ only")
    return paths


def read_files(tree: Path, paths) -> Contents:
    """Return the content of each path in `tree`; None where there is no file."""
    return {path: (tree / path).read_bytes() if (tree / path).is_file() else None for path in paths}


def write_files(tree: Path, contents: Contents) -> None:
    """Bring the files in `tree` to `contents`: the reverse of read_files."""
    for path, data in contents.items():
        if data is None:
            (tree / path).unlink(missing_ok=True)
        else:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(data)


def apply_patch(tree: Path, patch: Path) -> tuple[Contents, Contents]:
    """Apply one patch file to `tree`; return what it touched, before and after. Raises ForkError, also when nothing changed."""
    paths = touched_files(tree, patch)
    before = read_files(tree, paths)
    git_apply(tree, patch)
    after = read_files(tree, paths)
    if before == after:
        raise ForkError("  git reported success but changed no file")
    return before, after


def apply_series(fork: Fork, tree: Path, names: list[str], base: str) -> list[Step]:
    """Apply the named patches in order to `tree`; return one Step each. `base` names, in an error, what they apply to."""
    steps = []
    for name in names:
        try:
            before, after = apply_patch(tree, fork.patches / name)
        except ForkError as error:
            raise ForkError(
                f"patches/{name} does not apply to {base} and the patches before it.\n{error}\n"
                f"What to do: take this patch and those after it out of patches/series, run `{COMMAND} build`, make the change "
                f"again in src/, run `{COMMAND} export {name}`, and put the later ones back. See README.md, 'Moving to a new release'."
            ) from None
        steps.append(Step(name, read_header(fork, name), before, after))
    return steps


def render(step: Step) -> bytes:
    """Return the patch file of `step` in canonical form. Raises ForkError when a touched file is not UTF-8 text."""
    body = "".join(diff_file(path, step.before[path], step.after[path]) for path in sorted(step.before))
    header = step.header.strip("\n")
    return f"{header}\n\n{body}".encode()


def diff_file(path: str, before: bytes | None, after: bytes | None) -> str:
    """Return one file's part of a patch; the empty text when nothing changed."""
    if before == after:
        return ""
    try:
        old, new = (split_lines((data or b"").decode("utf-8")) for data in (before, after))
    except UnicodeDecodeError as error:
        raise ForkError(f"{path} is not UTF-8 text ({error}); a patch can carry text only.") from None
    # git's own header line: without it an empty new file would swallow the file after it.
    lines = [f"diff --git a/{path} b/{path}\n"]
    if before is None or after is None:
        lines.append(f"{'new' if before is None else 'deleted'} file mode 100644\n")
    if old != new:
        lines.append("--- /dev/null\n" if before is None else f"--- a/{path}\n")
        lines.append("+++ /dev/null\n" if after is None else f"+++ b/{path}\n")
    lines += diff_hunks(old, new)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def split_lines(text: str) -> list[str]:
    """Return the lines with their "\\n". str.splitlines would also cut at form feeds and other marks, which git does not."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def diff_hunks(old: list[str], new: list[str]) -> list[str]:
    """Return the hunks of a unified diff with three lines of context."""
    # difflib.unified_diff would do, but for its autojunk: it ignores frequent lines and so makes larger diffs than needed.
    lines = []
    for group in difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(3):
        lines.append(f"@@ -{hunk_range(group[0][1], group[-1][2])} +{hunk_range(group[0][3], group[-1][4])} @@\n")
        for tag, old_start, old_end, new_start, new_end in group:
            if tag == "equal":
                lines += [f" {line}" for line in old[old_start:old_end]]
                continue
            lines += [f"-{line}" for line in old[old_start:old_end]]
            lines += [f"+{line}" for line in new[new_start:new_end]]
    return lines


def hunk_range(start: int, end: int) -> str:
    """Return `first line,count` of a hunk for the half-open range of line indices; an empty range names the line before it.

    >>> hunk_range(3, 5), hunk_range(3, 4), hunk_range(0, 0)
    ('4,2', '4', '0,0')
    """
    count = end - start
    if count == 1:
        return str(start + 1)
    return f"{start + 1 if count else start},{count}"


def verify_rendered(fork: Fork, step: Step, text: bytes) -> None:
    """Raise ForkError unless git turns the step's `before` into its `after` with the rendered patch `text`."""
    with tempfile.TemporaryDirectory(prefix=".build-", dir=fork.root) as folder:
        tree, patch = Path(folder) / "tree", Path(folder) / "patch"
        tree.mkdir()
        write_files(tree, step.before)
        patch.write_bytes(text)
        apply_patch(tree, patch)
        if read_files(tree, step.after) != step.after:
            raise ForkError(
                f"patches/{step.name}: its canonical form gives other files than the patch itself. Nothing was changed."
            )
