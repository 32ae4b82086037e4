"""Annotation files in COCO's style: reading and checking them, errors that say what to mend."""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from datasets.annotation_text import parse
from datasets.run_length import count_pixels
from datasets.values import is_integer, require_whole_text
from util.errors import MissingFileError, UserError, shown
from util.images import MAX_PIXELS

# --- files ---------------------------------------------------------------------------------------


def read_annotation_file(path: Path, layout: str) -> Any:
    """The parsed JSON of an annotation file.

    Args:
        path: of the file.
        layout: what `coco_path` has to hold, for the error, e.g. "images/ and RefHuman_val.json".

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not valid JSON in UTF-8 (a byte order mark before it does not matter).
    """
    if not path.is_file():
        raise MissingFileError(
            f"Annotation file {path} does not exist; set coco_path to the folder that holds "
            f"{layout}."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise UserError(f"{path} is empty; expected the JSON of annotations. Fetch it again.")
        return parse(text)
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8 ({error}); save it as UTF-8.") from error
    except RecursionError as error:
        raise UserError(
            f"{path} is nested too deeply to be an annotation file; fetch it again."
        ) from error
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
    # Links are not followed for the same reason.
    present = {
        entry.name for entry in os.scandir(folder) if not entry.is_dir(follow_symlinks=False)
    }
    missing = sorted(
        name for name in file_names if name not in present and not os.path.isfile(folder / name)
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

    Raises:
        UserError: an item is nested too deeply.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        packed, ends = bytearray(), np.empty(len(items), dtype=np.int64)
        try:
            for number, item in enumerate(items):
                packed += pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
                ends[number] = len(packed)
        except RecursionError as error:
            raise UserError(
                "An entry of the annotation file is nested hundreds of levels deep; remove what is "
                "not needed from it."
            ) from error
        self._ends = torch.from_numpy(ends)
        self._bytes = torch.frombuffer(packed or bytearray(1), dtype=torch.uint8)

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
        annotation has not been checked; see `datasets.checks`.

    Raises:
        UserError: naming the source, the image id, the key and the remedy.
    """
    require_lists(content, source, form)
    annotations: dict[int, list[dict[str, Any]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for number, entry in enumerate(content["images"]):
        check_image_entry(entry, number, source)
        check_image_id(entry, annotations, source, form)
        annotations[entry["id"]] = []
        check_image_size(entry, sizes, source)
    for number, annotation in enumerate(content["annotations"]):
        check_image_reference(annotation, number, annotations, source)
        annotations[annotation["image_id"]].append(annotation)
    return [(entry, annotations[entry["id"]]) for entry in content["images"]]


def require_lists(content: Any, source: str, form: str) -> None:
    """An annotation file's content has to be an object with lists; arguments: `join_annotations`.

    Raises:
        UserError: it is not, or there is no image.
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


def check_image_id(entry: Mapping[str, Any], known: Container[int], source: str, form: str) -> None:
    """The id of an image entry must not be among those that are `known`.

    Raises:
        UserError: it is.
    """
    if entry["id"] in known:
        raise UserError(
            f"{source}: image id {entry['id']} occurs twice; every image entry of a {form} file "
            f"needs an id of its own."
        )


def check_image_size(
    entry: Mapping[str, Any], sizes: dict[str, tuple[int, int]], source: str
) -> None:
    """Entries of one image file have to agree on its size.

    Args:
        entry: a checked image entry.
        sizes: (height, width) of the files so far; a new one is added.
        source: name of the annotation file.

    Raises:
        UserError: they do not.
    """
    name, size = entry["file_name"], (entry["height"], entry["width"])
    if sizes.setdefault(name, size) != size:
        raise UserError(
            f"{source}: image id {entry['id']}: {shown(name)} is said to have 'height' and "
            f"'width' {list(size)}, by an earlier entry {list(sizes[name])}; an image has one "
            f"size. Mend the wrong one."
        )


def check_image_reference(annotation: Any, number: int, known: Container[int], source: str) -> None:
    """Entry `number` of `annotations` has to be an object of one of the `known` image ids.

    Raises:
        UserError: it is not.
    """
    if not isinstance(annotation, dict):
        raise UserError(
            f"{source}: entry {number} of 'annotations' has to be an object, got "
            f"{shown(annotation)}; mend or remove it."
        )
    image_id = annotation.get("image_id")
    if not is_integer(image_id) or image_id not in known:
        raise UserError(
            f"{source}: an annotation (entry {number}) refers to image id {shown(image_id)}, "
            f"which 'images' does not have; add the image entry or remove the annotation."
        )


def check_image_entry(entry: Any, number: int, source: str) -> None:
    """Entry `number` of `images` has to have an id, the name of a file, and its size in pixels.

    Raises:
        UserError: it does not.
    """
    if not isinstance(entry, dict) or "id" not in entry:
        raise UserError(
            f"{source}: entry {number} of 'images' has to be an object with an 'id', got "
            f"{shown(entry)}."
        )
    where = f"{source}: image id {shown(entry['id'])}".replace("'", "")
    # Results are looked up by number, also in the COCO results format.
    if not is_integer(entry["id"]):
        raise UserError(f"{where}: 'id' has to be an integer of 64 bits, got {shown(entry['id'])}.")
    _check_file_name(entry.get("file_name"), where)
    for key in ("height", "width"):
        if not is_integer(entry.get(key)) or entry[key] <= 0:
            raise UserError(
                f"{where}: {key!r} has to be a positive number of pixels, got "
                f"{shown(entry.get(key))}."
            )
    if entry["height"] * entry["width"] > MAX_PIXELS:
        raise UserError(
            f"{where}: 'height' and 'width' are {shown(entry['height'])} and "
            f"{shown(entry['width'])}; images of more than {MAX_PIXELS} pixels are not read. "
            f"Reduce the image, or mend the numbers."
        )


def _check_file_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: 'file_name' is missing or not a string, got {shown(name)}.")
    require_whole_text(name, f"{where}: 'file_name'")
    steps = name.replace("\\", "/").split("/")
    if os.path.isabs(name) or ".." in steps or "\0" in name:
        raise UserError(
            f"{where}: 'file_name' has to be the name of a file in the image folder or in a folder "
            f"inside of it, got {shown(name)}; write it without '..' and without a leading '/'."
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
        UserError: the segmentation is neither polygons nor a whole RLE of this size.
    """
    try:
        if isinstance(segmentation, list):
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        count_pixels(segmentation, height, width)
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
    return all(
        first[key] is second[key] or list(first[key]) == list(second[key])
        for key in ("keypoints", "bbox")
    )
