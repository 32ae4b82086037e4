"""How the project's programs end: one clear message for what the user can mend."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import torch
from torch.distributed import DistBackendError, DistNetworkError

from util import distributed
from util.errors import UserError
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
        program()
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
