"""The child process of one variant: told by lines on its stdin, it answers with lines of JSON.

`python -m benchmarks.worker`, with the measured checkout and tools/ on the path.  Questions:

    {"do": "prepare", "module": "benchmarks.forward", "options": {...}}
    {"do": "round"}                                   one round, timed
    {"do": "count", "rates": {...}}                   `benchmarks.counting.floor` of a round
    {"do": "rates", "options": {...}}                 `benchmarks.machine.measure`

The answer to each is a dict, with `error` (its text) and `kind` (its type) after an exception.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Worker:
    """What one child process holds between two questions."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.round: Callable[[], int] | None = None

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked for."""
        if question["do"] == "prepare":
            return self._prepare(question["module"], question["options"])
        if question["do"] == "round":
            return self._round()
        if question["do"] == "count":
            from benchmarks import counting

            return counting.floor(self.round, question["rates"])
        if question["do"] == "rates":
            from benchmarks import machine

            self._take(question["options"])
            return machine.measure(self.device)
        raise ValueError(f"unknown question {question['do']!r}")

    def _take(self, options: dict[str, Any]) -> None:
        if options["threads"]:
            torch.set_num_threads(options["threads"])
        self.device = torch.device(options["device"])

    def _prepare(self, module: str, options: dict[str, Any]) -> dict[str, Any]:
        self._take(options)
        torch.manual_seed(0)
        self.round = importlib.import_module(module).prepare(options)
        return {"threads": torch.get_num_threads()}

    def _round(self) -> dict[str, Any]:
        reset_peak(self.device)
        synchronize(self.device)
        start = time.perf_counter()
        units = self.round()
        synchronize(self.device)
        seconds = time.perf_counter() - start
        return {
            "seconds": seconds,
            "units": units,
            "peak_bytes": peak_bytes(self.device),
            "held_bytes": held_bytes(self.device),
        }


def synchronize(device: torch.device) -> None:
    """Wait for a GPU's queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Let the highest so far be the present amount, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Largest memory since `reset_peak`: the GPU's tensors, or the resident set of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage may still count what the parent held before it was replaced
        lines = status.read_text().splitlines()
        found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        if found:
            return 2**10 * found[0]
    unit = 1 if sys.platform == "darwin" else 2**10
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def held_bytes(device: torch.device) -> int:
    """What the process needs beside others: on a GPU with what its allocator keeps."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) + 2**29  # a context takes half a GiB
    return peak_bytes(device)


def main() -> None:
    """Answer until stdin ends."""
    # What the project prints goes to stderr: stdout belongs to the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # told to the parent, whatever it is
            traceback.print_exc()
            answer = {"error": str(error), "kind": type(error).__name__}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
