"""One line of a terminal that is rewritten in place, between the plain ones.

There is one terminal, and so one `live_line`.  Whoever prints anything else clears it before;
`util.logging` does so for everything that is logged.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import TextIO

_SECONDS_BETWEEN = 0.25


class LiveLine:
    """Nothing to begin with: it shows itself where `attach` has found a terminal."""

    def __init__(self) -> None:
        self._descriptor: int | None = None
        self._length = 0  # of what stands there, in columns
        self._earliest = 0.0  # for the next text

    def attach(self, stream: TextIO | None) -> None:
        """Use `stream` if it is a terminal, else none."""
        self.clear()
        is_terminal = stream is not None and stream.isatty()
        self._descriptor = stream.fileno() if is_terminal else None

    def show(self, text: Callable[[], str]) -> None:
        """Replace the line, at most a few times a second.

        Args:
            text: called where there is a terminal and it is time; what exceeds the width is cut
                off.
        """
        if self._descriptor is None or time.monotonic() < self._earliest:
            return
        self._earliest = time.monotonic() + _SECONDS_BETWEEN
        # In the last column some terminals begin a new line.
        line = text()[: shutil.get_terminal_size().columns - 1]
        before, self._length = self._length, len(line)
        self._write("\r" + line.ljust(before))

    def clear(self) -> None:
        """Take the line away, and stand where it began; also within a signal's handler."""
        length, self._length = self._length, 0
        if length > 0:
            self._write("\r" + " " * length + "\r")

    def _write(self, text: str) -> None:
        # Not by way of the stream: a signal's handler may have interrupted it.
        try:
            os.write(self._descriptor, text.encode())
        except OSError:  # a closed terminal is no reason to end
            self._descriptor, self._length = None, 0


live_line = LiveLine()
