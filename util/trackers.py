"""Where curves and images of a run go: TensorBoard, Weights & Biases, MLflow.

A new kind is a class with the methods of `Tracker` and a line in `TRACKERS`; its library is
imported only when somebody asks for it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from util import distributed
from util.errors import UserError
from util.logging import LOGGER_NAME, write_json

logger = logging.getLogger(LOGGER_NAME)

# Under which name the servers of others remember a run of this folder, by kind of tracker.
_IDS = "trackers.json"
_PROJECT = "uniphd"


class Tracker(Protocol):
    """One place where curves and images go.

    Attributes:
        run_id: that continues it; None: the folder does.
    """

    run_id: str | None

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add a point to every named curve, at a step of the whole run."""

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Add an image [h, w, 3] uint8 RGB."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in the folder `tensorboard/`.

    Args:
        folder: of the run.
        settings: unused, they are in config.py.
        first_step: points from here on, which an earlier run has left, are taken back.
        run_id: unused.
    """

    run_id = None

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], first_step: int, run_id: str | None
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """See `Tracker`."""
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class WeightsAndBiases:
    """A run of https://wandb.ai, named after the folder; `WANDB_MODE=offline` keeps it here.

    Steps are a curve of their own, as points cannot be taken back there: those of steps that are
    done a second time are drawn over each other.

    Args:
        folder: of the run.
        settings: kept with the curves.
        first_step: unused, see above.
        run_id: of the earlier run that goes on; None: it is new.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], first_step: int, run_id: str | None
    ) -> None:
        import wandb

        self._image = wandb.Image
        self._run = wandb.init(
            project=_PROJECT,
            name=folder.resolve().name,
            dir=str(folder),
            id=run_id,
            resume="allow",
        )
        self._run.config.update(dict(settings), allow_val_change=True)
        self._run.define_metric("*", step_metric="training_step")
        self.run_id = self._run.id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self._run.log({**values, "training_step": step})

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """See `Tracker`."""
        self._run.log({name: self._image(pixels), "training_step": step})

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


class MLflow:
    """A run of https://mlflow.org, named after the folder, where `MLFLOW_TRACKING_URI` says.

    Points of steps that are done a second time are drawn over each other.

    Args:
        folder: of the run.
        settings: kept as settings.json.
        first_step: unused, see above.
        run_id: of the earlier run that goes on; None: it is new.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], first_step: int, run_id: str | None
    ) -> None:
        import mlflow

        self._mlflow = mlflow
        if run_id is None:
            mlflow.set_experiment(_PROJECT)
        run = mlflow.start_run(run_id=run_id, run_name=folder.resolve().name)
        self.run_id = run.info.run_id
        mlflow.log_dict(dict(settings), "settings.json")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self._mlflow.log_metrics({_mlflow_name(n): v for n, v in values.items()}, step=step)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """See `Tracker`."""
        self._mlflow.log_image(pixels, f"images/{_mlflow_name(name)}_{step:08d}.png")

    def close(self) -> None:
        """See `Tracker`."""
        self._mlflow.end_run()


# By the name that --tracker takes: the library, where it is listed, and the class.
TRACKERS: dict[str, tuple[str, str, Callable[..., Tracker]]] = {
    "tensorboard": ("torch.utils.tensorboard", "requirements.txt", TensorBoard),
    "wandb": ("wandb", "requirements-tracking.txt", WeightsAndBiases),
    "mlflow": ("mlflow", "requirements-tracking.txt", MLflow),
}


def parse_trackers(text: str) -> list[str]:
    """Names of trackers from a comma list, for a command line.

    Raises:
        argparse.ArgumentTypeError: an unknown name.
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in TRACKERS:
            raise argparse.ArgumentTypeError(
                f"unknown tracker '{name}'; expected {', '.join(TRACKERS)}, or a comma list"
            )
    return names


class Trackers:
    """All trackers of a run, on its main process; elsewhere, and without any, nothing happens.

    They start when there is something to track.  One that fails, for want of a network or of room,
    is given up with a warning: it is no reason to end a training.

    Args:
        names: of `TRACKERS`.
        folder: of the run.
        settings: of the run, plain values.
        is_waiting: an earlier run in the folder is to be replaced, but not yet: what comes is kept
            in memory until `start`.

    Attributes:
        names: as given, each once; the same on all processes.

    Raises:
        UserError: a library is missing.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        settings: Mapping[str, Any],
        *,
        is_waiting: bool = False,
    ) -> None:
        self.names = tuple(dict.fromkeys(names))
        for name in self.names:
            _require(name)
        self._folder = folder
        self._settings = settings
        self._first_step = 0
        self._waiting: list[Callable[[Tracker], None]] | None = [] if is_waiting else None
        self._open: dict[str, Tracker] | None = None

    def go_on_after(self, step: int) -> None:
        """What an earlier run left about later steps does not count any more."""
        self._first_step = step + 1

    def start(self) -> None:
        """Nothing is to be waited for any more, and what an earlier run left is to go."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        for file in (self._folder / "tensorboard").glob("events.out.tfevents.*"):
            file.unlink()
        (self._folder / _IDS).unlink(missing_ok=True)
        for action in waiting:
            self._each(action)

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Add a point to every named curve, but for values that are no finite numbers."""
        finite = {n: v for n, v in values.items() if v is not None and math.isfinite(v)}
        self._each(lambda tracker: tracker.scalars(finite, step))

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Add an image [h, w, 3] uint8 RGB."""
        self._each(lambda tracker: tracker.image(name, pixels, step))

    def close(self) -> None:
        """Write what is left."""
        if self._open:
            self._each(lambda tracker: tracker.close())
        self._open = None

    def _each(self, action: Callable[[Tracker], None]) -> None:
        if not self.names or not distributed.is_main_process():
            return
        if self._waiting is not None:
            self._waiting.append(action)
            return
        if self._open is None:
            self._open = {}
            for name in self.names:
                self._guarded(name, partial(self._begin, name))
        for name, tracker in list(self._open.items()):
            self._guarded(name, partial(action, tracker))

    def _begin(self, name: str) -> None:
        ids = _read_ids(self._folder / _IDS)
        make = TRACKERS[name][2]
        tracker = make(self._folder, self._settings, self._first_step, ids.get(name))
        self._open[name] = tracker
        if tracker.run_id is not None and tracker.run_id != ids.get(name):
            write_json(self._folder / _IDS, {**ids, name: tracker.run_id})

    def _guarded(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # each library has errors of its own
            logger.warning(
                "Tracker %s failed (%s: %s); the run goes on without it.",
                name,
                type(error).__name__,
                error,
            )
            self._open.pop(name, None)


def _require(name: str) -> None:
    """Import a tracker's library.

    Raises:
        UserError: it is missing, or broken.
    """
    library, requirements, _ = TRACKERS[name]
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise UserError(
            f"--tracker {name}: its library cannot be imported ({error}). Install it with "
            f"'pip install -r {requirements}', or leave the tracker out."
        ) from error


def _mlflow_name(name: str) -> str:
    """`name` in the letters that MLflow allows."""
    return re.sub(r"[^\w./ -]", "_", name)


def _read_ids(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}  # none yet, or a file that is not ours
