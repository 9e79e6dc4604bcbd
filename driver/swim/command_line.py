"""What the commands share: help that shows every default, and Ctrl-C in one line."""

import argparse
import sys


class _Help(argparse.HelpFormatter):
    """Says of each option what it is without being given, unless its help says so itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if not action.option_strings or "default" in text or action.dest == "help":
            return text
        if action.required:
            return f"{text} (required)"
        if isinstance(action, argparse._StoreTrueAction):
            return f"{text} (default: off)"
        if action.default is None or action.default == []:
            return f"{text} (default: none)"
        return f"{text} (default: %(default)s)"


class RawHelp(_Help, argparse.RawDescriptionHelpFormatter):
    """The same, with the paragraphs of the description left as they are."""


def command_parser(documentation: str, name: str | None = None) -> argparse.ArgumentParser:
    """A parser with the first line of a module's docstring as its description."""
    return argparse.ArgumentParser(prog=name, description=documentation.splitlines()[0], formatter_class=_Help)


def end_in_one_line(kind, error, trace):
    """A `sys.excepthook`: Ctrl-C, even before a command's imports are done, prints one line instead of a traceback."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("\ninterrupted\n")
    else:
        sys.__excepthook__(kind, error, trace)
