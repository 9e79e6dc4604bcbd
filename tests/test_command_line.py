"""The commands' help, and Ctrl-C."""

import importlib
import re
import signal
import subprocess
import sys
import time

import pytest

COMMANDS = (
    "attention.visualize construct.__main__ construct.from_masks construct.llava construct.review data.check download "
    "eval.bench_d eval.bench_q eval.compare eval.grounding infer.__main__ train.export viewer.__main__"
).split()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_sentence_and_a_default_for_every_option(command, capsys):
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"swim.{command}").main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out.split("options:")[1]
    options = [" ".join(part.split()) for part in re.split(r"\n  (?=-)", text)[1:]]
    assert options
    for option in options:
        assert option.startswith("-h") or re.search(r"(default|required)", option), option


def test_ctrl_c_ends_in_one_line_even_while_a_command_is_loading():
    process = subprocess.Popen([sys.executable, "-m", "swim.eval.grounding"], stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)  # its imports take longer
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130) and "Traceback" not in errors
    assert errors.strip().splitlines()[-1] == "interrupted"
