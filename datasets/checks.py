"""Checks of an annotation's parts: errors that say what to mend.

What is asked beside the form: coordinates are pixels of the image. Boxes, polygons and labelled
keypoints may leave it, as people do, but not by more than its longer side, and something of each
has to be inside; scribbles lie inside, to a pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datasets.annotations import encode_segmentation
from datasets.run_length import count_pixels
from datasets.scribble import NUM_POINTS
from datasets.skeleton import SKELETONS, Skeleton
from datasets.values import are_numbers, is_integer, is_number, require_whole_text
from util.errors import UserError, shown

# How far outside of the image a point may be that is rounded or at its very edge, in pixels.
_TOLERANCE = 1

# A polygon of this area, in pixels, has pixels; smaller ones are drawn to see whether they do.
_SURELY_DRAWN = 100

_PERSON = 1  # category of COCO


@dataclass(frozen=True)
class Frame:
    """What an annotation's numbers have to fit, and how errors call the annotation.

    Attributes:
        name: file, image id and, if it has one, annotation id.
        height, width: of the image in pixels.
    """

    name: str
    height: int
    width: int

    @classmethod
    def of_annotation(
        cls, source: str, image_entry: Mapping[str, Any], annotation: Mapping[str, Any]
    ) -> Frame:
        """Of an annotation in file `source` that belongs to an image entry."""
        name = f"image id {image_entry['id']}"
        if "id" in annotation:
            name = f"annotation id {shown(annotation['id'])} of {name}"
        return cls(f"{source}: {name}", image_entry["height"], image_entry["width"])

    @property
    def overhang(self) -> int:
        """How far outside of the image something may reach, in pixels."""
        return max(self.height, self.width)

    def contains(self, x: float, y: float, margin: float) -> bool:
        """Whether a point is in the image or at most `margin` pixels outside of it."""
        return -margin <= x <= self.width + margin and -margin <= y <= self.height + margin

    def error(self, key: str, expected: str, got: str, remedy: str = "") -> UserError:
        """An error about key `key` of the annotation; tells the image's size where it matters."""
        if "image" in expected:
            got += f"; the image is {self.width}x{self.height} pixels (width x height)"
        remedy = remedy or "Mend or remove the annotation."
        return UserError(f"{self.name}: '{key}' {expected}, got {got}. {remedy}")


# --- numbers -------------------------------------------------------------------------------------


def check_box(annotation: Mapping[str, Any], frame: Frame, *, flat_allowed: bool = False) -> None:
    """`bbox` has to be [x, y, width, height], by default of positive width and height.

    Raises:
        UserError: it is not, or it is outside of the image.
    """
    box = annotation.get("bbox")
    fits = are_numbers(box) and len(box) == 4 and min(box[2:]) >= 0
    if not fits or (min(box[2:]) == 0 and not flat_allowed):
        sign = "non-negative" if flat_allowed else "positive"
        expected = f"has to be [x, y, width, height] with {sign} width and height"
        raise frame.error("bbox", expected, shown(box))
    x, y, width, height = box
    right, bottom = x + width, y + height
    if min(width, height) > 0:
        touches = x < frame.width and y < frame.height and right > 0 and bottom > 0
    else:
        touches = x <= frame.width and y <= frame.height and right >= 0 and bottom >= 0
    if not touches:
        expected = "has to lie in the image at least in part"
        raise frame.error("bbox", expected, shown(box))
    reach = frame.overhang
    if not (frame.contains(x, y, reach) and frame.contains(right, bottom, reach)):
        expected = f"may reach at most {reach} pixels (its longer side) beyond the image"
        raise frame.error("bbox", expected, shown(box))


def check_area(annotation: Mapping[str, Any], frame: Frame, *, zero_allowed: bool = False) -> None:
    """`area` has to be a number above zero, or zero where that is allowed, and fit the image.

    Raises:
        UserError: it is not.
    """
    area = annotation.get("area")
    if not is_number(area) or area < 0 or (area == 0 and not zero_allowed):
        sign = "non-negative" if zero_allowed else "positive"
        raise frame.error("area", f"has to be a {sign} number", shown(area))
    # A hundredth more, and a pixel, for areas that were not counted in whole pixels.
    if area > 1.01 * frame.height * frame.width + 1:
        raise frame.error("area", "has to be at most that of the image, in pixels", shown(area))


