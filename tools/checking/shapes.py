"""Defects of people's shapes and of image files: masks are drawn and images opened, in processes.

What loading does not ask: that a person's box, area, keypoints and scribbles are of the same person
as the mask. The tolerances are several times what COCO's own annotations need (5 px and 9 % between
box and mask, 1 px from a visible keypoint to its mask).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from checking.content import ContentCheck, Shape
from checking.defects import Defect, Findings, Place, plain_id
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

_FILES_AT_A_TIME = 16
_SHAPES_AT_A_TIME = 32


@dataclass(frozen=True)
class FilesTask:
    """Image files that a process reads.

    Attributes:
        folder: of the images.
        files: image entries, one of each file, and where all entries of the file are.
    """

    folder: Path
    files: list[tuple[dict[str, Any], list[Place]]]


@dataclass(frozen=True)
class ShapesTask:
    """Annotations whose parts a process compares.

    Attributes:
        source: name of the annotation file.
        skeleton: keypoint definition.
        shapes: the annotations.
    """

    source: str
    skeleton: Skeleton
    shapes: list[Shape]


@dataclass(frozen=True)
class Result:
    """What a process found.

    Attributes:
        count: image files or annotations that were checked.
        defects: of them.
        clean: digests of annotations without a defect.
    """

    count: int
    defects: list[Defect]
    clean: frozenset[bytes] = frozenset()


def file_tasks(check: ContentCheck, folder: Path) -> Iterator[FilesTask]:
    """The image files of a checked content, some at a time."""
    files = iter(check.by_file.values())
    while some := list(islice(files, _FILES_AT_A_TIME)):
        yield FilesTask(
            folder, [(of_file[0].as_entry(), [i.place for i in of_file]) for of_file in some]
        )


def shape_tasks(check: ContentCheck, clean: Container[bytes]) -> Iterator[ShapesTask]:
    """The annotations of a checked content, some at a time.

    Args:
        check: whose `shapes` are taken.
        clean: digests of annotations that need not be looked at again; it may grow meanwhile.
    """
    shapes = (shape for shape in check.shapes() if shape.digest not in clean)
    while some := list(islice(shapes, _SHAPES_AT_A_TIME)):
        yield ShapesTask(check.source, check.skeleton, some)


def check_part(task: FilesTask | ShapesTask) -> Result:
    """The work of one process."""
    cv2.setNumThreads(1)
    findings = Findings()
    if isinstance(task, FilesTask):
        for entry, places in task.files:
            _check_image_file(task.folder, entry, places, findings)
        return Result(len(task.files), findings.defects)
    clean: set[bytes] = set()
    for shape in task.shapes:
        # Captions of one person mostly follow each other.
        if shape.digest not in clean and not _check_shape(task, shape, findings):
            clean.add(shape.digest)
    return Result(len(task.shapes), findings.defects, frozenset(clean))


def _check_image_file(
    folder: Path, entry: dict[str, Any], places: list[Place], findings: Findings
) -> None:
    """Read the whole image, as training would, with the EXIF orientation where that fits."""
    try:
        image_of_entry(folder, entry).pixels()
    except UserError as error:
        kind = "image_unreadable"
        if isinstance(error, MissingFileError):
            kind = "image_missing"
        elif isinstance(error, ImageSizeError):
            kind = "image_size"
        findings.add(kind, str(error), places, entry["id"], None)


def _check_shape(task: ShapesTask, shape: Shape, findings: Findings) -> bool:
    """The parts of an annotation against each other; returns whether a defect was found."""
    annotation = shape.annotation
    frame = Frame.of_annotation(task.source, shape.image, annotation)
    mask = None
    if "segmentation" in shape.sound:
        segmentation = annotation["segmentation"]
        code = encode_segmentation(segmentation, frame.height, frame.width, frame.name)
        mask = coco_mask.decode(code)
    found = list(_defects_of_keypoints(shape, frame, mask, task.skeleton))
    if mask is not None:
        found += _defects_of_mask(shape, frame, mask)
    for kind, message in found:
        place = ("annotations", shape.number)
        ids = (shape.image["id"], plain_id(annotation, "id"))
        findings.add(kind, f"{frame.name}: {message}", [place], *ids)
    return bool(found)


def _defects_of_keypoints(
    shape: Shape, frame: Frame, mask: np.ndarray | None, skeleton: Skeleton
) -> Iterator[tuple[str, str]]:
    """(kind, message) of what is wrong with sound keypoints."""
    annotation = shape.annotation
    if "keypoints" not in shape.sound:
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
            _far_points(shape, keypoints, mask) & labelled & ~outside,
            "far from the person's mask or box",
        ),
    ):
        if which.any():
            places = ", ".join(
                f"{name} ({x:g}, {y:g})"
                for name, (x, y, _) in zip(names[which], keypoints[which], strict=True)
            )
            yield kind, f"labelled keypoints lie {message}: {places}; mend or unlabel them."


def _far_points(shape: Shape, keypoints: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Which of K keypoints are too far from their person, [K] bool."""
    far = np.zeros(len(keypoints), dtype=bool)
    if "bbox" not in shape.sound or shape.annotation.get("iscrowd"):
        return far
    x, y, width, height = shape.annotation["bbox"]
    points = keypoints[:, :2]
    off_box = np.maximum(np.maximum((x, y) - points, points - (x + width, y + height)), 0)
    far = np.linalg.norm(off_box, axis=1) > _HIDDEN_SHARE * max(width, height)
    if mask is not None:
        allowed = max(_POINT_PIXELS, _POINT_SHARE * (width * height) ** 0.5)
        visible = keypoints[:, 2] == 2
        far[visible] |= distances(mask, points[visible]) > allowed
    return far


def _defects_of_mask(shape: Shape, frame: Frame, mask: np.ndarray) -> Iterator[tuple[str, str]]:
    """(kind, message) of what disagrees with a person's mask [h, w] uint8."""
    annotation = shape.annotation
    pixels = cv2.countNonZero(mask)
    left, top, width, height = cv2.boundingRect(mask)
    if "bbox" in shape.sound:
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
    if "area" in shape.sound:
        allowed = _AREA_SHARE * pixels + _AREA_OF_EDGE * (width + height)
        if abs(annotation["area"] - pixels) > allowed:
            yield (
                "area_off_mask",
                (
                    f"'area' is {annotation['area']:g}, but the mask has {pixels} pixels; "
                    f"correct it."
                ),
            )
    if "scribble" in shape.sound and annotation.get("scribble"):
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
