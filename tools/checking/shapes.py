"""Defects of people's shapes and of image files: masks are drawn and images opened, in processes.

What loading does not ask: that a person's box, area, keypoints and scribbles are of the same person
as the mask. The tolerances are several times what COCO's own annotations need (5 px and 9 % between
box and mask, 1 px from a visible keypoint to its mask).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from checking.content import CheckedImage, ContentCheck, Person
from checking.defects import Defect, Findings
from datasets.annotations import encode_segmentation
from datasets.base import image_of_entry
from datasets.checks import Frame, flat_scribbles
from datasets.skeleton import Skeleton
from util.errors import MissingFileError, UserError
from util.images import ImageSizeError

_BOX_PIXELS, _BOX_SHARE = 6.0, 0.15  # of its longer side, by which a side of the box may be off
_AREA_SHARE, _AREA_OF_EDGE = 0.25, 0.5  # of the mask's pixels, and of the box's half perimeter
_POINT_PIXELS, _POINT_SHARE = 5.0, 0.1  # of the box's mean side, from a visible point to the mask
_HIDDEN_SHARE = 2.0  # of the box's longer side, from a hidden point to the box
_SCRIBBLE_PIXELS = 2.0  # from a point of a scribble to the mask
_EDGE = 1.0  # by which a labelled keypoint may be outside of the image, for rounding

_TASK_SIZE = 16  # image files that a process checks at a time


@dataclass(frozen=True)
class FileTask:
    """An image file with all that is said about it.

    Attributes:
        folder: of the images.
        source: name of the annotation file.
        skeleton: keypoint definition.
        images: the file's image entries.
    """

    folder: Path
    source: str
    skeleton: Skeleton
    images: tuple[CheckedImage, ...]


def file_tasks(check: ContentCheck, folder: Path) -> list[list[FileTask]]:
    """All image files of a checked content, `_TASK_SIZE` at a time."""
    by_file: dict[str, list[CheckedImage]] = {}
    for image in check.images.values():
        by_file.setdefault(image.entry["file_name"], []).append(image)
    tasks = [
        FileTask(folder, check.source, check.skeleton, tuple(images)) for images in by_file.values()
    ]
    return [tasks[i : i + _TASK_SIZE] for i in range(0, len(tasks), _TASK_SIZE)]


def check_files(tasks: Sequence[FileTask]) -> tuple[int, list[Defect]]:
    """The work of one process: how many image files it checked, and their defects."""
    cv2.setNumThreads(1)
    findings = Findings()
    for task in tasks:
        _check_image_file(task, findings)
        masks: list[tuple[Any, np.ndarray]] = []
        for image in task.images:
            for person in image.people:
                _check_shape(task, image, person, masks, findings)
    return len(tasks), findings.defects


def _check_image_file(task: FileTask, findings: Findings) -> None:
    """Read the whole image, as training would, with the EXIF orientation where that fits."""
    first = task.images[0]
    try:
        image_of_entry(task.folder, first.entry).pixels()
    except UserError as error:
        kind = "image_unreadable"
        if isinstance(error, MissingFileError):
            kind = "image_missing"
        elif isinstance(error, ImageSizeError):
            kind = "image_size"
        findings.add(kind, str(error), [image.place for image in task.images], first.entry)


def _check_shape(
    task: FileTask,
    image: CheckedImage,
    person: Person,
    masks: list[tuple[Any, np.ndarray]],
    findings: Findings,
) -> None:
    """The parts of an annotation against each other; `masks` has what was drawn of this image."""
    annotation = person.annotation
    frame = Frame.of_annotation(task.source, image.entry, annotation)
    mask = None
    if "segmentation" in person.sound:
        mask = _drawn(annotation["segmentation"], frame, masks)
    found = list(_defects_of_keypoints(person, frame, mask, task.skeleton))
    if mask is not None:
        found += _defects_of_mask(person, frame, mask)
    for kind, message in found:
        place = ("annotations", person.number)
        findings.add(kind, f"{frame.name}: {message}", [place], image.entry, annotation)


def _drawn(segmentation: Any, frame: Frame, masks: list[tuple[Any, np.ndarray]]) -> np.ndarray:
    """[h, w] uint8; captions of one person share what was drawn."""
    for other, mask in masks:
        if other == segmentation:
            return mask
    code = encode_segmentation(segmentation, frame.height, frame.width, frame.name)
    masks.append((segmentation, coco_mask.decode(code)))
    return masks[-1][1]


def _defects_of_keypoints(
    person: Person, frame: Frame, mask: np.ndarray | None, skeleton: Skeleton
) -> Iterator[tuple[str, str]]:
    """(kind, message) of what is wrong with sound keypoints."""
    annotation = person.annotation
    if "keypoints" not in person.sound:
        return
    keypoints = np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
    labelled = keypoints[:, 2] > 0
    count = annotation.get("num_keypoints", int(labelled.sum()))
    if count != labelled.sum() or isinstance(count, bool):
        message = f"'num_keypoints' is {count!r}, but {labelled.sum()} are labelled; correct it."
        yield "num_keypoints", message
    names = np.array(skeleton.names)
    limit = np.array([frame.width, frame.height])
    outside = (np.maximum(-keypoints[:, :2], keypoints[:, :2] - limit) > _EDGE).any(axis=1)
    for kind, which, message in (
        ("keypoints_outside", labelled & outside, "outside of the image"),
        (
            "keypoints_off_mask",
            _far_points(person, keypoints, mask) & labelled & ~outside,
            "far from the person's mask or box",
        ),
    ):
        if which.any():
            places = ", ".join(
                f"{name} ({x:g}, {y:g})"
                for name, (x, y, _) in zip(names[which], keypoints[which], strict=True)
            )
            yield kind, f"labelled keypoints lie {message}: {places}; mend or unlabel them."


def _far_points(person: Person, keypoints: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Which of K keypoints are too far from their person, [K] bool."""
    far = np.zeros(len(keypoints), dtype=bool)
    if "bbox" not in person.sound or person.annotation.get("iscrowd"):
        return far
    x, y, width, height = person.annotation["bbox"]
    points = keypoints[:, :2]
    off_box = np.maximum(np.maximum((x, y) - points, points - (x + width, y + height)), 0)
    far = np.linalg.norm(off_box, axis=1) > _HIDDEN_SHARE * max(width, height)
    if mask is not None:
        allowed = max(_POINT_PIXELS, _POINT_SHARE * (width * height) ** 0.5)
        visible = keypoints[:, 2] == 2
        far[visible] |= distances(mask, points[visible]) > allowed
    return far


