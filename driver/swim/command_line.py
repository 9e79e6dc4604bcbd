"""What the commands share: help that shows every default, numbers within bounds, and Ctrl-C in one line."""

import argparse
import math
import sys
from collections.abc import Callable


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


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The `type` of an option: a whole number within these bounds."""
    return _within(int, "a whole number,", lambda value: value >= least, f"at least {least}", most)


def number(least: float, most: float | None = None) -> Callable[[str], float]:
    """The `type` of an option: a finite number within these bounds."""
    return _within(float, "a number,", lambda value: value >= least, f"at least {least}", most)


def above(bound: float) -> Callable[[str], float]:
    """The `type` of an option: a finite number above this."""
    return _within(float, "a number,", lambda value: value > bound, f"above {bound}", None)


def _within(read: Callable, what: str, high_enough: Callable, bound: str, most: float | None) -> Callable:
    def parse(text: str):
        try:
            value = read(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and high_enough(value) and (most is None or value <= most):
            return value
        bounds = bound if most is None else f"{bound} and at most {most}"
        raise argparse.ArgumentTypeError(f"expected {what} {bounds}, found {text!r}")

    return parse


def end_in_one_line(kind, error, trace):
    """A `sys.excepthook`: Ctrl-C, even before a command's imports are done, prints one line instead of a traceback."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("\ninterrupted\n")
    else:
        sys.__excepthook__(kind, error, trace)
