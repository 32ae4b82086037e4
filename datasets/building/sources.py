"""Annotations of people by whichever form they come in: what the building of a file asks for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from datasets.annotations import join_annotations
from datasets.json_stream import read_lists
from datasets.skeleton import Skeleton
from datasets.values import are_numbers, is_integer, is_number
from util.errors import UserError, shown

_PERSON_NAMES = ("person", "people", "human")
_COCO_NAME = re.compile(r"(?:COCO_\w+_)?(\d{12})\.\w+")


@dataclass(frozen=True)
class KnownPerson:
    """What the selection asks of a person; area in pixels, 0 where the file does not say it."""

    image_id: int
    labelled: int
    area: float


class LeftOut:
    """What was left out and why, to be counted and written down."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.details: dict[str, dict[str, str]] = {}

    def add(self, reason: str, which: Any = None, why: str = "", count: int = 1) -> None:
        """Count `count` things left out for a reason; note which, by an id, and more of why."""
        self.counts[reason] += count
        if which is not None:
            self.details.setdefault(reason, {})[str(which)] = why


@dataclass
class Survey:
    """What a file of annotations holds, without its shapes.

    Attributes:
        images: image entry (`id`, `file_name`, `height`, `width`) by id.
        people: by annotation id; crowd regions and what cannot be used are not among them.
        left_out: why.
    """

    images: dict[int, dict[str, Any]]
    people: dict[int, KnownPerson] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)


class Source(Protocol):
    """A file of annotated people."""

    path: Path

    def survey(self) -> Survey:
        """What is in the file.

        Raises:
            UserError: the file, or an image entry of it, is broken.
        """

    def annotations(self) -> Iterator[dict[str, Any]]:
        """Annotations (`id`, `image_id`, `keypoints` in the skeleton's order ...), unchecked.

        Those of the survey's people are among them, in the file's order.
        """

    def captions(self) -> list[tuple[int, str]]:
        """(annotation id, caption) that the file itself holds."""


