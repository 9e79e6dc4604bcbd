"""The error of bad data: it names the file, the record and the remedy."""


class DataError(Exception):
    """Something in the user's data cannot be used. `str(error)` reads "where: what was expected and found".

    where: file and record, for example "train.json, record 3 (videorefer_detailed_caption_3)"; filled in by whoever
    knows it, by `DataError.at`.
    """

    def __init__(self, message: str, where: str | None = None):
        super().__init__(message if where is None else f"{where}: {message}")
        self.message = message
        self.where = where

    def at(self, where: str) -> "DataError":
        """The same error with its place, unless it already has one."""
        return self if self.where is not None else DataError(self.message, where)

    def __reduce__(self):  # a worker process sends it with both arguments
        return DataError, (self.message, self.where)
