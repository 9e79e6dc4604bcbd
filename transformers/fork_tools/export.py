"""Writing patches: all of them in their canonical form, or the hand edits in src/ folded into one."""

import re
from pathlib import Path

from fork_tools.layout import Fork, ForkError, file_sha256, listing, locked, say, work_folder, write_atomically
from fork_tools.patches import (
    HEADER_TEMPLATE,
    Contents,
    Step,
    apply_patch,
    apply_series,
    diff_file,
    read_files,
    read_header,
    read_series,
    render,
    verify_rendered,
    write_files,
)
from fork_tools.source import Pin, fetch, read_pin, unpack
from fork_tools.tree import COMPLETE, State, edited_files, hash_placed, read_inputs, read_state, write_state

NAME_FORM = re.compile(r"\d{4}-[a-z0-9-]+\.patch")


def export(fork: Fork, name: str | None = None) -> None:
    """Rewrite every patch in canonical form; with `name`, fold the hand edits in src/ into that patch, new or existing.

    Raises ForkError and changes nothing when the edits fit no longer, or a later patch does not apply on top of them.
    """
    with locked(fork), work_folder(fork) as folder:
        pin, names = read_pin(fork), read_series(fork)
        inputs, state = read_inputs(fork, pin, names), read_state(fork)
        edits = read_edits(fork, state, inputs) if name else {}
        unpack(fetch(fork, pin), pin, folder)
        steps = apply_series(fork, folder, names, base=str(pin))
        if name:
            steps = fold(fork, folder, steps, checked_name(name), edits, base=str(pin))
        write_patches(fork, steps, names)
        update_state(fork, pin, state, inputs, edits)


def checked_name(name: str) -> str:
    """Return the patch's file name. Raises ForkError unless it reads `0003-some-words`, with or without `.patch`."""
    full = name.removesuffix(".patch") + ".patch"
    if not NAME_FORM.fullmatch(full):
        raise ForkError(
            f"a patch is named like 0003-some-words.patch (four digits, then lower-case words); found {name!r}."
        )
    return full


def read_edits(fork: Fork, state: State | None, inputs: dict) -> Contents:
    """Return the content of each file edited or added by hand. Raises ForkError when src/ is not a build of these inputs."""
    if state is None or state.status != COMPLETE:
        raise ForkError("src/ does not hold a complete build, so edits cannot be told from it. Run `build` first.")
    if state.inputs != inputs:
        raise ForkError(
            "the pin or the patches changed since src/ was built, so edits cannot be told from those changes.\n"
            "Run `build` first. If it refuses because of the edits: put the pin and the patches back as they were (`git stash`), "
            "export, and bring the changes back."
        )
    placed = hash_placed(fork)
    missing = set(state.files) - set(placed)
    if missing:
        raise ForkError(
            f"src/ lacks {len(missing)} files of the build:\n{listing(missing)}\n"
            "Run `build` to put them back. A patch that deletes a file has to be written by hand."
        )
    edits = read_files(fork.root, edited_files(state, placed))
    if not edits:
        raise ForkError(
            "no file in src/ was edited by hand: there is nothing to export. `export` alone rewrites the patches."
        )
    return edits


def fold(fork: Fork, tree: Path, steps: list[Step], name: str, edits: Contents, base: str) -> list[Step]:
    """Return the steps with `edits` folded into patch `name`; `tree` holds all steps applied, then with the edits as well."""
    position = next((index for index, step in enumerate(steps) if step.name == name), len(steps))
    later = steps[position + 1 :]
    diff = "".join(diff_file(path, old, edits[path]) for path, old in sorted(read_files(tree, edits).items()))
    for step in reversed(later):
        write_files(tree, step.before)
    target = steps[position] if position < len(steps) else Step(name, new_header(fork, name))
    target = fold_one(tree, target, diff)
    try:
        later = apply_series(fork, tree, [step.name for step in later], base=f"{base}, {name} with your edits")
    except ForkError as error:
        raise ForkError(
            f"folding the edits into {name} would break a later patch; nothing was changed.\n{error}"
        ) from None
    if read_files(tree, edits) != edits:
        raise ForkError(
            f"after folding the edits into {name}, the later patches give other files than src/ has. Nothing was changed."
        )
    return [*steps[:position], target, *later]


def new_header(fork: Fork, name: str) -> str:
    """Return the header of a patch that is not in the series: its old one if the file is there, else fields to fill in."""
    return read_header(fork, name) if (fork.patches / name).is_file() else HEADER_TEMPLATE


def fold_one(tree: Path, step: Step, diff: str) -> Step:
    """Apply `diff` to `tree`, where `step` was applied last; return the step that does both."""
    patch = tree / ".edits.patch"
    patch.write_text(diff, encoding="utf-8", newline="")
    try:
        before, after = apply_patch(tree, patch)
    except ForkError as error:
        raise ForkError(
            f"the edits do not fit into {step.name}, below the patches that come after it; nothing was changed.\n{error}\n"
            "Export them into the last patch that touches these lines, or into a new one."
        ) from None
    patch.unlink()
    merged = Step(step.name, step.header, before | step.before, step.after | after)
    unchanged = [path for path in merged.before if merged.before[path] == merged.after[path]]
    for path in unchanged:
        del merged.before[path], merged.after[path]
    if not merged.before:
        raise ForkError(
            f"the edits undo all of {step.name}; nothing was changed. Delete the patch and its line in patches/series, then run `build`."
        )
    return merged


def write_patches(fork: Fork, steps: list[Step], names: list[str]) -> None:
    """Write the canonical form of every step that differs from its file, and the series when it has a new name."""
    texts = {step.name: render(step) for step in steps}
    for step in steps:
        verify_rendered(fork, step, texts[step.name])
    changed = [name for name, text in texts.items() if read_files(fork.patches, [name])[name] != text]
    for name in changed:
        write_atomically(fork.patches / name, texts[name])
    for name in texts:
        if name not in names:
            series = fork.series.read_text(encoding="utf-8").rstrip("\n")
            write_atomically(fork.series, f"{series}\n{name}\n".lstrip("\n").encode())
    say(f"exported {len(texts)} patches, rewrote: {', '.join(changed) or 'none'}")
    blank = [step.name for step in steps if step.header == HEADER_TEMPLATE]
    if blank:
        say(f"fill in the header of {', '.join(blank)}: Why, How, Drop-when and Test; then run `check`")


def update_state(fork: Fork, pin: Pin, state: State | None, inputs: dict, edits: Contents) -> None:
    """Write down that src/ is the result of the patches as they are now, if it was that of the former ones."""
    if state is None or state.status != COMPLETE or state.inputs != inputs:
        return
    files = state.files | {path: file_sha256(fork.root / path) for path in edits}
    write_state(fork, State(COMPLETE, read_inputs(fork, pin, read_series(fork)), files))