def check_keypoints(annotation: Mapping[str, Any], frame: Frame, skeleton: Skeleton) -> None:
    """`keypoints` has to hold x, y and visibility of each of the skeleton's keypoints.

    Raises:
        UserError: it does not (where it fits another skeleton, the message names it), or labelled
            keypoints are outside of the image.
    """
    keypoints = annotation.get("keypoints")
    expected = 3 * skeleton.num_keypoints
    if not are_numbers(keypoints) or len(keypoints) != expected:
        got, remedy = shown(keypoints), ""
        if isinstance(keypoints, list) and len(keypoints) != expected:
            got = f"{len(keypoints)} entries"
            fitting = [n for n, s in SKELETONS.items() if 3 * s.num_keypoints == len(keypoints)]
            remedy = f"Set skeleton={fitting[0]} for this file." if fitting else ""
        elif isinstance(keypoints, list):
            got = shown(next(value for value in keypoints if not is_number(value)))
        form = f"(x, y, visibility of {skeleton.num_keypoints} keypoints)"
        raise frame.error("keypoints", f"has to hold {expected} numbers {form}", got, remedy)
    xs, ys, visibilities = keypoints[0::3], keypoints[1::3], keypoints[2::3]
    if not set(visibilities) <= {0, 1, 2}:
        number, wrong = next((i, v) for i, v in enumerate(visibilities) if v not in (0, 1, 2))
        expected = f"has to have a visibility of 0, 1 or 2 for the {skeleton.names[number]}"
        raise frame.error("keypoints", expected, shown(wrong))
    if min(xs) < 0 or min(ys) < 0 or max(xs) > frame.width or max(ys) > frame.height:
        labelled = [
            (name, x, y)
            for name, x, y, visibility in zip(skeleton.names, xs, ys, visibilities, strict=True)
            if visibility > 0
        ]
        _check_labelled(labelled, frame)


def _check_labelled(labelled: Sequence[tuple[str, float, float]], frame: Frame) -> None:
    for name, x, y in labelled:
        if not frame.contains(x, y, frame.overhang):
            expected = (
                f"may reach at most {frame.overhang} pixels (its longer side) beyond the image"
            )
            remedy = "Mend it, or set its visibility to 0."
            raise frame.error("keypoints", expected, f"({x}, {y}) for the {name}", remedy)
    if labelled and not any(frame.contains(x, y, _TOLERANCE) for _, x, y in labelled):
        expected = "has to have a labelled keypoint in the image"
        remedy = "Mend them, or set their visibilities to 0."
        raise frame.error("keypoints", expected, "only ones outside", remedy)


# --- shapes --------------------------------------------------------------------------------------


def check_segmentation(
    annotation: Mapping[str, Any], frame: Frame, *, empty_allowed: bool = False
) -> bool:
    """`segmentation` has to be a list of polygons or a COCO RLE; returns whether it has a pixel.

    Args:
        annotation: whose segmentation it is.
        frame: its image.
        empty_allowed: it may be too small to have a pixel.

    Raises:
        UserError: it is neither, it is outside of the image, or it has no pixel.
    """
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if not {"size", "counts"} <= set(segmentation):
            raise UserError(
                f"{frame.name}: 'segmentation' is an object without 'size' and 'counts'."
            )
        try:
            pixels = count_pixels(segmentation, frame.height, frame.width)
        except ValueError as error:
            raise UserError(
                f"{frame.name}: the RLE in 'segmentation' is broken: {error}. Encode it again."
            ) from error
        is_empty = pixels == 0
    else:
        is_empty = not _check_polygons(segmentation, frame)
    if is_empty and not empty_allowed:
        expected = "has to have at least one pixel of the image inside"
        raise frame.error("segmentation", expected, "none")
    return not is_empty


