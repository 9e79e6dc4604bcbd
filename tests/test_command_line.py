"""The commands' help, and Ctrl-C."""

import argparse
import contextlib
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


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"train", "grpo"}))  # whose keys have bounds of their own
def test_every_number_has_its_bounds(verb, monkeypatch):
    """`--limit -1` left out the last record without a word, and `--concurrency 0` failed far from the option."""
    parsers = []
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda parser, *_: parsers.append(parser) or sys.exit())
    with pytest.raises(SystemExit):
        main([verb])
    for action in parsers[0]._actions:
        if action.type in (None, str, Path) or not numeric(action.type):
            continue
        text = "/".join(action.option_strings)
        for wrong in ("-7", "nan", "inf", "many"):
            with pytest.raises(argparse.ArgumentTypeError, match=r"expected a (whole )?number, (at least|above) \d"):
                action.type(wrong)
                pytest.fail(f"{text} takes {wrong}")
        if action.default is not None:
            assert action.type(str(action.default)) == action.default, text


def numeric(read) -> bool:
    """Whether an option's type makes numbers of texts."""
    for text in ("1", "0.5"):
        with contextlib.suppress(ValueError, argparse.ArgumentTypeError):
            return type(read(text)) in (int, float)
    return False


def test_a_number_out_of_its_bounds_is_refused_with_them(capsys):
    for arguments, message in {
        ("--limit", "0"): "argument --limit: expected a whole number, at least 1, found '0'",
        ("--limit", "2.5"): "argument --limit: expected a whole number, at least 1, found '2.5'",
        ("--min_coverage", "1.5"): "argument --min_coverage: expected a number, at least 0 and at most 1, found '1.5'",
        ("--timeout_s", "0"): "argument --timeout_s: expected a number, above 0, found '0'",
    }.items():
        with pytest.raises(SystemExit) as ended:
            main(["bench-d", *arguments])
        assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        *(["construct", option, "0"] for option in ("--shard_size", "--attempts", "--limit", "--concurrency")),
        ["construct", "--with_frames", "-1"],
        ["from-masks", "--frame_step", "0"],
        ["llava", "--sample", "0"],
        ["review", "--sample", "0"],
        ["review", "--frames", "0"],
        ["gather", "--concurrency", "0"],
        ["infer", "--folder_fps", "0"],
        ["layers", "--size", "0"],
        ["ablate", "--workers", "0"],
    ],
    ids=" ".join,
)
def test_nothing_is_asked_of_a_number_that_means_nothing(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and f"argument {arguments[1]}: expected a " in error, error


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
