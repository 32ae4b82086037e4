"""A copy of an annotation file without the entries that have defects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from checking.content import ContentCheck
from checking.defects import Defect
from checking.reading import COCO_KEYPOINTS, AnnotationFile
from datasets.json_stream import read_object
from util.errors import UserError
from util.files import written_whole

_NAMED = {"images": "id", "annotations": "id", "people": "file_name"}
"""The lists that entries are left out of, and by what these are called."""

_SHOWN_IDS = 10


class LeftOut:
    """What a copy lacks: how many entries of each list, and how the first of them are called."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, entry: Any) -> None:
        """Note an entry of list `name`."""
        self._counts[name] += 1
        names = self._names.setdefault(name, [])
        if isinstance(entry, dict) and len(names) <= _SHOWN_IDS:
            names.append(str(entry.get(_NAMED[name])))

    def describe(self, counts: dict[str, int]) -> list[str]:
        """A line for every list that had so many entries."""
        lines = []
        for name in _NAMED:
            if counts.get(name, 0) > 0:
                names = self._names.get(name, [])
                more = ", ..." if len(names) > _SHOWN_IDS else ""
                which = f": {', '.join(names[:_SHOWN_IDS])}{more}" if names else ""
                lines.append(f"Left out of '{name}': {self._counts[name]} of {counts[name]}{which}")
        return lines


def write_cleaned(checked: ContentCheck, defects: Iterable[Defect], file: Path) -> list[str]:
    """Write the copy, entry by entry; what is in it is checked again before it takes its place.

    Args:
        checked: the check of the file, that has ended.
        defects: that were found.
        file: to write.

    Returns:
        What was left out, for people.

    Raises:
        UserError: nothing is left.
        OSError: the disk is full, or cannot be written to.
    """
    left_out = LeftOut()
    with written_whole(file) as copy:
        _copy(checked, defects, copy, left_out)
        while True:
            # What was left out may have been what others refer to.
            again = ContentCheck(AnnotationFile(copy, checked.file.form), checked.skeleton)
            again.read_images()
            for _ in again.shapes():
                pass
            if not again.findings.defects:
                break
            with written_whole(copy) as better:
                _copy(again, again.findings.defects, better, left_out)
    return left_out.describe(checked.counts)


def _copy(
    checked: ContentCheck, defects: Iterable[Defect], target: Path, left_out: LeftOut
) -> None:
    """Write a file without the entries that its defects spoil."""
    spoilt = _spoilt(checked, defects)
    if any(len(spoilt[name]) == checked.counts[name] for name in ("images", "annotations")):
        raise UserError("--fix: nothing of the file would be left without a defect.")
    begin, end, is_first = "{", "", True
    with target.open("w", encoding="utf-8") as stream:
        for key, number, value in read_object(checked.file.path):
            if number is not None:
                if number in spoilt.get(key, ()):
                    left_out.add(key, value)
                else:
                    stream.write(("" if is_first else ", ") + json.dumps(value))
                    is_first = False
            elif value == [] or not spoilt.get(key):
                is_list = value == []
                text = "[" if is_list else json.dumps(value)
                stream.write(f"{end}{begin}{json.dumps(key)}: {text}")
                begin, end, is_first = ", ", "]" if is_list else "", True
        stream.write(f"{end}}}\n")


def _spoilt(checked: ContentCheck, defects: Iterable[Defect]) -> dict[str, set[int]]:
    """Numbers of the entries that have defects, and of those that need them, by list.

    A pair of RefHuman goes as a whole; of COCO an annotation goes alone, an image with all of its
    annotations.
    """
    spoilt: dict[str, set[int]] = {name: set() for name in _NAMED}
    for defect in defects:
        for name, number in defect.places:
            spoilt[name].add(number)
    ids = checked.image_ids
    if checked.file.form == COCO_KEYPOINTS:
        lost = {ids["images"][number] for number in spoilt["images"]}
    else:
        lost = {ids[name][number] for name in ids for number in spoilt[name]}
    lost.discard(None)
    for name in ids if checked.file.form != COCO_KEYPOINTS else ("annotations",):
        spoilt[name] |= {number for number, own in enumerate(ids[name]) if own in lost}
    return spoilt
