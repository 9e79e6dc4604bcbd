"""The error of bad data: it names the file, the record and the remedy."""

import difflib
import errno
from collections.abc import Iterable
from enum import StrEnum

# Temporary errors of a disk, a network or a busy machine, whatever file is read.
_PASSING = {
    getattr(errno, name)
    for name in (
        "EIO EREMOTEIO ESTALE ETIMEDOUT EAGAIN EINTR EBUSY EMFILE ENFILE ENETDOWN ENETUNREACH ENETRESET EHOSTDOWN "
        "EHOSTUNREACH ECONNREFUSED ECONNRESET ECONNABORTED ENOTCONN ESHUTDOWN"
    ).split()
    if hasattr(errno, name)
}


class Reason(StrEnum):
    """What kind of thing is wrong: skipped records are counted by it."""

    MALFORMED = "malformed record"
    TAGS = "tags do not fit the instances"
    NO_MASK = "no usable mask"
    BAD_MASK = "mask does not decode or fit its frame"
    MISSING = "missing file"
    URL = "URL, in data that is not trusted"
    OUTSIDE = "path out of data_root, in data that is not trusted"
    UNREADABLE = "unreadable video or image"
    TIMEOUT = "decoding takes too long"
    NOT_READ = "the disk or the network does not answer"
    CRASH = "reading it ends the process"
    TOO_LONG = "longer than max_length"

    @property
    def may_pass(self) -> bool:
        """Whether the same record may be readable later: it is retried, and never listed as bad."""
        return self in (Reason.TIMEOUT, Reason.NOT_READ)

    @classmethod
    def of(cls, error: Exception, otherwise: "Reason") -> "Reason":
        """NOT_READ for a temporary error of a disk or network (EIO, ESTALE, ...), else `otherwise`."""
        return cls.NOT_READ if getattr(error, "errno", None) in _PASSING else otherwise


class DataError(Exception):
    """Something in the user's data cannot be used. `str(error)` reads "where: what was expected and found".

    where: file and record, for example "train.json, record 3 (videorefer_detailed_caption_3)"; filled in by whoever
    knows it, by `DataError.at`. reason: the kind of problem.
    """

    def __init__(self, message: str, where: str | None = None, reason: Reason = Reason.MALFORMED):
        super().__init__(message if where is None else f"{where}: {message}")
        self.message = message
        self.where = where
        self.reason = reason

    def at(self, where: str) -> "DataError":
        """The same error with its place, unless it already has one."""
        return self if self.where is not None else DataError(self.message, where, self.reason)

    def __reduce__(self):  # a worker process sends it with all arguments
        return DataError, (self.message, self.where, self.reason)


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """ "; did you mean 'known'?" for a word that is nearly one of them, else ""."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
