"""Workers that take turns, so that a machine that slows down slows all of them alike.

Each variant is a child process of its own.  In every round each does its share once, in an order
that alternates (first to last, last to first), so that a steady drift cancels.

Memory is bounded: a group of workers is together only as far as the largest of them fits once more
into what is left.  The others wait, and get a group of their own with the first variant, to which
ratios refer.  A variant that does not fit beside the first one is measured alone; its ratio is then
that of the medians.  A training step of the full-size model takes about 6 GiB: in 20 GiB
three of them are together.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from util.errors import UserError

TOOLS = Path(__file__).resolve().parents[1]
OUT_OF_MEMORY = "OutOfMemoryError"
LAST_LINES = 20
NEVER = threading.TIMEOUT_MAX


class WorkerError(UserError):
    """A worker could not do what it was told: for lack of "memory" or "time", or by an "error"."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Entry:
    """One variant to measure.

    Attributes:
        name: in the tables.
        variant: of the module's `VARIANTS`.
        module: what the worker imports, such as "benchmarks.forward".
        options: for its `prepare`.
        checkout: folder of the project that is measured.
        environment: variables of the worker, besides ours.
        is_older: whether it is another commit's.
        is_counted: whether a floor may be counted on it.
    """

    name: str
    variant: str
    module: str
    options: Mapping[str, Any]
    checkout: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    is_older: bool = False
    is_counted: bool = True


@dataclass
class Measurement:
    """What came out for an entry.

    Attributes:
        entry: the variant.
        rounds: seconds per unit by the number of the round; variants that were measured together
            share numbers.
        units: of a round.
        peak_bytes: the largest memory during a round.
        floor: of `benchmarks.counting.floor`, where one was counted here.
        error: why there is nothing.
        reason: of that: "memory", "time" or "error".
    """

    entry: Entry
    rounds: dict[int, float] = field(default_factory=dict)
    units: int = 0
    peak_bytes: int = 0
    floor: dict[str, Any] | None = None
    error: str | None = None
    reason: str | None = None


