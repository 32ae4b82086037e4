"""Work done by several processes, with little of it waiting at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from util.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Generator[Result, None, None]:
    """The results of `work(task)`, in the tasks' order.

    At most three tasks per process are waiting, so that their memory is bounded. After an error,
    or `close` where the rest is not wanted, processes are ended in the midst of their work.

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
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                with _without_interruption():
                    waiting.append(pool.submit(work, task))
                if len(waiting) >= 3 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException as error:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()  # else the pool waits for what they are doing
            if isinstance(error, BrokenProcessPool):
                raise UserError(
                    "A worker process was ended from outside. If the system killed it, memory was "
                    "short: lower --workers."
                ) from error
            raise


@contextlib.contextmanager
def _without_interruption() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal; those that begin here do not hear it.

    The parent hears it when the block ends, and ends the others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
