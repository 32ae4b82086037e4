"""Work done by several processes, with little of it waiting at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from util.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Iterator[Result]:
    """The results of `work(task)`, in the tasks' order.

    At most three tasks per process are waiting, so that their memory is bounded.

    Args:
        work: a module's function, which other processes can import.
        tasks: are asked for as they are needed.
        workers: processes; 1: it is done in this one.

    Raises:
        UserError: a process was killed.
    """
    if workers == 1:
        yield from map(work, tasks)
        return
    with contextlib.ExitStack() as stack:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) >= 3 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process was ended from outside. If the system killed it, memory was "
                "short: lower --workers."
            ) from error


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent ends the others
    os.environ.setdefault("OMP_NUM_THREADS", "1")
