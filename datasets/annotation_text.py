"""The JSON of annotation files, read faster than by `json.loads`.

In a RefHuman file a person has several sentences, and for each an annotation that differs in its
ids alone. Such a repetition is known by its text, wherever in the file it is, and not read again.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().scan_once
_space = re.compile(r"[ \t\n\r]*").match
_number = re.compile(r"-?(?:0|[1-9]\d{0,17})(?![\d.eE])", re.ASCII).match
_ID = re.compile(r'"(id|image_id)"(\s*:\s*)(?=[-\d])', re.ASCII)


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """No search for unreachable cycles, which millions of new objects set off again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def parse(text: str) -> Any:
    """What `json.loads(text)` returns; annotations may share the lists that they have in common.

    Raises:
        ValueError, RecursionError: those of `json.loads`.
    """
    with collection_paused():
        try:
            return _parse_object(text)
        except (_UnusualError, StopIteration, ValueError):
            return json.loads(text)


class _UnusualError(Exception):
    """A text that is left to `json.loads`: broken, or no object."""


def _expect(text: str, place: int, allowed: str) -> int:
    """Past the space before `place`, where one of the characters has to be."""
    place = _space(text, place).end()
    if text[place : place + 1] not in allowed or place == len(text):
        raise _UnusualError
    return place


def _parse_object(text: str) -> dict[str, Any]:
    content: dict[str, Any] = {}
    place = _expect(text, 0, "{")
    while text[place] != "}":
        key, place = _scan(text, _expect(text, place + 1, '"'))
        place = _space(text, _expect(text, place, ":") + 1).end()
        if key == "annotations" and text[place : place + 1] == "[":
            content[key], place = _parse_list(text, place)
        else:
            content[key], place = _scan(text, place)
        place = _expect(text, place, ",}")
    if _space(text, place + 1).end() != len(text):
        raise _UnusualError
    return content


def _parse_list(text: str, place: int) -> tuple[list[Any], int]:
    """The list whose bracket is at `place`, and the place after it."""
    entries: list[Any] = []
    read = Repetitions().read
    if text.startswith("]", _space(text, place + 1).end()):
        raise _UnusualError
    while text[place] != "]":
        entry, end = read(text, _space(text, place + 1).end())
        entries.append(entry)
        place = _expect(text, end, ",]")
    return entries, place + 1


class Repetitions:
    """Annotations that were read, known by what their text is without the ids.

    Args:
        last_only: only the last one that differs from the one before it is known.
    """

    def __init__(self, *, last_only: bool = False) -> None:
        self._last_only = last_only
        # By a digest: two annotations need not stand beside each other, and the text of all that
        # differ would be as large as the file.
        self._known: dict[bytes, dict[str, Any]] = {}

    def read(self, text: str, start: int) -> tuple[Any, int]:
        """The value at `start`, and the place after it; a repetition shares its lists.

        Raises:
            ValueError, StopIteration: there is no whole value.
        """
        if not text.startswith("{", start):
            return _scan(text, start)
        end = text.find("}", start) + 1
        ids, digest = self._outline(text, start, end)
        known = self._known.get(digest)
        if known is not None:
            # No JSON object is the beginning of another: this one ends where the known one does.
            return known | ids, end
        entry, true_end = _scan(text, start)
        if ids and true_end == end:
            if self._last_only:
                self._known.clear()
            self._known[digest] = entry.copy()  # the caller may change its own
        return entry, true_end

    @staticmethod
    def _outline(text: str, start: int, end: int) -> tuple[dict[str, int], bytes]:
        """The ids and a digest of all else; no ids: where they are is not clear."""
        # Braces inside: of another object, or of a string. Without a backslash keys are written as
        # they are read, and no string holds quotation marks.
        if text.find("{", start + 1, end) >= 0 or text.find("\\", start, end) >= 0:
            return {}, b""
        ids: dict[str, int] = {}
        parts, place = [], start
        for match in _ID.finditer(text, start, end):
            number = _number(text, match.end())
            if number is None or match[1] in ids:
                return {}, b""
            ids[match[1]] = int(number[0])
            parts.append(text[place : match.end()])
            place = number.end()
        if len(ids) != 2:
            return {}, b""
        others = "\0".join((*parts, text[place:end])).encode("utf-8", "surrogatepass")
        return ids, hashlib.blake2b(others, digest_size=16).digest()
