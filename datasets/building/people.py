"""One person: what is missing filled in, all of it checked, scribbles drawn in the mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datasets.annotations import encode_segmentation
from datasets.checks import (
    Frame,
    check_area,
    check_box,
    check_keypoints,
    check_segmentation,
)
from datasets.scribble import draw_scribbles
from datasets.skeleton import Skeleton
from datasets.values import are_numbers, is_number
from util.errors import UserError

SCRIBBLES = 5
"""Scribbles of a person, as RefHuman has them."""

# Keeps the scribbles' random streams apart from others of (seed, number).
_STREAM = 0x5C21


@dataclass(frozen=True)
class Making:
    """What decides how a person is written.

    Attributes:
        source: name of the file of annotations, for messages.
        skeleton: keypoint definition.
        seed: of the scribbles.
        box_masks: who has no mask gets the box instead.
    """

    source: str
    skeleton: Skeleton
    seed: int
    box_masks: bool


def make_annotation(
    annotation: dict[str, Any], image_entry: dict[str, Any], making: Making
) -> dict[str, Any]:
    """A RefHuman annotation, without `id` and `image_id`, that the data set accepts.

    Args:
        annotation: `id`, `keypoints`, and what there is of `bbox`, `area`, `segmentation`.
        image_entry: of its image.
        making: see there.

    Returns:
        category_id, iscrowd, bbox, area, segmentation, keypoints, num_keypoints, person_id (the id
        in the source) and scribble: 5 x 12 x (x, y) whole pixels one after the other, all of them
        on the mask, the same for the same seed and id.

    Raises:
        UserError: something is broken or missing; the message names it.
    """
    frame = Frame.of_annotation(making.source, image_entry, annotation)
    if _has_no_mask(annotation):
        if not making.box_masks:
            raise UserError(f"{frame.name}: has no mask")
        check_box(annotation, frame)
        annotation = {**annotation, "segmentation": [_corners(annotation["bbox"])]}
    check_segmentation(annotation, frame)
    code = encode_segmentation(annotation["segmentation"], frame.height, frame.width, frame.name)
    annotation = _completed(annotation, code)
    check_box(annotation, frame)
    check_area(annotation, frame)
    check_keypoints(annotation, frame, making.skeleton)
    own = annotation["id"]
    generator = np.random.default_rng((making.seed, own % 2**64, _STREAM))
    mask = coco_mask.decode(code)
    scribbles = draw_scribbles(mask, generator, SCRIBBLES)
    keypoints = annotation["keypoints"]
    return {
        "category_id": 1,
        "iscrowd": 0,
        "bbox": annotation["bbox"],
        "area": annotation["area"],
        "segmentation": annotation["segmentation"],
        "keypoints": keypoints,
        "num_keypoints": sum(visibility > 0 for visibility in keypoints[2::3]),
        "person_id": own,
        "scribble": scribbles.astype(int).ravel().tolist(),
    }


def people_entry(
    annotation: dict[str, Any], image_entry: dict[str, Any], making: Making
) -> dict[str, Any]:
    """The person's entry for the list "people".

    Raises:
        UserError: its box, area or keypoints are broken.
    """
    frame = Frame.of_annotation(making.source, image_entry, annotation)
    if not _has_no_mask(annotation):
        check_segmentation(annotation, frame, empty_allowed=True)
        annotation = _completed(
            annotation,
            encode_segmentation(annotation["segmentation"], frame.height, frame.width, frame.name),
        )
    check_box(annotation, frame, flat_allowed=True)
    check_area(annotation, frame, zero_allowed=True)
    check_keypoints(annotation, frame, making.skeleton)
    kept = {key: annotation[key] for key in ("bbox", "area", "keypoints")}
    return {"file_name": image_entry["file_name"], "person_id": annotation["id"], **kept}


def _has_no_mask(annotation: dict[str, Any]) -> bool:
    return annotation.get("segmentation") in (None, [], [[]], {})


def _completed(annotation: dict[str, Any], code: dict[str, Any]) -> dict[str, Any]:
    """With the mask's box and area where the annotation has none; tools export zeros for them."""
    box, area = annotation.get("bbox"), annotation.get("area")
    if box is None or box == [] or (are_numbers(box) and not any(box)):
        annotation = {**annotation, "bbox": [float(side) for side in coco_mask.toBbox(code)]}
    if area is None or (is_number(area) and area == 0):
        annotation = {**annotation, "area": float(coco_mask.area(code))}
    return annotation


def _corners(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]
