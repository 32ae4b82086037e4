"""The JSON of annotation files, read faster than by `json.loads`.

In a RefHuman file a person has several sentences, and for each an annotation that differs in its
ids alone. The text of such a repetition is compared, not read again.
"""

from __future__ import annotations

import contextlib
import gc
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
    repeated: _Repeated | None = None
    if text.startswith("]", _space(text, place + 1).end()):
        raise _UnusualError
    while text[place] != "]":
        start = _space(text, place + 1).end()
        found = repeated.read(text, start) if repeated else None
        if found is None:
            entry, end = _scan(text, start)
            repeated = _Repeated.of(entry, text[start:end])
        else:
            entry, end = found
        entries.append(entry)
        place = _expect(text, end, ",]")
    return entries, place + 1


class _Repeated:
    """An annotation whose like may follow, with other ids.

    Args:
        entry: the annotation.
        keys: "id" and "image_id", in the order of the text.
        parts: the text before, between and after their numbers.
    """

    def __init__(self, entry: dict[str, Any], keys: list[str], parts: list[str]) -> None:
        self.entry, self.keys, self.parts = entry, keys, parts

    @classmethod
    def of(cls, entry: Any, text: str) -> _Repeated | None:
        """Of an annotation and its text; None: where its ids are is not clear."""
        found = list(_ID.finditer(text))
        if not isinstance(entry, dict) or sorted(m[1] for m in found) != ["id", "image_id"]:
            return None
        parts, place = [], 0
        for match in found:
            number = _number(text, match.end())
            # Text that looks like it may be inside of another object, or of a string.
            if number is None or entry.get(match[1]) != int(number[0]):
                return None
            parts.append(text[place : match.end()])
            place = number.end()
        if text.count("{") != 1:
            return None
        return cls(entry, [match[1] for match in found], [*parts, text[place:]])

    def read(self, text: str, place: int) -> tuple[dict[str, Any], int] | None:
        """The annotation at `place`, and the place after it; None: it is another one."""
        entry = self.entry.copy()
        for part, key in zip(self.parts, self.keys, strict=False):
            if not text.startswith(part, place):
                return None
            number = _number(text, place + len(part))
            if number is None:
                return None
            entry[key], place = int(number[0]), number.end()
        if not text.startswith(self.parts[-1], place):
            return None
        return entry, place + len(self.parts[-1])
