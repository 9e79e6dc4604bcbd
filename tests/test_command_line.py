"""The commands' help, and Ctrl-C."""

import json
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from swim import cli
from swim.attention.heat import NORMALISATIONS
from swim.cli import VERBS, main
from swim.data.check import LEVELS
from swim.train.export import DTYPES

from .interrupting import assert_ctrl_c_ends_it_at_once, in_own_session, wait_until


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"train", "grpo"}))  # whose help is tests/train/test_key_help.py
def test_help_has_a_sentence_and_a_default_for_every_option(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out.split("options:")[1]
    options = [" ".join(part.split()) for part in re.split(r"\n  (?=-)", text)[1:]]
    assert options
    for option in options:
        assert option.startswith("-h") or re.search(r"(default|required)", option), option


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_there_at_once_without_torch(verb):
    command = [sys.executable, "-X", "importtime", "-m", "swim", verb, "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) > 5
    assert not re.search(r"\| +(torch|transformers|trl|datasets)$", done.stderr, re.MULTILINE)


def test_choices_are_those_of_the_rooms_below():
    """They are written out, as the rooms import torch."""
    rooms = {"check": LEVELS, "export": DTYPES, "visualize": NORMALISATIONS}
    for verb, choices in rooms.items():
        source = Path(cli.__file__).with_name(f"{verb}.py").read_text()
        assert f"choices=({', '.join(json.dumps(choice) for choice in choices)})" in source


def test_ctrl_c_ends_in_one_line_even_while_a_command_is_loading():
    with in_own_session([sys.executable, "-m", "swim", "grounding"]) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: "libtorch" in maps.read_text(), process)  # torch is loading, and much comes after it
        assert_ctrl_c_ends_it_at_once(process)


def test_the_verbs_are_listed_at_once_without_torch():
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "swim", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and not re.search(r"\\| +(torch|transformers)$", done.stderr, re.MULTILINE)
    for verb, (_, what) in VERBS.items():
        assert re.search(rf"^  {verb} +{re.escape(what)}$", done.stdout, re.MULTILINE)
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("arguments", [[], ["trian"]])
def test_what_is_no_verb_is_answered_with_those_there_are(arguments, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "  train " in captured.out + captured.err and "Traceback" not in captured.err
    assert not arguments or captured.err.startswith("error: no verb 'trian'\n")


def test_the_installed_command_is_the_module():
    (script,) = entry_points(group="console_scripts", name="swim")
    assert script.load() is main
