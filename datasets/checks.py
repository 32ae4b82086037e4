"""Checks of an annotation's parts: errors that say what to mend."""

from __future__ import annotations

from typing import Any

from datasets.skeleton import SKELETONS, Skeleton
from datasets.values import are_numbers
from util.errors import UserError


def check_box(annotation: dict[str, Any], where: str, *, flat_allowed: bool = False) -> None:
    """`bbox` has to be [x, y, width, height], by default of positive width and height.

    Raises:
        UserError: it is not.
    """
    box = annotation.get("bbox")
    fits = are_numbers(box) and len(box) == 4 and min(box[2:]) >= 0
    if not fits or (min(box[2:]) == 0 and not flat_allowed):
        sign = "non-negative" if flat_allowed else "positive"
        raise UserError(
            f"{where}: 'bbox' has to be [x, y, width, height] with {sign} width and height, got "
            f"{box!r}."
        )


def check_area(annotation: dict[str, Any], where: str, *, zero_allowed: bool = False) -> None:
    """`area` has to be a number above zero, or zero where that is allowed.

    Raises:
        UserError: it is not.
    """
    area = annotation.get("area")
    if not are_numbers([area]) or area < 0 or (area == 0 and not zero_allowed):
        sign = "non-negative" if zero_allowed else "positive"
        raise UserError(f"{where}: 'area' has to be a {sign} number, got {area!r}.")


def check_keypoints(annotation: dict[str, Any], where: str, skeleton: Skeleton) -> None:
    """`keypoints` has to hold x, y and visibility of each of the skeleton's keypoints.

    Raises:
        UserError: it does not; where it fits another skeleton, the message names it.
    """
    keypoints = annotation.get("keypoints")
    expected = 3 * skeleton.num_keypoints
    if are_numbers(keypoints) and len(keypoints) == expected:
        return
    got, remedy = repr(keypoints)[:80], ""
    if isinstance(keypoints, list):
        got = f"{len(keypoints)} entries"
        fitting = [n for n, s in SKELETONS.items() if 3 * s.num_keypoints == len(keypoints)]
        if fitting and len(keypoints) != expected:
            remedy = f" Set skeleton={fitting[0]} for this file."
    raise UserError(
        f"{where}: 'keypoints' has to hold {expected} numbers (x, y, visibility of "
        f"{skeleton.num_keypoints} keypoints), got {got}.{remedy}"
    )


def check_segmentation(annotation: dict[str, Any], where: str) -> None:
    """`segmentation` has to be a list of polygons or a COCO RLE.

    Raises:
        UserError: it is not.
    """
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if not {"size", "counts"} <= set(segmentation):
            raise UserError(f"{where}: 'segmentation' is an object without 'size' and 'counts'.")
        return
    if not isinstance(segmentation, list) or not segmentation:
        raise UserError(
            f"{where}: 'segmentation' has to be a list of polygons, got {str(segmentation)[:80]}."
        )
    for i, polygon in enumerate(segmentation):
        if not are_numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            got = f"{len(polygon)} entries" if isinstance(polygon, list) else repr(polygon)
            raise UserError(
                f"{where}: polygon {i} of 'segmentation' is broken: expected an even number of at "
                f"least 6 finite coordinates, got {got}. Repair or remove the polygon."
            )
