"""Annotation files read entry by entry: what is kept of an entry is small, however large it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from checking.defects import Place
from datasets.json_stream import read_object
from util.errors import UserError

REFHUMAN, COCO_KEYPOINTS = "RefHuman", "COCO keypoints"

_REFERRING = ("caption", "scribble")  # keys that COCO's form does not have


class AnnotationFile:
    """A file in RefHuman's form, or of COCO's person keypoints, that is never held as a whole.

    Args:
        path: of the file.
        form: if it is known.

    Attributes:
        path: of the file.
        form: `REFHUMAN` where anything refers to somebody, else `COCO_KEYPOINTS`.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is neither.
    """

    def __init__(self, path: Path, form: str | None = None) -> None:
        self.path = path
        self.form = form or self._find_form()

    def _find_form(self) -> str:
        lists = set()
        for key, number, value in read_object(self.path):
            if key == "people":
                return REFHUMAN
            if key in ("images", "annotations"):
                self._require_list(key, number, value)
                lists.add(key)
                if isinstance(value, dict) and not value.keys().isdisjoint(_REFERRING):
                    return REFHUMAN
        if len(lists) < 2:
            raise self._error()
        return COCO_KEYPOINTS

    def images(self) -> Iterator[tuple[int, Any]]:
        """(number, entry) of the list `images`; the file is read no further than needed.

        Raises:
            UserError: there is no such list, or nothing in it.
        """
        is_there, is_empty = False, True
        for key, number, value in read_object(self.path):
            if key == "images":
                self._require_list(key, number, value)
                is_there = True
                if number is not None:
                    is_empty = False
                    yield number, value
            elif is_there:
                break
        if not is_there:
            raise self._error()
        if is_empty:
            raise UserError(f"{self.path} has no image entries; expected at least one.")

    def annotations_and_people(self) -> Iterator[tuple[str, int | None, Any]]:
        """What `datasets.json_stream.read_object` gives of `annotations` and `people`.

        Raises:
            UserError: there is no list of annotations.
        """
        is_there = False
        for key, number, value in read_object(self.path):
            if key == "annotations":
                self._require_list(key, number, value)
                is_there = True
            if key in ("annotations", "people"):
                yield key, number, value
        if not is_there:
            raise self._error()

    def _require_list(self, key: str, number: int | None, value: Any) -> None:
        if number is None and value != []:
            raise self._error()

    def _error(self) -> UserError:
        return UserError(
            f"{self.path} is not a {REFHUMAN} or {COCO_KEYPOINTS} annotation file: expected an "
            f"object with the lists 'images' and 'annotations'."
        )


class PersonKey(NamedTuple):
    """What tells the people of an image apart, as `datasets.annotations.same_person` does.

    Attributes:
        own: `person_id`, where there is one.
        shape: a digest of keypoints and box.
    """

    own: tuple[Any, ...]
    shape: bytes

    @classmethod
    def of(cls, annotation: Mapping[str, Any]) -> PersonKey:
        """Of an annotation or an entry of `people` whose keypoints and box are sound."""
        own = (annotation["person_id"],) if "person_id" in annotation else ()
        numbers = np.array([*annotation["keypoints"], *annotation["bbox"]], dtype=np.float64)
        # Added, zero makes one of 0 and -0.
        return cls(own, hashlib.blake2b((numbers + 0.0).tobytes(), digest_size=16).digest())

    def is_same(self, other: PersonKey) -> bool:
        """Whether both are of one person, if they are of one image."""
        if self.own and other.own:
            return self.own == other.own
        return self.shape == other.shape


@dataclass(slots=True)
class ImageEntry:
    """A checked image entry.

    Attributes:
        number: in the file's list `images`.
        id, file_name, height, width: of the entry.
        caption: of the entry; None: none, or one that is no text.
        people: what is kept of its annotations.
    """

    number: int
    id: int
    file_name: str
    height: int
    width: int
    caption: str | None
    people: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, number: int, entry: Mapping[str, Any], names: dict[str, str]) -> ImageEntry:
        """Of a checked entry; entries of one image share the text of its name in `names`."""
        name = names.setdefault(entry["file_name"], entry["file_name"])
        caption = entry.get("caption")
        caption = caption if isinstance(caption, str) else None
        return cls(number, entry["id"], name, entry["height"], entry["width"], caption)

    @property
    def place(self) -> Place:
        """Where the entry is."""
        return ("images", self.number)

    def as_entry(self) -> dict[str, Any]:
        """The entry again."""
        keys = ("id", "file_name", "height", "width", "caption")
        return {key: getattr(self, key) for key in keys}
