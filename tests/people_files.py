"""Files of annotated people that tests write: COCO keypoints, and RefCOCO's references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from conftest import person_annotation
from PIL import Image

SIZE = (60, 100)  # height, width of the images


def person(number: int, image_id: int, left: float = 5.0, **changes: Any) -> dict[str, Any]:
    """A COCO annotation of a person with all keypoints, on 15 % of the image."""
    annotation = person_annotation((left, 5.0, 36.0, 50.0), image_id, number)
    annotation.pop("scribble")
    kept = {key: annotation[key] for key in ("bbox", "keypoints", "segmentation", "area")}
    own = {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0}
    return {**own, **kept, "num_keypoints": 17, **changes}


def unlabelled(annotation: dict[str, Any], labelled: int) -> dict[str, Any]:
    """The same person with only the first keypoints labelled."""
    keypoints = list(annotation["keypoints"])
    keypoints[3 * labelled :] = [0] * (51 - 3 * labelled)
    return {**annotation, "keypoints": keypoints, "num_keypoints": labelled}


def write_images(folder: Path, names: list[str]) -> None:
    """Noise images of SIZE."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


def write_people(
    folder: Path, annotations: list[dict[str, Any]], name: str = "people.json", **more: Any
) -> Path:
    """A file of COCO keypoints in `folder`, its images in `folder/images`.

    Image ids are those of the annotations; an image is called by its id in twelve digits.
    """
    ids = sorted({a["image_id"] for a in annotations})
    height, width = SIZE
    images = [
        {"id": i, "file_name": f"{i:012d}.jpg", "height": height, "width": width} for i in ids
    ]
    write_images(folder / "images", [image["file_name"] for image in images])
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
        **more,
    }
    (folder / name).write_text(json.dumps(content))
    return folder / name


# --- RefCOCO -------------------------------------------------------------------------------------


def reference(number: int, annotation_id: int, image_id: int, *texts: str, **changes: Any) -> dict:
    """An entry of a refs file, with all its keys."""
    sentences = [
        {"sent_id": 10 * number + i, "sent": text, "raw": text.title(), "tokens": text.split()}
        for i, text in enumerate(texts)
    ]
    return {
        "ref_id": number,
        "ann_id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "split": "train",
        "file_name": f"COCO_train2014_{image_id:012d}_{number}.jpg",
        "sent_ids": [s["sent_id"] for s in sentences],
        "sentences": sentences,
        **changes,
    }


def write_refs(folder: Path, entries: Any, name: str = "refs(unc).p", protocol: int = 0) -> Path:
    """A folder of the RefCOCO family, as Python 2 wrote it: texts are bytes in Latin-1."""
    folder.mkdir(parents=True, exist_ok=True)
    start = b"\x80\x02" if protocol == 2 else b""
    (folder / name).write_bytes(start + _python2(entries, protocol) + b".")
    (folder / "instances.json").write_text("{}")  # is not read
    return folder


def _python2(value: Any, protocol: int) -> bytes:
    """The opcodes of Python 2's pickle for plain data."""
    if isinstance(value, str):
        text = value.encode("latin1")
        if protocol == 2:
            return b"U" + bytes([len(text)]) + text
        return b"S" + repr(text)[1:].encode("ascii") + b"\n"
    if isinstance(value, int):
        return (
            b"J" + value.to_bytes(4, "little", signed=True) if protocol == 2 else b"I%d\n" % value
        )
    if isinstance(value, list):
        items = [_python2(item, protocol) for item in value]
        return b"](" + b"".join(items) + b"e" if protocol == 2 else b"(l" + b"a".join([*items, b""])
    pairs = [_python2(k, protocol) + _python2(v, protocol) for k, v in value.items()]
    return b"}(" + b"".join(pairs) + b"u" if protocol == 2 else b"(d" + b"s".join([*pairs, b""])
