"""Another process that writes into a folder."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOLD = "import sys, time; from swim.lock import hold; lease = hold(sys.argv[1]); print('held', flush=True); time.sleep(600)"


@contextmanager
def held_by_another(folder: Path) -> Iterator[subprocess.Popen]:
    """Within it a process of its own holds `folder`; it is killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
