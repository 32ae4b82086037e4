"""Signals that ask a program to end in an orderly way."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from util.live_line import live_line

# What schedulers and people send: SLURM before a time limit, a cluster before it takes a machine
# away, Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

# torchrun passes a Ctrl-C on to processes that have had it from the terminal already.
_SAME_SECONDS = 1.0


class RunStoppedError(Exception):
    """A run ended before its time because it was asked to; the message says how to go on.

    Args:
        message: for the user.
        number: of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class StopSignals:
    """While it is entered, a signal is only noted; a second one ends the process at once.

    Attributes:
        received: number of the first signal; None: there was none.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._time = 0.0
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Only the main thread may, and only it is ever interrupted.
        if threading.current_thread() is threading.main_thread():
            self._earlier = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._time = number, time.monotonic()
            live_line.clear()
            print(
                f"{signal.Signals(number).name}: ending after this step; once more ends at once.",
                file=sys.stderr,
                flush=True,
            )
        elif time.monotonic() - self._time > _SAME_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
