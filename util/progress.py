"""How far a loop is, how fast, and how long it will take."""

from __future__ import annotations

import datetime
import logging
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from util.live_line import live_line
from util.logging import LOGGER_NAME
from util.loss_means import LossMeans

logger = logging.getLogger(LOGGER_NAME)


@dataclass(frozen=True)
class Speed:
    """Means over some steps of a loop.

    Attributes:
        step_seconds: of a step.
        data_seconds: of these, waiting for its data.
        images_per_second: images of the steps by their time.
    """

    step_seconds: float
    data_seconds: float
    images_per_second: float

    def in_words(self, steps_left: int) -> str:
        """Steps per second, seconds waited for data per step, and time left."""
        left = format_seconds(self.step_seconds * steps_left)
        return f"{1 / self.step_seconds:.2f} it/s  data {self.data_seconds:.3f} s  left {left}"


@dataclass
class _Span:
    """What has happened since `start`, in seconds of `time.perf_counter`."""

    start: float
    steps: int = 0
    images: int = 0
    data_seconds: float = 0.0

    def speed(self) -> Speed:
        seconds = max(time.perf_counter() - self.start, 1e-9)
        steps = max(self.steps, 1)
        return Speed(seconds / steps, self.data_seconds / steps, self.images / seconds)


class Stopwatch:
    """Speed of a loop, from the step that starts now.

    Attributes:
        step_seconds: of a step at present, for looking at it often: it changes slowly.
    """

    def __init__(self) -> None:
        self._step_start = time.perf_counter()
        self._all, self._recent = _Span(self._step_start), _Span(self._step_start)
        self.step_seconds = 0.0

    def data_ready(self) -> None:
        """The data of this step have arrived."""
        seconds = time.perf_counter() - self._step_start
        self._all.data_seconds += seconds
        self._recent.data_seconds += seconds

    def step_done(self, images: int) -> None:
        """This step, of so many images, has ended and the next begins."""
        for span in (self._all, self._recent):
            span.steps += 1
            span.images += images
        now = time.perf_counter()
        share = max(0.1, 1 / self._all.steps)
        self.step_seconds += share * (now - self._step_start - self.step_seconds)
        self._step_start = now

    def recent(self) -> Speed:
        """Of the steps since the last call: the first ones of a run are slow."""
        speed = self._recent.speed()
        self._recent = _Span(time.perf_counter())
        return speed

    def total(self) -> Speed:
        """Of all steps."""
        return self._all.speed()


class EpochProgress:
    """What an epoch of training tells while it runs, to be made when it starts.

    Every `log_every` steps and at the epoch's end that is a line for the log and a point of the
    curves; in between, on a terminal, the live line.  To be used on all processes alike.

    Args:
        epoch: 0, 1, ...
        epochs: how many there are in all.
        steps: of a whole epoch.
        first_step: 0, 1, ...; the steps before it are done already.
        log_every: steps between two lines.
        means: of the epoch's losses.
        rates: present learning rate of every group of parameters.
        images: of a step (0, 1, ... of the epoch), on all processes together.
        device: whose memory to look at.
        track: takes the point of the curves, values by name.
    """

    def __init__(
        self,
        epoch: int,
        epochs: int,
        steps: int,
        first_step: int,
        *,
        log_every: int,
        means: LossMeans,
        rates: Callable[[], Mapping[str, float]],
        images: Callable[[int], int],
        device: torch.device,
        track: Callable[[Mapping[str, float]], None],
    ) -> None:
        self._epoch = epoch
        self._epochs = epochs
        self._steps = steps
        self._done = first_step
        self._log_every = log_every
        self._means = means
        self._rates = rates
        self._images = images
        self._device = device
        self._track = track
        self._watch = Stopwatch()

    def data_ready(self) -> None:
        """The data of a step have arrived."""
        self._watch.data_ready()

    def step_done(self) -> None:
        """A step has ended.

        Raises:
            NonFiniteLossError: see `LossMeans.add`.
        """
        self._watch.step_done(self._images(self._done))
        self._done += 1
        if self._done % self._log_every == 0 or self._done == self._steps:
            self._report()
        else:
            live_line.show(self._live_text)

    def speed(self) -> dict[str, float]:
        """Of the epoch so far, without the steps before `first_step`, for its record."""
        return _numbers(self._watch.total(), self._device)

    def _report(self) -> None:
        rates, losses, speed = self._rates(), self._means.recent(), self._watch.recent()
        logger.info(
            "%s  lr %.2e  %s  %s  memory %.0f MiB",
            self._place(),
            max(rates.values()),
            self._means.in_words(losses),
            speed.in_words(self._steps_left() + self._steps_after()),
            memory_mib(self._device),
        )
        self._track(
            {
                **{f"step/{name}": value for name, value in losses.items()},
                **{f"lr/{name}": rate for name, rate in rates.items()},
                **{f"speed/{name}": v for name, v in _numbers(speed, self._device).items()},
            }
        )

    def _live_text(self) -> str:
        loss, seconds = self._means.latest_loss, self._watch.step_seconds
        left, after = self._steps_left(), self._steps_after()
        return "  ".join(
            [
                self._place(),
                *([] if loss is None else [f"loss {loss:.4f}"]),
                f"{1 / max(seconds, 1e-9):.2f} it/s",
                f"left {format_seconds(seconds * left)}",
                f"of the run {format_seconds(seconds * (left + after))}",
            ]
        )

    def _place(self) -> str:
        return f"epoch {self._epoch} [{self._done:{len(str(self._steps))}d}/{self._steps}]"

    def _steps_left(self) -> int:
        return self._steps - self._done

    def _steps_after(self) -> int:
        return self._steps * (self._epochs - self._epoch - 1)


class EvaluationProgress:
    """What an evaluation tells while it runs: a line every so often, the live line in between.

    Args:
        batches: how many there are.
        log_every: batches between two lines.
    """

    def __init__(self, batches: int, log_every: int) -> None:
        self._batches = batches
        self._done = 0
        self._log_every = log_every
        self._watch = Stopwatch()

    def data_ready(self) -> None:
        """The data of a batch have arrived."""
        self._watch.data_ready()

    def step_done(self, images: int) -> None:
        """A batch of so many images has been evaluated."""
        self._watch.step_done(images)
        self._done += 1
        if self._done % self._log_every == 0:
            words = self._watch.recent().in_words(self._batches - self._done)
            logger.info("evaluation [%d/%d]  %s", self._done, self._batches, words)
        else:
            live_line.show(self._live_text)

    def end(self) -> None:
        """No batch is left."""
        live_line.clear()

    def _live_text(self) -> str:
        seconds = self._watch.step_seconds
        left = format_seconds(seconds * (self._batches - self._done))
        place = f"evaluation [{self._done}/{self._batches}]"
        return f"{place}  {1 / max(seconds, 1e-9):.2f} it/s  left {left}"


def format_seconds(seconds: float) -> str:
    """`1:02:03`, or `2 days, 1:02:03`."""
    return str(datetime.timedelta(seconds=round(seconds)))


def memory_mib(device: torch.device) -> float:
    """The largest amount of memory used so far, in MiB: the GPU's on CUDA, else the process'."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _numbers(speed: Speed, device: torch.device) -> dict[str, float]:
    """Speed and memory by name."""
    numbers = {
        "images_per_second": speed.images_per_second,
        "data_seconds": speed.data_seconds,
        "step_seconds": speed.step_seconds,
        "memory_mib": memory_mib(device),
    }
    return {name: round(value, 6) for name, value in numbers.items()}
