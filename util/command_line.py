"""How the project's programs check their arguments, and how they end: with one clear message."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import torch
from torch.distributed import DistBackendError, DistNetworkError

from util import distributed
from util.errors import UserError, shown
from util.live_line import live_line
from util.logging import colored_for

# Set to anything, an error of the user's making comes with Python's traceback.
TRACEBACK_VARIABLE = "UNIPHD_TRACEBACK"


def run_program(program: Callable[[], None]) -> int:
    """Run a program to its end; returns its exit status.

    The status is 0, or 2 after a UserError or OSError, whose message is printed: these report
    faulty settings, files and data; so does what befell another process
    or the machine. 130 and 143 stand for an interruption and SIGTERM, which both
    let the program remove what it has half written. Other errors are bugs and pass through.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            program()
        finally:
            live_line.clear()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT
    except (UserError, OSError, RuntimeError) as error:
        known = isinstance(error, UserError | OSError)
        text = error_message(error) if known else cause_outside(error)
        if text is None or os.environ.get(TRACEBACK_VARIABLE):
            raise
        where = f" (process {distributed.rank()})" if distributed.world_size() > 1 else ""
        message = f"error{where}: {text}"
        print(colored_for(sys.stderr, message, "red"), file=sys.stderr)
        print(f"({TRACEBACK_VARIABLE}=1 shows where it was raised.)", file=sys.stderr)
        return 2
    return 0


def output_folder(path: str | os.PathLike, option: str) -> Path:
    """A folder to write into, made if needed.

    Args:
        path: as the user gave it.
        option: that names it, for the message.

    Raises:
        UserError: it is a file or below one, or cannot be written to.
    """
    if not os.fspath(path).strip():
        raise UserError(f"{option} is empty; name a folder.")
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        blocking = next((p for p in (folder, *folder.parents) if _is_file(p)), None)
        reason = f"{blocking} is a file" if blocking else f"it cannot be made ({error})"
        raise UserError(f"{option} {path}: {reason}; name another folder.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{option} {path}: the folder is not writable; name another one.")
    return folder


def output_file(
    path: str | os.PathLike, option: str, suffixes: Sequence[str] = (), inputs: Sequence[Path] = ()
) -> Path:
    """A file to write; its folder is made if needed.

    Args:
        path: as the user gave it.
        option: that names it, for the message.
        suffixes: that its name may end in, in small letters; none: any.
        inputs: files that are read and not to be overwritten.

    Raises:
        UserError: it is a folder or one of the inputs, ends in another suffix, or its folder cannot
            be written to.
    """
    file = Path(path)
    if suffixes and file.suffix.lower() not in suffixes:
        raise UserError(f"{option} {path}: expected a name that ends in {' or '.join(suffixes)}.")
    if file.is_dir():
        raise UserError(f"{option} {path}: is a folder; name a file.")
    for other in inputs:
        if file == other or (file.exists() and other.exists() and file.samefile(other)):
            raise UserError(f"{option} {path}: would overwrite the input {other}; name another.")
    output_folder(file.parent, option)
    return file


def require_range(least: int, most: int, **numbers: int | None) -> None:
    """Refuse numbers of a command line that cannot be meant.

    Args:
        least, most: the smallest and the largest that can be used.
        numbers: by the name of their option, without the dashes; None: not given.

    Raises:
        UserError: one is smaller or larger.
    """
    for name, number in numbers.items():
        if number is not None and not least <= number <= most:
            raise UserError(
                f"--{name} has to be at least {least} and at most {most}, got {shown(number)}."
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, a NUL inside
        return False


def error_message(error: Exception) -> str:
    """The message of an error, without the traceback that a loader's worker puts before it."""
    message = str(error)
    worker = re.match(r"Caught (\w+) in DataLoader worker process", message)
    if worker:
        # The last line of the traceback names the error, with its module unless it is built in.
        message = re.split(rf"\n(?:\w+\.)*{worker.group(1)}: ", message)[-1].strip()
    return message


def cause_outside(error: RuntimeError) -> str | None:
    """What PyTorch's message of a fault outside of the program means; None: it is another one."""
    message = str(error)
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"the GPU's memory is full ({message.split('. ')[0]}). Make batch_size smaller (and "
            f"accumulation_steps larger), switch on encoder_checkpointing, or use --amp."
        )
    worker = re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", message)
    if worker:
        return (
            f"a worker that reads the data ended (process {worker.group(1)}: "
            f"{worker.group(2).strip().rstrip('.')}). If the system killed it, memory was short: "
            f"lower num_workers or batch_size. A training goes on with --resume auto."
        )
    signs = ("gloo/transport", "Connection closed by peer", "Timed out waiting")
    exchange = isinstance(error, DistBackendError | DistNetworkError)
    if exchange or any(sign in message for sign in signs):
        return (
            f"another process of this run ended or cannot be reached; its own message says why "
            f"({message.split('. This is typically')[0]}). Start all of them again, a training "
            f"with --resume auto."
        )
    return None


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal_number)
