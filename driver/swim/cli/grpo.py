"""usage: swim grpo --config FILE [--key value ...]

Reinforcement learning by GRPO on the records of data_config: completions of each record's last question are drawn,
rewarded and learnt from, and the mask loss keeps the attention of tagged nouns on their objects. Keys are those of swim
train, but for the arguments of TRL's trainer.

Exit status: as of swim train.
"""

from pathlib import Path

from swim.cli.train import asked_for_help

HELP = Path(__file__).with_name("grpo_help.txt")  # made by `write_help`; a test compares


def main(arguments: list[str]) -> int:
    """Runs the command; `--help` lists all keys, `--help KEY` says what TRL says of one of its arguments."""
    asked = asked_for_help(arguments)
    if asked is None:
        from swim.cli.runs.grpo import run

        return run(arguments)
    if asked:
        from swim.train.grpo_config import GRPOTrainConfig
        from swim.train.key_help import entry_of

        print(entry_of(asked, GRPOTrainConfig))
    else:
        print(HELP.read_text(encoding="utf-8"), end="")
    return 0


def write_help():
    """Writes HELP anew from the keys' own descriptions."""
    from swim.train.grpo_config import GRPOTrainConfig
    from swim.train.key_help import help_text

    HELP.write_text(help_text(__doc__, GRPOTrainConfig, "grpo") + "\n", encoding="utf-8")
