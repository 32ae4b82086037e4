"""How fast a loop is and how long it will take."""

from __future__ import annotations

import datetime
import resource
import sys
import time

import torch


class Stopwatch:
    """Speed and remaining time of a loop, from the step that starts now.

    Args:
        steps: how many steps the whole loop has.
    """

    def __init__(self, steps: int) -> None:
        self._steps_left = steps
        self._step_start = time.perf_counter()
        self._start_window()

    def _start_window(self) -> None:
        # The speed is that of the steps since the last report: the first ones of a run are slow.
        self._window_start = time.perf_counter()
        self._window_steps = 0
        self._window_data_seconds = 0.0

    def data_ready(self) -> None:
        """The data of this step have arrived."""
        self._window_data_seconds += time.perf_counter() - self._step_start

    def step_done(self) -> None:
        """This step has ended and the next begins."""
        self._window_steps += 1
        self._steps_left -= 1
        self._step_start = time.perf_counter()

    def report(self, steps_after: int = 0) -> str:
        """Steps per second and seconds waited for data per step since the last report, time left.

        Args:
            steps_after: steps that follow this loop and count as time left.
        """
        steps = max(self._window_steps, 1)
        step_seconds = (time.perf_counter() - self._window_start) / steps
        data_seconds = self._window_data_seconds / steps
        left = format_seconds(step_seconds * (self._steps_left + steps_after))
        self._start_window()
        return f"{1 / step_seconds:.2f} it/s  data {data_seconds:.3f} s  left {left}"


def format_seconds(seconds: float) -> str:
    """`1:02:03`, or `2 days, 1:02:03`."""
    return str(datetime.timedelta(seconds=round(seconds)))


def memory_summary(device: torch.device) -> str:
    """The largest amount of memory used so far: the GPU's on CUDA, else the process'."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB"
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.0f} MiB"