def _defects_of_mask(person: Person, frame: Frame, mask: np.ndarray) -> Iterator[tuple[str, str]]:
    """(kind, message) of what disagrees with a person's mask [h, w] uint8."""
    annotation = person.annotation
    pixels = cv2.countNonZero(mask)
    left, top, width, height = cv2.boundingRect(mask)
    if "bbox" in person.sound:
        # A box may reach beyond the image, a mask cannot.
        x, y, w, h = annotation["bbox"]
        box = np.clip([x, y, x + w, y + h], 0, [frame.width, frame.height] * 2)
        off = np.abs(box - (left, top, left + width, top + height)).max()
        if off > max(_BOX_PIXELS, _BOX_SHARE * max(width, height)):
            yield (
                "box_off_mask",
                (
                    f"'bbox' is {annotation['bbox']}, but the mask's is "
                    f"{[left, top, width, height]}; mend the one or the other."
                ),
            )
    if "area" in person.sound:
        allowed = _AREA_SHARE * pixels + _AREA_OF_EDGE * (width + height)
        if abs(annotation["area"] - pixels) > allowed:
            yield (
                "area_off_mask",
                (
                    f"'area' is {annotation['area']:g}, but the mask has {pixels} pixels; "
                    f"correct it."
                ),
            )
    if "scribble" in person.sound and annotation.get("scribble"):
        points = np.array(flat_scribbles(annotation["scribble"]), dtype=np.float64).reshape(-1, 2)
        off = distances(mask, points)
        if off.max() > _SCRIBBLE_PIXELS:
            x, y = points[off.argmax()]
            yield (
                "scribble_off_mask",
                (
                    f"{(off > _SCRIBBLE_PIXELS).sum()} of {len(points)} points of 'scribble' are "
                    f"not on the mask, ({x:g}, {y:g}) is {off.max():.0f} pixels away; draw again."
                ),
            )


def distances(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    """From points to the nearest pixel of a mask.

    Args:
        mask: [h, w] uint8, not empty.
        points: [N, 2] (x, y) in pixels, whole numbers at pixels' centres or corners; outside of the
            image the distance to its edge is added.

    Returns:
        [N] pixels.
    """
    height, width = mask.shape
    inside = np.clip(points, 0, (width - 1, height - 1))
    beyond = np.linalg.norm(points - inside, axis=1)
    columns, rows = np.floor(inside).astype(np.int64).T
    near_columns, near_rows = np.rint(inside).astype(np.int64).T
    if (mask[rows, columns] | mask[near_rows, near_columns]).all():
        return beyond
    distance = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.minimum(distance[rows, columns], distance[near_rows, near_columns]) + beyond
