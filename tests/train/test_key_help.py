"""`swim train --help` says of every key what it is."""

import dataclasses
import re

import pytest
from trl import SFTConfig

from swim.cli.train import main
from swim.demo.inputs import DemoOptions
from swim.train import arguments
from swim.train.config import LoraOptions, TrainConfig
from swim.train.key_help import WIDTH, help_text

OWN = set(TrainConfig.model_fields) - {"arguments"}


@pytest.fixture(scope="module")
def text() -> str:
    return help_text("The command.")


@pytest.fixture(scope="module")
def entries(text) -> dict[str, tuple[str, str]]:
    """{key: (type and default, sentence)}"""
    found = re.findall(r"^  (\w+) \((.*?)\)\n      (.*?)(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL)
    return {key: (" ".join(head.split()), " ".join(sentence.split())) for key, head, sentence in found}


def test_every_key_that_is_taken_is_there_once_and_no_other(text, entries):
    taken = OWN | arguments.HONOURED | arguments.NEED_EVALUATION
    assert set(entries) == taken
    assert len(re.findall(r"^  \w+ \(", text, re.MULTILINE)) == len(taken)
    assert all(sentence for _, sentence in entries.values())


@pytest.mark.parametrize("options", [TrainConfig, LoraOptions, DemoOptions])
def test_every_own_key_is_described(options):
    missing = [name for name, field in options.model_fields.items() if not field.description]
    assert missing == (["arguments"] if options is TrainConfig else [])


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
def test_types_and_defaults_are_written_as_in_the_yaml(entries, key, head):
    assert entries[key][0] == head


def test_trls_words_stand_as_trl_means_them(entries):
    helps = {field.name: field.metadata["help"] for field in dataclasses.fields(SFTConfig) if "help" in field.metadata}
    assert entries["weight_decay"][1] == " ".join(helps["weight_decay"].split())
    assert all("%%" not in sentence for _, sentence in entries.values())


def test_fits_a_terminal(text):
    assert max(map(len, text.split("\n"))) <= WIDTH


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_command_shows_it(option, capsys):
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "--config FILE" in shown and "\n  mask_resolution (int, default 1)\n" in shown
