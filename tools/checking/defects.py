"""A defect of an annotation file: what it is, of whom, and which entries it spoils."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets.values import is_integer
from util.errors import UserError, shown

KINDS: dict[str, str] = {
    "image_entry": "image entries that are broken",
    "image_id": "image ids that occur twice",
    "image_sizes": "image entries that disagree about an image's size",
    "annotation_entry": "annotations that are broken or of no image entry",
    "annotation_id": "annotation ids that occur twice or are none",
    "pair": "image-prompt pairs without exactly one person",
    "person": "annotations of other things than one person",
    "bbox": "boxes that are broken",
    "area": "areas that are broken",
    "keypoints": "keypoints that are broken",
    "segmentation": "polygons and RLEs that are broken, missing or empty",
    "scribble": "scribbles that are broken",
    "caption": "captions that are broken",
    "prompt": "captions or scribbles that are empty or missing",
    "same_sentence": "sentences that mean two people of one image",
    "people": "entries of 'people' that are broken",
    "people_lack": "people who are not in the list 'people'",
    "num_keypoints": "'num_keypoints' that are not the number of labelled keypoints",
    "keypoints_outside": "labelled keypoints outside of the image",
    "keypoints_off_mask": "keypoints far from their person",
    "scribble_off_mask": "scribbles that leave their person's mask",
    "box_off_mask": "boxes that disagree with the mask",
    "area_off_mask": "areas that disagree with the mask",
    "image_missing": "images that are missing",
    "image_size": "images of another size",
    "image_unreadable": "images that cannot be read",
}
"""Kinds of defect -> how a report calls them."""

Place = tuple[str, int]
"""A list of the file ("images", "annotations" or "people") and the number of an entry in it."""


@dataclass(frozen=True)
class Defect:
    """One defect.

    Attributes:
        kind: one of `KINDS`.
        message: what was expected, what came, and where.
        places: entries that cannot stay as they are; others may depend on them.
        image_id, annotation_id: ids, as the file has them; None: none, or not concerned.
    """

    kind: str
    message: str
    places: tuple[Place, ...]
    image_id: int | str | None = None
    annotation_id: int | str | None = None

    def as_record(self) -> dict[str, Any]:
        """For a JSON report."""
        return {
            "kind": self.kind,
            "image_id": self.image_id,
            "annotation_id": self.annotation_id,
            "message": self.message,
        }


@dataclass
class Findings:
    """Defects as they are found.

    Attributes:
        defects: so far.
    """

    defects: list[Defect] = field(default_factory=list)

    def add(
        self,
        kind: str,
        message: str,
        places: Sequence[Place],
        image_id: int | str | None,
        annotation_id: int | str | None,
    ) -> None:
        """Note a defect of an image entry, an annotation, or both; ids as `plain_id` gives them."""
        self.defects.append(Defect(kind, message, tuple(places), image_id, annotation_id))

    def passes(
        self,
        kind: str,
        places: Sequence[Place],
        image: Any,
        annotation: Any,
        check: Callable[..., Any],
        *arguments: Any,
    ) -> bool:
        """Run one of the checks that loading does; whether it raised no UserError.

        Args:
            kind, places: of the defect that it may find.
            image, annotation: entries that are concerned; None: none.
            check: that raises UserError.
            arguments: of the check.
        """
        try:
            check(*arguments)
        except UserError as error:
            ids = (plain_id(image, "id"), plain_id(annotation, "id"))
            self.add(kind, str(error), places, *ids)
            return False
        return True


def plain_id(entry: Any, key: str) -> int | str | None:
    """An id of an entry that may be broken, as a report can show it."""
    if not isinstance(entry, Mapping) or key not in entry:
        return None
    value = entry[key]
    return value if is_integer(value) else shown(value).strip("'")
