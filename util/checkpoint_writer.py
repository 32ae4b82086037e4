"""Checkpoints that are written while the training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

State = Mapping[str, Any]


class CheckpointWriter:
    """Copies a state at once and hands the copy to a thread, one at a time.

    The copies' memory is kept for the next ones: a state more, in pinned memory where a GPU is.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._buffers: dict[str, Tensor] = {}

    def submit(self, state: State, write: Callable[[State], None]) -> None:
        """Have `write` called with a copy of a state; waits for the one before.

        Args:
            state: tensors and plain values, nested.
            write: called in the thread; what it raises, the next `submit`, `wait` or `check` does.
        """
        self.wait()
        copy = self._copied(state, "")
        if torch.cuda.is_available():
            torch.cuda.synchronize()

        def run() -> None:
            try:
                write(copy)
            except BaseException as error:
                self._error = error

        self._thread = threading.Thread(target=run, name="checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise what the last writing raised, if it has ended with an error."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Wait until everything is written; see `check`."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _copied(self, value: Any, place: str) -> Any:
        if isinstance(value, Tensor):
            buffer = self._buffers.get(place)
            if buffer is None or buffer.shape != value.shape or buffer.dtype != value.dtype:
                buffer = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
                self._buffers[place] = buffer
            return buffer.copy_(value.detach(), non_blocking=True)
        if isinstance(value, Mapping):
            return {key: self._copied(inner, f"{place}/{key}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._copied(inner, f"{place}/{i}") for i, inner in enumerate(value)]
        return value
