"""Errors that the user can mend: `util.command_line` prints their message, not a traceback."""

from __future__ import annotations


class UserError(ValueError):
    """A setting, file or prompt that cannot be used.

    The message says what was expected, what came, where (file, image id, key), and the remedy.
    Every other exception is a defect of the program and keeps its traceback.
    """


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not there; the message says how to get it."""
