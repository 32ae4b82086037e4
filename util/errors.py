"""Errors that the user can mend: `util.command_line` prints their message, not a traceback."""

from __future__ import annotations

import reprlib
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 3, 6, 6, 6
_SHORT.maxstring = _SHORT.maxother = 120


class UserError(ValueError):
    """A setting, file or prompt that cannot be used.

    The message says what was expected, what came, where (file, image id, key), and the remedy.
    Every other exception is a defect of the program and keeps its traceback.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not there; the message says how to get it."""


def shown(value: Any) -> str:
    """A value for an error's message: never long, however large or deep it is, and on one line."""
    try:
        return _SHORT.repr(value).replace("\n", " ")  # of tensors
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return f"a huge {type(value).__name__}"