class CocoFile:
    """COCO keypoints as COCO writes them, and CVAT, Label Studio and others export them.

    Of categories, the one called person counts (or human, or people), or else the only one that has
    keypoints. Keypoints that are the skeleton's in another order are put in its own, by their
    names. The file is read from front to back, several times, and never held.

    Args:
        path: of the file.
        skeleton: keypoint definition.
    """

    def __init__(self, path: Path, skeleton: Skeleton) -> None:
        self.path = path
        self._skeleton = skeleton
        self._people_ids: dict[int, list[int] | None] = {}  # category -> order of its keypoints

    def survey(self) -> Survey:
        """See `Source.survey`."""
        images, categories = [], []
        raw: list[tuple[Any, Any, Any, Any, bool, int, float]] = []
        for name, entry in read_lists(self.path, ("images", "annotations", "categories")):
            if name == "images":
                images.append(self._image_entry(entry))
            elif name == "categories":
                categories.append(entry)
            else:
                raw.append(_outline(entry, self.path, len(raw)))
        joined = join_annotations(
            {"images": images, "annotations": []}, str(self.path), "COCO keypoints"
        )
        survey = Survey({entry["id"]: entry for entry, _ in joined})
        self._people_ids = self._read_categories(categories)
        for own, image_id, category, crowd, usable, labelled, area in raw:
            if category not in self._people_ids:
                survey.left_out.add("annotation: not of a person")
            elif not is_integer(own):
                survey.left_out.add("person: without an integer id", shown(own))
            elif not is_integer(image_id) or image_id not in survey.images:
                survey.left_out.add("person: of an image that 'images' does not have", own)
            elif own in survey.people:
                survey.left_out.add("person: id occurs twice; the first one counts", own)
            elif crowd:
                survey.left_out.add("person: a crowd region", own)
            elif not usable:
                survey.left_out.add("person: without whole keypoints", own)
            else:
                survey.people[own] = KnownPerson(image_id, labelled, area)
        return survey

    def annotations(self) -> Iterator[dict[str, Any]]:
        """See `Source.annotations`; to be called after `survey`."""
        for _, entry in read_lists(self.path, ("annotations",)):
            category = entry.get("category_id", 1)
            if entry.get("iscrowd") or category not in self._people_ids:
                continue
            order = self._people_ids[category]
            keypoints = entry.get("keypoints")
            if order is not None and are_numbers(keypoints) and len(keypoints) == 3 * len(order):
                entry["keypoints"] = [keypoints[3 * i + j] for i in order for j in range(3)]
            yield entry

    def captions(self) -> list[tuple[int, str]]:
        """See `Source.captions`: COCO keypoints have none."""
        return []

    def _image_entry(self, entry: Any) -> Any:
        """Without what is not needed; sizes that are whole numbers written as 640.0 are mended."""
        if not isinstance(entry, dict):
            return entry
        kept = {key: entry[key] for key in ("id", "file_name", "height", "width") if key in entry}
        for key in ("height", "width"):
            if type(kept.get(key)) is float and kept[key].is_integer():
                kept[key] = int(kept[key])
        if isinstance(kept.get("file_name"), str):
            kept["file_name"] = plain_name(kept["file_name"])
        return kept

    def _read_categories(self, categories: list[Any]) -> dict[int, list[int] | None]:
        """Category ids of people, and the order in which the skeleton takes their keypoints."""
        if not categories:
            return {1: None}
        for category in categories:
            if not isinstance(category, dict) or not is_integer(category.get("id")):
                raise UserError(
                    f"{self.path}: an entry of 'categories' has to be an object with an integer "
                    f"'id', got {shown(category)}."
                )
        people = [c for c in categories if str(c.get("name")).strip().lower() in _PERSON_NAMES]
        people = people or [c for c in categories if c.get("keypoints")]
        if len(people) != 1:
            raise UserError(
                f"{self.path}: expected one category called person, or one with keypoints, got "
                f"{shown([c.get('name') for c in categories])}; rename the one that is meant."
            )
        names = people[0].get("keypoints")
        return {people[0]["id"]: self._order(names) if isinstance(names, list) else None}

    def _order(self, names: Sequence[Any]) -> list[int] | None:
        theirs, ours = list(map(_plain, names)), list(map(_plain, self._skeleton.names))
        if theirs != ours and sorted(theirs) == sorted(ours):
            return [theirs.index(name) for name in ours]
        return None


def _outline(entry: Any, path: Path, number: int) -> tuple[Any, Any, Any, Any, bool, int, float]:
    """Of an annotation: id, image id, category, crowd, usable, labelled keypoints, area."""
    if not isinstance(entry, dict):
        raise UserError(
            f"{path}: entry {number} of 'annotations' has to be an object, got {shown(entry)}; "
            f"mend or remove it."
        )
    keypoints, area = entry.get("keypoints"), entry.get("area")
    usable = are_numbers(keypoints) and len(keypoints) > 0 and len(keypoints) % 3 == 0
    category = entry.get("category_id", 1)
    return (
        entry.get("id"),
        entry.get("image_id"),
        category if is_integer(category) else None,
        bool(entry.get("iscrowd")),
        usable,
        sum(visibility > 0 for visibility in keypoints[2::3]) if usable else 0,
        area if is_number(area) else 0.0,
    )


def plain_name(name: str) -> str:
    """A file name below the image folder: exports often hold the path of another machine."""
    name = name.replace("\\", "/")
    steps = name.split("/")
    foreign = name.startswith("/") or ".." in steps or ":" in steps[0]
    return steps[-1] if foreign else name


def image_key(file_name: str) -> str | int:
    """What tells images apart, also between files: COCO's number where the name has it."""
    match = _COCO_NAME.fullmatch(file_name.rpartition("/")[2])
    return int(match[1]) if match else file_name


def image_keys(entries: Mapping[int, Mapping[str, Any]]) -> set[str | int]:
    """The keys of image entries; see `image_key`."""
    return {image_key(entry["file_name"]) for entry in entries.values()}


def _plain(name: Any) -> str:
    """A keypoint's name without what tools write differently: "Left Eye" -> "lefteye"."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())
