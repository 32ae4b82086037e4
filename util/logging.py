"""What a run tells: progress on the screen, records in files."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from termcolor import colored

from util import distributed
from util.files import written_whole
from util.live_line import live_line

LOGGER_NAME = "uniphd"
MODELS_LOGGER_NAME = "models"  # above those of the files in models/, which know nothing of ours
BUILD_LOGGER_NAME = "models.uniphd.ops.extension"

# Between information and warnings: tables of metrics and the like.
RESULT = 25
logging.addLevelName(RESULT, "RESULT")


def setup(log_file: str | os.PathLike | None = None) -> logging.Logger:
    """Make the project's logger print to the screen, and to a file where one is named.

    So do the loggers of the files in models/. Only the main process reports progress; the others
    print warnings alone, and of what the models' files say only what no process has said before.
    """
    live_line.attach(sys.stdout if distributed.is_main_process() else None)
    screen = _Screen(sys.stdout)
    screen.setFormatter(_TerminalFormatter(sys.stdout))
    handlers: list[logging.Handler] = [screen]
    if log_file is not None and distributed.is_main_process():
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name in (LOGGER_NAME, MODELS_LOGGER_NAME):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        for handler in handlers:
            handler.addFilter(_is_new)
            logger.addHandler(handler)
    logger = logging.getLogger(LOGGER_NAME)
    logger.propagate = False
    return logger


def colored_for(stream: TextIO, text: str, color: str) -> str:
    """`text` in a colour where `stream` is a terminal that shows them; `NO_COLOR` is heeded."""
    return colored(text, color) if stream.isatty() else text


class _Screen(logging.StreamHandler):
    """Takes the live line away before it prints."""

    def emit(self, record: logging.LogRecord) -> None:
        live_line.clear()
        super().emit(record)


class _TerminalFormatter(logging.Formatter):
    """Warnings, errors and results in colours of their own."""

    COLORS = {RESULT: "green", logging.WARNING: "yellow", logging.ERROR: "red"}

    def __init__(self, stream: TextIO) -> None:
        super().__init__("%(message)s")
        self.stream = stream

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        color = self.COLORS.get(record.levelno)
        return text if color is None else colored_for(self.stream, text, color)


def _is_new(record: logging.LogRecord) -> bool:
    """Whether a message is not what another process tells already."""
    if distributed.is_main_process():
        return True
    if record.name == BUILD_LOGGER_NAME and record.levelno == logging.INFO:
        return True  # one process of a machine compiles, the others wait for it
    if record.name.startswith(f"{MODELS_LOGGER_NAME}."):
        first_of_machine = os.environ.get("LOCAL_RANK", "0") == "0"
        return first_of_machine and record.levelno >= logging.WARNING
    return record.levelno >= logging.WARNING


class Averages:
    """Running means of named numbers.

    A name may be missing in some updates: its mean is over those that have it.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def update(self, values: Mapping[str, float]) -> None:
        """Take one number per name into account."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """The mean of every name."""
        return {name: total / self._counts[name] for name, total in self._sums.items()}

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Sums and counts, plain values, for a checkpoint."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Continue from earlier sums and counts."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


def write_json(path: str | os.PathLike, value: Any, indent: int | None = 2) -> None:
    """Write `value` as JSON; the file is complete or not there at all.

    Args:
        path: of the file.
        value: plain values; NaN and infinity become null.
        indent: spaces per level; None writes a single line.
    """
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(_finite(value), indent=indent) + "\n", encoding="utf-8")


def write_json_list(path: str | os.PathLike, values: Iterable[Any]) -> None:
    """Write many values as one JSON list on one line, one by one; see `write_json`.

    Args:
        path: of the file.
        values: plain values; they are asked for one after the other and never held together.
    """
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("[")
        for number, value in enumerate(values):
            try:
                text = json.dumps(value, allow_nan=False)
            except ValueError:  # seldom: looking at every number takes longer than writing it
                text = json.dumps(_finite(value))
            file.write((", " if number else "") + text)
        file.write("]\n")


def append_json_line(path: str | os.PathLike, value: Any) -> None:
    """Add `value` to a file with one JSON value per line."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(_finite(value)) + "\n")


def read_json_lines(path: str | os.PathLike) -> list[Any]:
    """The values of a file with one JSON value per line; none if there is no such file.

    A line cut off in the middle of writing is left out.
    """
    path = Path(path)
    if not path.is_file():
        return []
    values = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return values


def write_json_lines(path: str | os.PathLike, values: list[Any]) -> None:
    """Replace a file by one JSON value per line; the old file stays if this is interrupted."""
    with written_whole(path) as temporary:
        text = "".join(json.dumps(_finite(value)) + "\n" for value in values)
        temporary.write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    """`value` with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
