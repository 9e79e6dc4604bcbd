"""Work on many things at a time, in threads, without losing what is under way when one of them fails."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def run_concurrently(
    tasks: Iterable[Task], function: Callable[[Task], Result], concurrency: int
) -> Iterator[tuple[Task, Result]]:
    """(task, function(task)) as they get ready, `concurrency` at a time, never more than twice as many waiting.

    When a call raises, no new one starts, what those under way give comes too, and then the error goes on.
    """
    waiting: dict[Future, Task] = {}
    pool = ThreadPoolExecutor(concurrency)
    try:
        for task in tasks:
            waiting[pool.submit(function, task)] = task
            if len(waiting) >= 2 * concurrency:
                yield from _collect(waiting)
        while waiting:
            yield from _collect(waiting)
    except Exception:
        pool.shutdown(cancel_futures=True)
        for future, task in waiting.items():
            if not future.cancelled() and future.exception() is None:
                yield task, future.result()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(waiting: dict[Future, Task]) -> Iterator[tuple[Task, Any]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        task = waiting.pop(future)
        yield task, future.result()
