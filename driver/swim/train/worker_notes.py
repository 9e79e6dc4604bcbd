"""What each data worker is reading, for the message about one that hangs."""

import multiprocessing
import time

from torch.utils.data import get_worker_info

_LONGEST = 500  # bytes of a note


class WorkerNotes:
    """Notes in memory that data workers share with the training process; a worker that hangs cannot be asked."""

    def __init__(self, workers: int):
        self._texts = [multiprocessing.RawArray("c", _LONGEST) for _ in range(workers)]
        self._since = multiprocessing.RawArray("d", max(workers, 1))

    def write(self, text: str):
        """Notes what this worker begins now, "" for nothing. In the training process itself nothing is noted."""
        worker = get_worker_info()
        if worker is not None and worker.id < len(self._texts):
            self._texts[worker.id].value = text.encode()[: _LONGEST - 1]
            self._since[worker.id] = time.time()

    def tell(self) -> str:
        """Which worker has been reading what, the longest first."""
        now = time.time()
        busy = [(self._since[worker], worker, text.value) for worker, text in enumerate(self._texts) if text.value]
        lines = [
            f"worker {worker} has been reading {text.decode(errors='replace')} for {now - since:.0f} s"
            for since, worker, text in sorted(busy)
        ]
        return "; ".join(lines) or "no worker is reading a record"
