"""Work on many things at a time, in threads or processes: nothing is lost when one fails, and Ctrl-C ends all at once."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
SPAWN = multiprocessing.get_context("spawn")  # forking a process that runs torch's threads can deadlock


def run_concurrently(
    tasks: Iterable[Task], function: Callable[[Task], Result], concurrency: int
) -> Iterator[tuple[Task, Result]]:
    """(task, function(task)) as they get ready, `concurrency` at a time, never more than twice as many waiting.

    When a call raises, no new one starts, the results of those under way are yielded too, and then the error is raised.
    After Ctrl-C nothing is waited for: the threads are daemons.
    """
    waiting: dict[Future, Task] = {}
    queue: SimpleQueue[tuple[Future, Task] | None] = SimpleQueue()
    for _ in range(concurrency):
        threading.Thread(target=_work, args=(queue, function), name="run_concurrently", daemon=True).start()
    try:
        for task in tasks:
            future: Future = Future()
            waiting[future] = task
            queue.put((future, task))
            if len(waiting) >= 2 * concurrency:
                yield from _collect(waiting)
        while waiting:
            yield from _collect(waiting)
    except Exception:
        under_way = [(future, task) for future, task in waiting.items() if not future.cancel()]
        for future, task in under_way:
            if future.exception() is None:
                yield task, future.result()
        raise
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(concurrency):
            queue.put(None)


def _work(queue: SimpleQueue, function: Callable[[Task], Result]):
    """One thread: takes (future, task) from the queue until it finds None."""
    for future, task in iter(queue.get, None):
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(function(task))
        except BaseException as error:  # raised again where the result is asked for
            future.set_exception(error)


def _collect(waiting: dict[Future, Task]) -> Iterator[tuple[Task, Any]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        task = waiting.pop(future)
        yield task, future.result()


class WorkerProcesses(ProcessPoolExecutor):
    """A pool of spawned processes, for a `with` statement, of which none outlives this process, however it ends.

    Ctrl-C in a terminal reaches every process of a command. Here the workers never notice it, not even while they are
    still importing, where no handler of theirs is in place yet; this process alone does, and an exception that leaves the
    `with` statement drops what is queued and kills the workers at once.
    """

    def __init__(self, workers: int, initializer: Callable | None = None, initargs: tuple = ()):
        super().__init__(workers, SPAWN, _begin_worker, (initializer, initargs))

    def submit(self, function: Callable, /, *args, **kwargs) -> Future:
        with _ctrl_c_held_back():  # this is where processes start
            return super().submit(function, *args, **kwargs)

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.shutdown()
            return
        workers, manager = list(self._processes.values()), self._executor_manager_thread  # which shutdown forgets
        self.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join()
        if manager is not None:  # it closes a pipe into which Python writes when it ends
            manager.join()  # type: ignore[attr-defined]  # typeshed takes it for another class


def killed_with_parent():
    """For `preexec_fn`: asks Linux to kill this process with the thread that started it, also where that one is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a polite signal would let it save first


def _begin_worker(initializer: Callable | None, initargs: tuple):
    threading.Thread(target=_end_with_parent, name="end_with_parent", daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _end_with_parent():
    """Without it a worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Ctrl-C within takes effect at the end; processes that start within never receive it, as they inherit the mask.

    The handler is replaced as well, because another thread of this process may receive the signal despite the mask.
    """
    received = []
    main = threading.current_thread() is threading.main_thread()  # no other thread has handlers, nor needs them
    handler = signal.signal(signal.SIGINT, lambda *_: received.append(True)) if main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if main:
            signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)
