"""What a folder tells about the runs in it: run.json, an entry for every start."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import logging
import os
import platform
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from util import distributed
from util.command_line import error_message
from util.config import Config, ConfigError
from util.errors import UserError
from util.logging import LOGGER_NAME, write_json
from util.loss_means import NonFiniteLossError
from util.stopping import RunStoppedError

logger = logging.getLogger(LOGGER_NAME)

UNKNOWN = "unknown"
_ROOT = Path(__file__).resolve().parents[1]


class RunRecord:
    """The entry of this start, written when it is entered and again when it ends.

    An entry without an end is of a run that goes on, or that was killed.  Only the main process
    writes; to be used on all alike.

    Args:
        path: of the JSON file, a list with an entry for each start in its folder.
        facts: plain values that only the caller knows.
        device: of this process.

    Raises:
        OSError: on entering, the file cannot be written.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], device: torch.device) -> None:
        self._path = path
        self._facts = dict(facts)
        self._device = device
        self._started = time.monotonic()
        self._entry: dict[str, Any] = {}
        self._number = 0  # of the entry in the list

    def __enter__(self) -> RunRecord:
        if distributed.is_main_process():
            self._entry = {
                **self._facts,
                **_surroundings(self._device),
                "start": _now(),
                "end": None,
                "seconds": None,
                "exit": None,
            }
            entries = self._entries()
            self._number = len(entries)
            write_json(self._path, [*entries, self._entry])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seconds = round(time.monotonic() - self._started, 1)  # whatever the clock does
        self.update(end=_now(), seconds=seconds, exit=_exit_reason(error))

    def update(self, **facts: Any) -> None:
        """Add facts to the entry; where they cannot be written, that is a warning."""
        if not self._entry:
            return
        entries = self._entries()
        self._entry |= facts
        # Read anew: another evaluation may have added its own since.
        entries[self._number : self._number + 1] = [self._entry]
        try:
            write_json(self._path, entries)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error)

    def _entries(self) -> list[Any]:
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be read and begins anew: %s", self._path, error)
            return []
        return entries if isinstance(entries, list) else [entries]


def changed_settings(stored: Any, config: Config, source: Path) -> list[str]:
    """How settings differ from those that a checkpoint was made with: "key: old -> new".

    Args:
        stored: entry `config` of the checkpoint; None: it has none.
        config: settings of today.
        source: the checkpoint.
    """
    if stored is None:
        return []
    try:
        before = Config.from_stored(stored, source).to_dict()
    except ConfigError as error:
        return [f"those of the checkpoint cannot be read ({error})"]
    return _differences(before, config.to_dict())


def weights_facts(
    source: str | None, content: Mapping[str, Any] | None
) -> dict[str, str | int | None] | None:
    """What weights a run starts with, or evaluates; None: none.

    Args:
        source: the checkpoint as the command line names it.
        content: what `util.checkpoint.load` returned; None: there was none.

    Returns:
        `file`, an absolute path (or "auto"), and of how many `epochs` of its training were
        `epochs_done`; None where the checkpoint does not say.
    """
    if content is None or source is None:
        return None
    settings = content.get("config") or {}
    epoch = content.get("epoch")
    return {
        "file": source if source == "auto" else os.path.abspath(source),
        "epochs_done": epoch + 1 if isinstance(epoch, int) else None,
        "epochs": settings.get("epochs"),
    }


def project_version() -> dict[str, str | bool]:
    """The project's `commit`, and whether it was `changed` since; "unknown" without git."""
    found = _git("rev-parse", "--show-toplevel", "HEAD").splitlines()
    # Files that were only copied may lie in a repository of something else.
    if len(found) != 2 or Path(found[0]).resolve() != _ROOT:
        return {"commit": UNKNOWN, "changed": UNKNOWN}
    return {"commit": found[1], "changed": bool(_git("status", "--porcelain").strip())}


def _surroundings(device: torch.device) -> dict[str, Any]:
    """Versions, command line, machine."""
    name = f"{torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "command": shlex.join(sys.orig_argv),
        "working_directory": os.getcwd(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "processes": distributed.world_size(),
        "device": f"{device} ({name})",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            **{name: _version_of(name) for name in ("torchvision", "numpy")},
            **project_version(),
        },
    }


def _exit_reason(error: BaseException | None) -> str:
    if error is None:
        return "finished"
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT.name
    if isinstance(error, SystemExit):
        signals = {128 + number: number.name for number in signal.Signals}
        return signals.get(error.code, f"exit status {error.code}")
    message = error_message(error)
    told = isinstance(error, UserError | OSError | RunStoppedError | NonFiniteLossError)
    return message if told else f"{type(error).__name__}: {message}"


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    found = []
    for name in (*after, *(name for name in before if name not in after)):
        old, new = (values.get(name, "absent") for values in (before, after))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [f"{name}.{inner}" for inner in _differences(old, new)]
        elif old != new:
            found.append(f"{name}: {old} -> {new}")
    return found


def _git(*arguments: str) -> str:
    """What git prints about the project; nothing without git."""
    command = ["git", "-C", str(_ROOT), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout if result.returncode == 0 else ""


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
