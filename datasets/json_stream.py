"""Reading a JSON file of any size, entry by entry."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from datasets.annotation_text import Repetitions
from util.errors import MissingFileError, UserError, shown

_CHUNK = 2**20  # characters that are read at once
_LONGEST_ENTRY = 2**26  # characters; a hundred times the largest entry of COCO

_SPACE = " \t\n\r"


@dataclass(frozen=True)
class _Kind:
    """How errors call a file, and what they advise."""

    name: str
    remedy: str


_ANNOTATIONS = _Kind("valid JSON of an annotation file", "fetch it again")


def read_object(path: Path) -> Iterator[tuple[str, int | None, Any]]:
    """All that is in a file of one JSON object, in the file's order, lists entry by entry.

    Only one value or entry and a piece of the file are in memory at a time. An annotation that is
    the one before it with other ids shares its lists, as in `datasets.annotation_text`.

    Args:
        path: of the file, in UTF-8.

    Returns:
        (key, None, value) of what is no list; (key, None, []) where a list begins, and then
        (key, number, entry) of its entries.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not such an object, a key occurs twice, or an entry has more than 67
            million characters.
    """
    with _opened(path, _ANNOTATIONS) as reader:
        yield from reader.object()


def read_lists(path: Path, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    """The entries of some lists of a JSON object, one after the other, in the file's order.

    Args:
        path: see `read_object`.
        names: of the lists that are wanted, keys of that object.

    Returns:
        (name of the list, entry).

    Raises:
        MissingFileError, UserError: see `read_object`; or one of `names` is no list.
    """
    for key, number, value in read_object(path):
        if key in names:
            if number is not None:
                yield key, value
            elif value != []:
                raise UserError(
                    f"{path} is not {_ANNOTATIONS.name}: {key!r} has to be a list, got "
                    f"{shown(value)}; {_ANNOTATIONS.remedy}."
                )


def read_list(path: Path, name: str, remedy: str) -> Iterator[Any]:
    """The entries of a file that is one JSON list; arguments beside `path` are for errors.

    Args:
        path: see `read_object`.
        name: what the file is a list of.
        remedy: what to do about a file that is none.

    Raises:
        MissingFileError, UserError: as those of `read_object`.
    """
    with _opened(path, _Kind(f"a JSON list of {name}", remedy)) as reader:
        yield from reader.list()


@contextmanager
def _opened(path: Path, kind: _Kind) -> Iterator[_Reader]:
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; check the path, or {kind.remedy}.")
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield _Reader(file, path, kind)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}); save it as UTF-8.") from error
    except RecursionError as error:
        raise UserError(f"{path} is nested too deeply to be {kind.name}; {kind.remedy}.") from error


class _Reader:
    """A place in a JSON text, of which a piece is in memory."""

    def __init__(self, file: IO[str], path: Path, kind: _Kind) -> None:
        self._file, self._path, self._kind = file, path, kind
        self._text, self._place, self._ended = "", 0, False
        self._repetitions = Repetitions(last_only=True)

    def object(self) -> Iterator[tuple[str, int | None, Any]]:
        """See `read_object`."""
        if self._next() != "{":
            raise self._error("expected an object that begins with '{'")
        self._place += 1
        keys = set()
        if self._next() == "}":
            self._place += 1
        else:
            while True:
                key = self._value()
                if not isinstance(key, str):
                    raise self._error("expected a key in quotation marks")
                if key in keys:
                    raise self._error(f"the key {shown(key)} occurs twice")
                keys.add(key)
                self._take(":")
                if self._next() == "[":
                    yield key, None, []
                    for number, entry in enumerate(self._entries()):
                        yield key, number, entry
                else:
                    yield key, None, self._value()
                if self._take(",}") == "}":
                    break
        if self._next():
            raise self._error("expected nothing behind the object")

    def list(self) -> Iterator[Any]:
        """See `read_list`."""
        yield from self._entries()
        if self._next():
            raise self._error("expected nothing behind the list")

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
                value, end = self._repetitions.read(self._text, self._place)
                # A number may go on behind what was read: "1" of "1.5", or "1" of "1e" + "-5".
                if end + 2 < len(self._text) or self._ended:
                    self._place = end
                    return value
                reason = "it ends inside of a value"
            except ValueError as error:  # not kept: it would hold on to the text
                reason = str(error).partition(": line")[0]
            except StopIteration:
                reason = "expected a value"
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
            f"{self._path} is not {self._kind.name}: {reason}, got {found!r}; {self._kind.remedy}."
        )
