"""usage: swim train --config FILE [--key value ...]

Exit status:

0: the run is finished

1: an error

143, 138: SIGTERM or SIGUSR1 stopped it after a checkpoint

130: Ctrl-C, which saves nothing
"""

from pathlib import Path

HELP = Path(__file__).with_name("train_help.txt")  # made by `write_help`; a test compares


def main(arguments: list[str]) -> int:
    """Runs the command; `--help` lists all keys, `--help KEY` says what TRL says of one of its arguments."""
    asked = asked_for_help(arguments)
    if asked is None:
        from swim.cli.runs.train import run

        return run(arguments)
    if asked:
        from swim.train.key_help import entry_of

        print(entry_of(asked))
    else:
        print(HELP.read_text(encoding="utf-8"), end="")
    return 0


def asked_for_help(arguments: list[str]) -> str | None:
    """The key that is to be explained, "" for all, None where no help is asked for."""
    asked = [position for position, argument in enumerate(arguments) if argument in ("-h", "--help")]
    if not asked:
        return None
    keys = arguments[asked[0] + 1 :]
    return keys[0].removeprefix("--") if keys else ""


def write_help():
    """Writes HELP anew from the keys' own descriptions."""
    from swim.train.key_help import help_text

    HELP.write_text(help_text(__doc__) + "\n", encoding="utf-8")
