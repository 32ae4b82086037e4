"""Annotation files in COCO's style: reading and checking them, errors that say what to mend."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from datasets.values import is_integer
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