def _check_polygons(polygons: Any, frame: Frame) -> bool:
    """Check polygons; returns whether they have a pixel inside."""
    if not isinstance(polygons, list) or not polygons:
        raise frame.error("segmentation", "has to be a list of polygons or an RLE", shown(polygons))
    is_inside = surely_drawn = False
    reach = frame.overhang
    for i, polygon in enumerate(polygons):
        if not are_numbers(polygon) or len(polygon) < 6 or len(polygon) % 2:
            got = f"{len(polygon)} entries" if isinstance(polygon, list) else shown(polygon)
            raise UserError(
                f"{frame.name}: polygon {i} of 'segmentation' is broken: expected an even number "
                f"of at least 6 finite coordinates, got {got}. Repair or remove the polygon."
            )
        xs, ys = polygon[0::2], polygon[1::2]
        left, top, right, bottom = min(xs), min(ys), max(xs), max(ys)
        if left >= 0 and top >= 0 and right <= frame.width and bottom <= frame.height:
            is_inside = True
            surely_drawn = surely_drawn or abs(_twice_area(xs, ys)) >= 2 * _SURELY_DRAWN
            continue
        if not (frame.contains(left, top, reach) and frame.contains(right, bottom, reach)):
            expected = f"may reach at most {reach} pixels (its longer side) beyond the image"
            got = f"polygon {i} from ({left}, {top}) to ({right}, {bottom})"
            raise frame.error("segmentation", expected, got)
        if left < frame.width and top < frame.height and right > 0 and bottom > 0:
            is_inside = True
    if not is_inside:
        expected = "has to lie in the image at least in part"
        raise frame.error("segmentation", expected, "polygons outside")
    if surely_drawn:
        return True
    code = encode_segmentation(polygons, frame.height, frame.width, frame.name)
    return int(coco_mask.area(code)) > 0


def _twice_area(xs: list[float], ys: list[float]) -> float:
    """Twice the area of a polygon, negative where it runs the other way round."""
    return sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, ys, xs[1:] + xs[:1]))


def check_scribbles(annotation: Mapping[str, Any], frame: Frame) -> None:
    """`scribble` has to hold scribbles of 12 points in the image, if it is there at all.

    Numbers one after the other, or nested by scribble, by point or by both.

    Raises:
        UserError: it does not.
    """
    scribble = annotation.get("scribble")
    if scribble is None or scribble == []:
        return
    numbers = flat_scribbles(scribble)
    if numbers is None:
        raise frame.error(
            "scribble",
            f"has to hold scribbles of {NUM_POINTS} points (x, y), flat or nested, "
            f"{2 * NUM_POINTS} finite numbers each",
            shown(scribble),
        )
    xs, ys = numbers[0::2], numbers[1::2]
    if min(xs) < 0 or min(ys) < 0 or max(xs) > frame.width or max(ys) > frame.height:
        for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
            if not frame.contains(x, y, _TOLERANCE):
                which = f"point {i % NUM_POINTS} of scribble {i // NUM_POINTS}"
                expected = "has to lie in the image"
                raise frame.error("scribble", expected, f"({x}, {y}) for {which}")


def flat_scribbles(scribble: Any) -> list[float] | None:
    """All numbers of scribbles one after the other; None if they are not such."""
    if not isinstance(scribble, list):
        return None
    if scribble and isinstance(scribble[0], list):
        try:
            nested = np.array(scribble, dtype=object)
        except ValueError:  # uneven
            return None
        per_scribble = nested.shape[1:] in ((2 * NUM_POINTS,), (NUM_POINTS, 2))
        if not per_scribble and nested.shape[1:] != (2,):
            return None
        scribble = nested.ravel().tolist()
    fits = scribble and len(scribble) % (2 * NUM_POINTS) == 0 and are_numbers(scribble)
    return scribble if fits else None


# --- the rest ------------------------------------------------------------------------------------


