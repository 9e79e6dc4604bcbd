"""The fork's build: upstream's pinned release, verified and patched into src/, then packaged by setuptools.

Two ways in. pip calls the hooks (PEP 517 and 660), so that `pip install -e transformers` alone makes the fork. By hand:

    python transformers/fork_backend.py build [--discard]   bring src/ to the pin and the patches
    python transformers/fork_backend.py export [NAME]       rewrite the patches, or fold the edits in src/ into NAME
    python transformers/fork_backend.py check               hold everything together; exit status 1 on any failure
"""

import argparse
import shutil
import sys
from pathlib import Path

from fork_tools.check import check
from fork_tools.export import export
from fork_tools.layout import Fork, ForkError, fail
from fork_tools.tree import build

FORK = Fork(Path(__file__).resolve().parent)


def setuptools_hooks():
    """Build src/, then return setuptools' own hooks. Ends the process with a readable message when the build fails."""
    try:
        build(FORK)
    except ForkError as error:
        # pip shows what a hook prints last; a traceback would bury the message.
        raise SystemExit(f"error: {error}") from None
    from setuptools import build_meta  # only pip's build environment is sure to have it; the commands do without

    return build_meta


def get_requires_for_build_wheel(config_settings=None) -> list[str]:
    """Return what the build needs beyond pyproject.toml's `requires`: nothing."""
    return []


def get_requires_for_build_editable(config_settings=None) -> list[str]:
    """Return what the build needs beyond pyproject.toml's `requires`: nothing."""
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None) -> str:
    """Write the wheel's metadata into `metadata_directory`; return its folder's name."""
    return setuptools_hooks().prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(metadata_directory, config_settings=None) -> str:
    """Write the editable wheel's metadata into `metadata_directory`; return its folder's name."""
    return setuptools_hooks().prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    """Build the whole fork as a wheel into `wheel_directory`; return its file name."""
    hooks = setuptools_hooks()
    # setuptools packs whatever an earlier build left there, files that are no longer in src/ included.
    shutil.rmtree(FORK.root / "build", ignore_errors=True)
    return hooks.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    """Build a wheel that points at src/ into `wheel_directory`; return its file name."""
    return setuptools_hooks().build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None) -> str:
    """Refuse: the fork has no source archive."""
    raise SystemExit(
        "error: the fork has no source archive of its own; its source is the pin and the patches in git.\n"
        "Build a wheel instead: pip wheel --no-deps transformers"
    )


def read_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description="Build, check and export the fork. README.md explains each command.")
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="bring src/ to the pinned release with the patches on it")
    building.add_argument("--discard", action="store_true", help="drop files in src/ that were edited by hand")
    commands.add_parser("check", help="check the pin, the patches, the metadata and src/ against each other")
    exporting = commands.add_parser("export", help="rewrite the patches in canonical form")
    exporting.add_argument("name", nargs="?", help="fold the hand edits in src/ into this patch, e.g. 0003-some-words")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    arguments = read_arguments(argv)
    try:
        if arguments.command == "build":
            build(FORK, arguments.discard)
        elif arguments.command == "export":
            export(FORK, arguments.name)
        else:
            return 1 if check(FORK) else 0
    except ForkError as error:
        fail(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
