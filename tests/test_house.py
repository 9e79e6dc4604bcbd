"""The house: which room may know which, and which room names a family of models."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import attention_supervision

import swim
from swim.models import MODEL_TYPES

ROOT = Path(swim.__file__).resolve().parent
GROUND = "ground"  # the files beside the rooms: any room may import them, they import none
# From the bottom to the top: a room may import those before it.
ROOMS = [
    GROUND,
    "video",
    "models",
    "data",
    "demo",
    "infer",
    "attention",
    "eval",
    "train",
    "ablation",
    "construct",
    "viewer",
    "lmms_tasks",
    "cli",
]
NAMES_A_FAMILY = {"models/__init__.py", "demo/talking.py", *(f"models/{name}.py" for name in MODEL_TYPES)}


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else GROUND


def imported(path: Path) -> Iterator[str]:
    """The rooms that a file imports from, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            first, _, rest = (name or "").partition(".")
            if first == "swim" and rest:
                room = rest.split(".")[0]
                yield room if (ROOT / room).is_dir() else GROUND


FILES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__main__.py" or room_of(path) != GROUND)


def test_every_room_has_its_place():
    assert {room_of(path) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_a_higher_one(room):
    upwards = {
        f"{path.relative_to(ROOT)} imports {other}"
        for path in FILES
        if room_of(path) == room
        for other in imported(path)
        if ROOMS.index(other) > ROOMS.index(room)
    }
    assert upwards == set()


def test_command_lines_are_read_on_top_only():
    """`command_line` makes the parsers; lmms_tasks runs in an environment of its own, where it is the command."""
    readers = {str(path.relative_to(ROOT)) for path in FILES if re.search(r"\bargparse\b", path.read_text())}
    below = {path for path in readers if not path.startswith("cli/")}
    assert below <= {"command_line.py", "lmms_tasks/__main__.py", "train/key_help.py"}


def test_a_family_of_models_is_named_in_its_own_file():
    """Its model_type, and its classes. The talking model is made for one family."""
    names = "|".join(name.replace("_", "_?") for name in MODEL_TYPES)
    of_a_family = re.compile(f"{names}|qwen2vl", re.IGNORECASE)
    named = {str(path.relative_to(ROOT)) for path in FILES if of_a_family.search(path.read_text())}
    assert named == NAMES_A_FAMILY


def test_the_forks_mathematics_names_no_family():
    """A family's adapter imports it, never the other way round."""
    files = sorted(Path(attention_supervision.__file__).parent.glob("*.py"))
    named = {path.name for path in files if re.search(r"qwen|\.models\b", path.read_text(), re.IGNORECASE)}
    assert files and named == set()


def test_inference_loads_no_trainer():
    code = "import sys, swim.infer.load; print([name for name in ('trl', 'peft', 'deepspeed') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
