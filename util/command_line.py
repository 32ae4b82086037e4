"""How the project's programs end: one clear message for what the user can mend."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from util import distributed
from util.errors import UserError
from util.logging import colored_for

# Set to anything, an error of the user's making comes with Python's traceback.
TRACEBACK_VARIABLE = "UNIPHD_TRACEBACK"


def run_program(program: Callable[[], None]) -> int:
    """Run a program to its end; returns its exit status.

    The status is 0, or 2 after a UserError or OSError, whose message is printed: these report
    faulty settings, files and data. 130 and 143 stand for an interruption and SIGTERM, which both
    let the program remove what it has half written. Other errors are bugs and pass through.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        program()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT
    except (UserError, OSError) as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        where = f" (process {distributed.rank()})" if distributed.world_size() > 1 else ""
        message = f"error{where}: {error_message(error)}"
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


def _terminate(signal_number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + signal_number)
