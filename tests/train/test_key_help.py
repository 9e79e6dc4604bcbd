"""`swim train --help` says of every key what it is."""

import dataclasses
import re

import pytest
from trl import SFTConfig

from swim.cli import grpo
from swim.cli import train as command
from swim.cli.train import HELP, main
from swim.demo.inputs import DemoOptions
from swim.train import arguments
from swim.train.config import LoraOptions, TrainConfig
from swim.train.grpo_config import GRPOTrainConfig, JudgeOptions
from swim.train.key_help import WIDTH, entry_of, help_text

OWN = set(TrainConfig.model_fields) - {"arguments"}


@pytest.fixture(scope="module")
def text() -> str:
    return help_text("The command.")


@pytest.fixture(scope="module")
def heads(text) -> dict[str, str]:
    """{key: type and default}"""
    found = re.findall(r"^  (\w+) \((.*?)\)(?=\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return {key: " ".join(head.split()) for key, head in found}


def test_every_key_that_is_taken_is_there_once_and_no_other(text, heads):
    taken = OWN | arguments.HONOURED | arguments.NEED_EVALUATION
    assert set(heads) == taken
    assert len(re.findall(r"^  \w+ \(", text, re.MULTILINE)) == len(taken)


def test_the_file_that_the_command_shows_is_up_to_date():
    assert HELP.read_text() == help_text(command.__doc__) + "\n", (
        'python -c "from swim.cli.train import write_help; write_help()" writes it anew'
    )


def test_grpos_file_is_up_to_date_and_has_its_keys(capsys):
    text = help_text(grpo.__doc__, GRPOTrainConfig, "grpo")
    assert grpo.HELP.read_text() == text + "\n", (
        'python -c "from swim.cli.grpo import write_help; write_help()" writes it anew'
    )
    listed = set(re.findall(r"^  (\w+) \(", text, re.MULTILINE))
    assert listed == (set(GRPOTrainConfig.model_fields) - {"arguments"}) | arguments.GRPO.honoured
    assert grpo.main(["--help", "num_generations"]) == 0
    assert "Number of generations" in capsys.readouterr().out


@pytest.mark.parametrize("options", [TrainConfig, GRPOTrainConfig, LoraOptions, DemoOptions, JudgeOptions])
def test_every_own_key_is_described(options):
    missing = [name for name, field in options.model_fields.items() if not field.description]
    assert missing == (["arguments"] if issubclass(options, TrainConfig) else [])


@pytest.mark.parametrize(
    "key, head",
    {
        "output_dir": "str, required",
        "train": 'list of language_model or merger or visual, default ["language_model"]',
        "on_bad_record": 'fail or skip, default "fail"',
        "lora": "mapping or null, default null",
        "learning_rates": "mapping, default {}",
        "max_frames": "int, default 32",
        "fps": "float or null, default null",
        "learning_rate": f"float, default {SFTConfig.learning_rate}",
        "lr_scheduler_type": 'str, default "linear"',
        "bf16": "bool or null, default null",
    }.items(),
)
def test_types_and_defaults_are_written_as_in_the_yaml(heads, key, head):
    assert heads[key] == head


def test_one_key_is_explained_in_trls_own_words(capsys):
    helps = {field.name: field.metadata["help"] for field in dataclasses.fields(SFTConfig) if "help" in field.metadata}
    assert main(["--help", "weight_decay"]) == 0
    head, words = capsys.readouterr().out.split("\n", 1)
    assert head == "  weight_decay (float, default 0.0)"
    assert " ".join(words.split()) == " ".join(helps["weight_decay"].split())
    for key in arguments.HONOURED - OWN:
        assert "%%" not in entry_of(key) and max(map(len, entry_of(key).split("\n"))) <= WIDTH
    assert main(["--help", "--mask_resolution"]) == 0
    assert "mask cells per visual token and side" in capsys.readouterr().out
    assert main(["--help", "nothing"]) == 0 and "no such key" in capsys.readouterr().out


def test_fits_a_terminal(text):
    assert max(map(len, text.split("\n"))) <= WIDTH


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_command_shows_it(option, capsys):
    assert main([option]) == 0
    shown = capsys.readouterr().out
    assert "--config FILE" in shown and "\n  mask_resolution (int, default 1)\n" in shown