def check_person(annotation: Mapping[str, Any], frame: Frame, *, crowd_allowed: bool) -> None:
    """`category_id`, if it is there, has to be 1, a person; `iscrowd`, if it is there, 0 or 1.

    Args:
        annotation: of whom.
        frame: its image.
        crowd_allowed: it may be a crowd, a region of many people.

    Raises:
        UserError: they are not.
    """
    category = annotation.get("category_id", _PERSON)
    if not is_integer(category) or category != _PERSON:
        raise frame.error(
            "category_id",
            f"has to be {_PERSON}, a person",
            shown(category),
            "Leave other things out of the file.",
        )
    crowd = annotation.get("iscrowd", 0)
    if type(crowd) not in (int, bool) or crowd not in (0, 1):
        raise frame.error("iscrowd", "has to be 0 (a person) or 1 (a crowd)", shown(crowd))
    if crowd and not crowd_allowed:
        raise frame.error("iscrowd", "has to be 0, since a prompt means a single person", "1")


def check_annotation_ids(annotations: Iterable[Mapping[str, Any]], source: str) -> None:
    """Annotation ids, where there are any, have to be integers or names, each used once.

    Raises:
        UserError: they are not.
    """
    seen: dict[Any, int] = {}
    for annotation in annotations:
        check_annotation_id(annotation, seen, source)


def check_annotation_id(annotation: Mapping[str, Any], seen: dict[Any, int], source: str) -> None:
    """The id of an annotation, if it has one, has to be new, an integer or a name.

    Args:
        annotation: with an `image_id`.
        seen: ids so far and their image ids; a new one is added.
        source: name of the file.

    Raises:
        UserError: it is not.
    """
    if "id" not in annotation:
        return
    own, image_id = annotation["id"], annotation["image_id"]
    if not is_integer(own) and not isinstance(own, str):
        raise UserError(
            f"{source}: an annotation of image id {image_id} has the 'id' {shown(own)}; "
            f"expected an integer, or none at all."
        )
    if own in seen:
        raise UserError(
            f"{source}: annotation id {shown(own)} occurs twice, for image ids {seen[own]} and "
            f"{image_id}; every annotation needs an id of its own."
        )
    seen[own] = image_id


def check_people(
    people: Any, sizes: Mapping[str, tuple[int, int]], source: str, skeleton: Skeleton
) -> list[dict[str, Any]]:
    """Check a list of all people in the images.

    Args:
        people: the file's list `people`.
        sizes: (height, width) by `file_name`.
        source: name of the file.
        skeleton: keypoint definition.

    Returns:
        Those of its entries that are of these images.

    Raises:
        UserError: the list or an entry of it is broken.
    """
    if not isinstance(people, list):
        raise UserError(
            f"{source}: 'people' has to be a list of everybody in the images, got {shown(people)}; "
            f"mend it or leave it out."
        )
    return [
        person
        for number, person in enumerate(people)
        if check_listed_person(person, number, sizes, source, skeleton)
    ]


def check_listed_person(
    person: Any,
    number: int,
    sizes: Mapping[str, tuple[int, int]],
    source: str,
    skeleton: Skeleton,
) -> bool:
    """Check entry `number` of a list of all people in the images; arguments: `check_people`.

    Returns:
        Whether it is of one of these images; others are not looked at.

    Raises:
        UserError: it is broken.
    """
    name = person.get("file_name") if isinstance(person, dict) else None
    if not isinstance(name, str):
        raise UserError(
            f"{source}: entry {number} of 'people' has to be an object with the 'file_name' of "
            f"its image, got {shown(person)}; complete it or leave 'people' out."
        )
    if name not in sizes:
        return False
    frame = Frame(f"{source}: entry {number} of 'people' ({shown(name)})", *sizes[name])
    check_box(person, frame, flat_allowed=True)
    check_area(person, frame, zero_allowed=True)
    check_keypoints(person, frame, skeleton)
    return True


def check_text(entry: Mapping[str, Any], key: str, where: str) -> None:
    """A text, if it is there, has to be a string that can be written down.

    Raises:
        UserError: it is not.
    """
    text = entry.get(key)
    if text is None:
        return
    if not isinstance(text, str):
        raise UserError(f"{where}: '{key}' has to be a string, got {shown(text)}.")
    require_whole_text(text, f"{where}: '{key}'")
