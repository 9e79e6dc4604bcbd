"""One process at a time writes into a folder, on one machine and across the nodes that share a disk."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLease, Timeout

LOCK_FILE = ".in_use"
LEASE_S = 30.0  # a process elsewhere that has not renewed its claim for so long is taken for dead
_PATIENCE_S = 2.0  # enough to take over from a process of this machine that is seen to be dead


class FolderInUse(ValueError):
    """Another process writes into the folder; `str(error)` names it and says how to take over."""


def hold(folder: str | Path) -> SoftFileLease:
    """Claims a folder, made when missing, for this process: until `release` is called on what is returned, nothing refers
    to that any more, or the process ends, however it does.

    A process may claim a folder several times. A claim of a dead process does not count: on this machine that is seen at
    once, elsewhere after LEASE_S seconds without a sign of life. Raises FolderInUse.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    lease = SoftFileLease(
        folder / LOCK_FILE, lease_duration=LEASE_S, is_singleton=True, thread_local=False, on_compromise=_warn
    )
    patience = _PATIENCE_S
    owner = lease.owner
    if not lease.is_locked and owner is not None and owner.hostname != socket.gethostname():
        patience += LEASE_S
        print(
            f"{folder} was claimed by {_name(owner)}: waiting {LEASE_S:.0f} s to see whether it is still alive",
            file=sys.stderr,
        )
    try:
        lease.acquire(timeout=patience)
    except Timeout:
        raise FolderInUse(_refusal(folder, lease.owner)) from None
    return lease


@contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """The folder is this process's within; see `hold`."""
    lease = hold(folder)
    try:
        yield
    finally:
        lease.release()


def _name(owner) -> str:
    return f"process {owner.pid} on {owner.hostname}"


def _refusal(folder: Path, owner) -> str:
    who = "another process" if owner is None else _name(owner)
    return (
        f"{folder} is in use by {who}: two processes would overwrite each other's files there. Wait until it ends, or end it and "
        f"rerun this command, or choose another folder. If that process is not a swim command, remove {folder / LOCK_FILE}"
    )


def _warn(loss):
    sys.stderr.write(
        f"\nwarning: {loss.lock_file}: the claim on this folder is lost ({loss.reason}); another may write there\n"
    )
