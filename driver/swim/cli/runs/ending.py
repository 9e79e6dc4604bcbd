"""How a command ends that cannot do its work."""

import sys
from collections.abc import Callable

from swim.errors import DataError
from swim.llm import ServiceRefuses


def status_of(work: Callable[[], int], *more: type[Exception]) -> int:
    """The exit status: that of `work`, or 2 with one line for what users' files, options and services are to blame for.

    more: further error types that are reported the same way.
    """
    told: tuple[type[Exception], ...] = (DataError, ValueError, ServiceRefuses, *more)
    try:
        return work()
    except told as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
