"""Annotation files in COCO's style: reading and checking them, errors that say what to mend."""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from datasets.skeleton import SKELETONS, Skeleton
from util.errors import MissingFileError, UserError

# --- files ---------------------------------------------------------------------------------------


def read_annotation_file(path: Path, layout: str) -> Any:
    """The parsed JSON of an annotation file.

    Args:
        path: of the file.
        layout: what `coco_path` has to hold, for the error, e.g. "images/ and RefHuman_val.json".

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not valid JSON.
    """
    if not path.is_file():
        raise MissingFileError(
            f"Annotation file {path} does not exist; set coco_path to the folder that holds "
            f"{layout}."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); fetch it again.") from error


def require_images(folder: Path, file_names: Collection[str], layout: str) -> None:
    """Make sure that the images are there before the first epoch.

    Args:
        folder: of the images.
        file_names: of all images.
        layout: see `read_annotation_file`.

    Raises:
        MissingFileError: the folder or images in it are missing.
    """
    if not folder.is_dir():
        raise MissingFileError(
            f"Image folder {folder} does not exist; set coco_path to the folder that holds "
            f"{layout}."
        )
    # One listing instead of a look-up per file: folders of this size often lie on network disks.
    present = {entry.name for entry in os.scandir(folder)}
    missing = sorted(
        name for name in file_names if name not in present and not (folder / name).is_file()
    )
    if missing:
        raise MissingFileError(
            f"{len(missing)} of {len(file_names)} images are missing in {folder}, among them "
            f"{', '.join(missing[:3])}; copy the images there."
        )


class PackedList:
    """Read-only list, kept as one block of bytes that all workers of a loader share.

    Reading a Python object writes its reference count, so that a list of dicts would gradually be
    copied into every forked worker; nobody writes to the block. Spawned workers get a tensor's
    memory as a handle instead of a copy.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        packed = [pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL) for item in items]
        self._ends = torch.from_numpy(np.cumsum([len(item) for item in packed], dtype=np.int64))
        self._bytes = torch.frombuffer(bytearray(b"".join(packed) or b" "), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"Item {index} of a list of {len(self)}.")
        start = 0 if index == 0 else int(self._ends[index - 1])
        return pickle.loads(self._bytes[start : int(self._ends[index])].numpy())


# --- entries -------------------------------------------------------------------------------------


def join_annotations(
    content: Any, source: str, form: str
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Check an annotation file's image entries and give each its annotations.

    Args:
        content: the parsed JSON.
        source: its name, for errors.
        form: whose form it should have, for errors: "RefHuman", "COCO keypoints" ...

    Returns:
        (image entry, its annotations) of every image entry, both in their order. What is inside an
        annotation has not been checked.

    Raises:
        UserError: naming the source, the image id, the key and the remedy.
    """
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    ):
        raise UserError(
            f"{source} is not a {form} annotation file: expected an object with the lists "
            f"'images' and 'annotations'."
        )
    if not content["images"]:
        raise UserError(f"{source} has no image entries; expected at least one.")
    annotations: dict[Any, list[dict[str, Any]]] = {}
    for image_entry in content["images"]:
        _check_image_entry(image_entry, source)
        if image_entry["id"] in annotations:
            raise UserError(
                f"{source}: image id {image_entry['id']} occurs twice; every image entry of a "
                f"{form} file needs an id of its own."
            )
        annotations[image_entry["id"]] = []
    for annotation in content["annotations"]:
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not is_integer(image_id) or image_id not in annotations:
            raise UserError(
                f"{source}: an annotation refers to image id {image_id!r}, which 'images' does "
                f"not have; add the image entry or remove the annotation."
            )
        annotations[image_id].append(annotation)
    return [(entry, annotations[entry["id"]]) for entry in content["images"]]


def _check_image_entry(entry: Any, source: str) -> None:
    if not isinstance(entry, dict) or "id" not in entry:
        raise UserError(f"{source}: an entry of 'images' has no 'id': {str(entry)[:80]}.")
    where = f"{source}: image id {entry['id']}"
    # Results are looked up by number, also in the COCO results format.
    if not is_integer(entry["id"]):
        raise UserError(f"{where}: 'id' has to be an integer, got {entry['id']!r}.")
    if not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        raise UserError(f"{where}: 'file_name' is missing or not a string.")
    for key in ("height", "width"):
        if not is_integer(entry.get(key)) or entry[key] <= 0:
            raise UserError(
                f"{where}: {key!r} has to be a positive number of pixels, got {entry.get(key)!r}."
            )


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


def encode_segmentation(
    segmentation: list[list[float]] | dict[str, Any], height: int, width: int, name: str
) -> dict[str, Any]:
    """COCO segmentation -> one run-length code for the whole person.

    Args:
        segmentation: polygons [x0, y0, x1, y1, ...] in pixels, or a COCO RLE, compressed or not.
        height: rows of the image.
        width: columns of the image.
        name: what to call the segmentation's owner in an error.

    Returns:
        Compressed RLE, `size` [height, width] and `counts` bytes.

    Raises:
        UserError: the segmentation is neither polygons nor an RLE of this size.
    """
    try:
        if isinstance(segmentation, list):
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"the RLE is of size {segmentation['size']}")
        if isinstance(segmentation["counts"], list):
            return coco_mask.frPyObjects(segmentation, height, width)
        counts = segmentation["counts"]
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
        return {"size": [height, width], "counts": counts}
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"{name}: the segmentation is neither polygons nor a COCO RLE of {height}x{width} "
            f"pixels (height x width): {error}."
        ) from error


def same_person(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two annotations of an image are of the same person: by `person_id`, else by shape."""
    if "person_id" in first and "person_id" in second:
        return first["person_id"] == second["person_id"]
    return all(list(first[key]) == list(second[key]) for key in ("keypoints", "bbox"))


def is_integer(value: Any) -> bool:
    """Whether `value` is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def are_numbers(values: Any) -> bool:
    """Whether `values` is a list of finite numbers."""
    return isinstance(values, list) and all(
        isinstance(value, (int, float)) and math.isfinite(value) for value in values
    )
