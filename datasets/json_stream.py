"""Reading lists out of a JSON file of any size, entry by entry."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any

from util.errors import MissingFileError, UserError

_CHUNK = 2**20  # characters that are read at once
_LONGEST_ENTRY = 2**26  # characters; a hundred times the largest entry of COCO

_SPACE = " \t\n\r"


def read_lists(path: Path, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    """The entries of some lists of a JSON file, one after the other, in the file's order.

    Only one entry and a piece of the file are in memory at a time, whatever the file's size.

    Args:
        path: of a file that holds one JSON object.
        names: of the lists that are wanted, keys of that object.

    Returns:
        (name of the list, entry).

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not an object in JSON in UTF-8, one of `names` is no list, or an entry has
            more than 67 million characters.
    """
    if not path.is_file():
        raise MissingFileError(f"Annotation file {path} does not exist; check the path.")
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from _Reader(file, path).lists(names)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}); save it as UTF-8.") from error
    except RecursionError as error:
        raise UserError(
            f"{path} is nested too deeply to be an annotation file; fetch it again."
        ) from error


class _Reader:
    """A place in a JSON text, of which a piece is in memory."""

    def __init__(self, file: IO[str], path: Path) -> None:
        self._file, self._path = file, path
        self._text, self._place, self._ended = "", 0, False
        self._decoder = json.JSONDecoder()

    def lists(self, names: Collection[str]) -> Iterator[tuple[str, Any]]:
        if self._next() != "{":
            raise self._error("expected an object that begins with '{'")
        self._place += 1
        if self._next() == "}":
            return
        while True:
            key = self._value()
            if not isinstance(key, str):
                raise self._error("expected a key in quotation marks")
            self._take(":")
            if self._next() == "[":
                for entry in self._entries():
                    if key in names:
                        yield key, entry
            elif key in names:
                raise self._error(f"{key!r} has to be a list")
            else:
                self._value()
            if self._take(",}") == "}":
                break
        if self._next():
            raise self._error("expected nothing behind the object")

    def _entries(self) -> Iterator[Any]:
        self._take("[")
        if self._next() == "]":
            self._place += 1
            return
        while True:
            yield self._value()
            if self._take(",]") == "]":
                return

    def _next(self) -> str:
        """The next character that is no space, at which the place is then; "" at the end."""
        while True:
            while self._place < len(self._text):
                if self._text[self._place] not in _SPACE:
                    return self._text[self._place]
                self._place += 1
            if not self._read_more(_CHUNK):
                return ""

    def _take(self, allowed: str) -> str:
        character = self._next()
        if not character or character not in allowed:
            raise self._error(f"expected {' or '.join(map(repr, allowed))}")
        self._place += 1
        return character

    def _value(self) -> Any:
        """The JSON value at this place; the place is behind it then."""
        self._next()
        wanted = _CHUNK
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
                # A number may go on behind what was read: "1" of "1.5", or "1" of "1e" + "-5".
                if end + 2 < len(self._text) or self._ended:
                    self._place = end
                    return value
                reason = "it ends inside of a value"
            except ValueError as error:
                reason = str(error)
            if self._ended or len(self._text) - self._place > _LONGEST_ENTRY:
                raise self._error(reason)
            # Each time as much again, so that all reading together takes no longer than twice.
            self._read_more(wanted)
            wanted *= 2

    def _read_more(self, count: int) -> bool:
        """Read on; what is before the place is forgotten. False at the end of the file."""
        more = self._file.read(count)
        self._text, self._place = self._text[self._place :] + more, 0
        self._ended = not more
        return bool(more)

    def _error(self, reason: str) -> UserError:
        found = self._text[self._place : self._place + 40] or "the end of the file"
        return UserError(
            f"{self._path} is not valid JSON of an annotation file: {reason}, got {found!r}; "
            f"fetch it again."
        )
