"""The error of bad data: it names the file, the record and the remedy."""

from enum import StrEnum


class Reason(StrEnum):
    """What kind of thing is wrong: skipped records are counted by it."""

    MALFORMED = "malformed record"
    TAGS = "tags do not fit the instances"
    NO_MASK = "no usable mask"
    BAD_MASK = "mask does not decode or fit its frame"
    MISSING = "missing file"
    UNREADABLE = "unreadable video or image"
    TIMEOUT = "decoding takes too long"
    TOO_LONG = "longer than max_length"


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
