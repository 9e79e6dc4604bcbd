"""Starts a module in several processes, as torchrun does, but reports a failure in one line.

    python -m swim.launch --nproc_per_node 2 --standalone -m swim train --config FILE

Exits with the status of the process that failed first, or with 128 plus the signal's number after a signal.
"""

import logging
import os
import signal
import socket
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

# Signals that users may send: the processes receive them, and save a checkpoint before they exit.
SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
_STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGUSR1, 128 + signal.SIGINT)


def main(arguments: list[str]) -> int:
    logging.disable(logging.CRITICAL)  # in this process only: torchrun logs every step of stopping the others
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun sets it, with a warning
    try:
        torchrun(["--signals-to-handle", SIGNALS, *arguments])
    except ChildFailedError as error:
        return _told(error)
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


def _told(error: ChildFailedError) -> int:
    """Reports which process failed first; that process has printed the error itself. Returns its status."""
    rank, failure = error.get_first_failure()
    who = f"process {rank} of this run (pid {failure.pid} on {socket.gethostname()})"
    if failure.exitcode < 0:
        hint = ": out of memory?" if -failure.exitcode == signal.SIGKILL else ""
        sys.stderr.write(f"\nerror: {who} was killed by {failure.signal_name()}{hint}\n")
        return 128 - failure.exitcode
    if failure.exitcode not in _STOPPED:
        sys.stderr.write(f"\nerror: {who} ended with status {failure.exitcode}; see its own error above\n")
    return failure.exitcode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