class WorkerProcess:
    """A running child process.

    Args:
        entry: what it measures.
        folder: takes what it prints.
    """

    def __init__(self, entry: Entry, folder: Path) -> None:
        self.entry = entry
        self.held_bytes = 0
        self._is_late = False
        environment = {**os.environ, **entry.environment, "PYTHONUNBUFFERED": "1"}
        threads = entry.options["threads"]
        if threads:
            environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        path = [str(entry.checkout), str(TOOLS), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(part for part in path if part)
        number, name = tempfile.mkstemp(dir=folder, suffix=".txt")
        os.close(number)
        self.printed = Path(name)
        with self.printed.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.worker"],
                cwd=entry.checkout,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def ask(self, what: str, until: float = NEVER, **details: Any) -> dict[str, Any]:
        """Put a question of `benchmarks.worker` and wait for the answer.

        Args:
            what: to do.
            until: `time.monotonic()` at which the worker is ended without an answer.
            details: of the question.

        Raises:
            WorkerError: it failed or died; the message has the last lines that it printed.
        """
        clock = threading.Timer(max(0.0, until - time.monotonic()), self._end_late)
        if until < NEVER:
            clock.start()
        try:
            _stream(self.process.stdin).write(json.dumps({"do": what, **details}) + "\n")
            _stream(self.process.stdin).flush()
            line = _stream(self.process.stdout).readline()
        except BrokenPipeError:
            line = ""
        finally:
            clock.cancel()
        if not line:
            status = self.process.wait()
            if self._is_late:
                raise self._failed(what, "no answer in the time that was left", "time")
            text = "was killed (out of memory?)" if status == -9 else f"ended with status {status}"
            raise self._failed(what, text, "memory" if status == -9 else "error")
        answer = json.loads(line)
        if "error" in answer:
            text = f"{answer['kind']}: {answer['error']}"
            is_memory = answer["kind"] == OUT_OF_MEMORY
            raise self._failed(what, text, "memory" if is_memory else "error")
        self.held_bytes = max(self.held_bytes, answer.get("held_bytes", 0))
        return answer

    def _end_late(self) -> None:
        self._is_late = True
        self.process.kill()

    def _failed(self, what: str, text: str, reason: str) -> WorkerError:
        lines = self.printed.read_text(errors="replace").splitlines()[-LAST_LINES:]
        where = f"The worker of '{self.entry.name}' ({self.entry.checkout}) failed in '{what}'"
        return WorkerError("\n  ".join([f"{where}: {text}", *lines]), reason)

    def stop(self) -> None:
        """End the process and wait until it is gone."""
        with contextlib.suppress(BrokenPipeError):
            _stream(self.process.stdin).close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _stream(self.process.stdout).close()


def _stream(stream: IO[str] | None) -> IO[str]:
    if stream is None:
        raise RuntimeError("the worker was started without pipes")
    return stream


@contextlib.contextmanager
def worker(entry: Entry) -> Iterator[WorkerProcess]:
    """One worker for the time of a block."""
    with tempfile.TemporaryDirectory(prefix="benchmark_") as folder:
        process = WorkerProcess(entry, Path(folder))
        try:
            yield process
        finally:
            process.stop()


class Turns:
    """Measures entries.

    Args:
        entries: at least one; ratios refer to the first.
        rounds: of every variant.
        warmup: rounds before them, which do not count.
        seconds: no new round begins when they are over (0: all rounds are done); they are shared
            by the groups, and every variant has at least one round.
        memory_bytes: what all workers together may take, on the CPU or on the GPU.
        keeps_going: after a failure the others go on, and `Measurement.error` says what happened.
        count: entries whose floor is counted after their rounds, by `rates`.
        rates: of `benchmarks.machine.measure`.
        until: `time.monotonic()` at which all ends; what was not measured by then has failed.
        start_seconds: longest start of a worker, its warm-up included; later it has failed.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        rounds: int,
        warmup: int = 1,
        seconds: float = 0.0,
        memory_bytes: float,
        keeps_going: bool = False,
        count: Sequence[Entry] = (),
        rates: Mapping[str, Any] | None = None,
        until: float = NEVER,
        start_seconds: float = NEVER,
    ) -> None:
        self.measurements = [Measurement(entry) for entry in entries]
        self.rounds = rounds
        self.warmup = warmup
        self.seconds = seconds
        self.memory_bytes = memory_bytes
        self.keeps_going = keeps_going
        self.count = list(count)
        self.rates = rates
        self.until = until
        self.start_seconds = start_seconds
        self._largest_bytes = 0
        self._number = 0
        self._folder = Path()
        self._bar = tqdm(disable=True)

    def measure(self) -> list[Measurement]:
        """Measure all entries.

        Raises:
            WorkerError: a worker failed, unless `keeps_going`.
        """
        waiting = list(self.measurements)
        total = len(waiting) * (self.warmup + self.rounds)
        with (
            tempfile.TemporaryDirectory(prefix="benchmark_") as folder,
            tqdm(total=total, unit="round", leave=False, file=sys.stderr) as self._bar,
        ):
            self._folder = Path(folder)
            while waiting:
                running: list[tuple[Measurement, WorkerProcess]] = []
                try:
                    self._gather(waiting, running)
                    self._take_turns(running)
                finally:
                    for _, process in running:
                        process.stop()
        return self.measurements

    def _gather(
        self, waiting: list[Measurement], running: list[tuple[Measurement, WorkerProcess]]
    ) -> None:
        """Start the workers of a group; `waiting` loses them and `running` gets them."""
        first = self.measurements[0]
        if (
            first not in waiting
            and first.error is None
            and 2 * self._largest_bytes <= self._room(running)
        ):
            self._bar.total += self.warmup + self.rounds
            self._start(first, running)
        while waiting and (not running or self._largest_bytes <= self._room(running)):
            measurement = waiting.pop(0)
            try:
                self._start(measurement, running)
            except WorkerError as error:
                if error.reason == "memory" and running:
                    waiting.insert(0, measurement)
                    self._largest_bytes = max(self._largest_bytes, int(self.memory_bytes))
                    return
                self._fail(measurement, error)

    def _room(self, running: Sequence[tuple[Measurement, WorkerProcess]]) -> float:
        return self.memory_bytes - sum(process.held_bytes for _, process in running)

    def _start(
        self, measurement: Measurement, running: list[tuple[Measurement, WorkerProcess]]
    ) -> None:
        entry = measurement.entry
        self._bar.set_description(f"{entry.name}: start")
        until = min(self.until, time.monotonic() + self.start_seconds)
        process = WorkerProcess(entry, self._folder)
        try:
            process.ask("prepare", until, module=entry.module, options=dict(entry.options))
            for _ in range(self.warmup):
                process.ask("round", until)
                self._bar.update()
        except BaseException:
            process.stop()
            raise
        self._largest_bytes = max(self._largest_bytes, process.held_bytes)
        running.append((measurement, process))

    def _take_turns(self, running: list[tuple[Measurement, WorkerProcess]]) -> None:
        share = self.seconds * len(running) / len(self.measurements)
        deadline = time.monotonic() + share if self.seconds else NEVER
        for turn in range(self.rounds):
            if turn and time.monotonic() > deadline:
                break
            self._one_round(running[:: -1 if turn % 2 else 1])
        for measurement, process in running:
            if measurement.entry in self.count and measurement.error is None:
                self._bar.set_description(f"{measurement.entry.name}: floor")
                try:
                    measurement.floor = process.ask("count", self.until, rates=self.rates)
                except WorkerError as error:
                    self._fail(measurement, error)

    def _one_round(self, running: Sequence[tuple[Measurement, WorkerProcess]]) -> None:
        self._number += 1
        for measurement, process in running:
            if measurement.error is not None:
                continue
            self._bar.set_description(measurement.entry.name)
            try:
                answer = process.ask("round", self.until)
            except WorkerError as error:
                self._fail(measurement, error)
                continue
            measurement.rounds[self._number] = answer["seconds"] / max(1, answer["units"])
            measurement.units = answer["units"]
            measurement.peak_bytes = max(measurement.peak_bytes, answer["peak_bytes"])
            self._bar.update()

    def _fail(self, measurement: Measurement, error: WorkerError) -> None:
        if not self.keeps_going:
            raise error
        measurement.error = str(error)
        measurement.reason = error.reason


def available_bytes() -> int:
    """Nine tenths of the memory that is free now; 8 GiB where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 8 * 2**30
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return int(0.9 * 2**10 * free)
