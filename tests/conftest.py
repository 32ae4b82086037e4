"""Fixtures shared by the tests: small data sets with generated images."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# Several test workers on few cores: one thread each is faster than all of them competing. PyTorch
# reads it when it is imported, so that here only fixtures import what imports PyTorch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The background jobs of a script ignore Ctrl-C, and so would the programs that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Offsets of the 17 COCO keypoints inside a person's box, (x, y) as fractions of its size. The
# image shows the person from the front: its left side is on the right.
POSE = np.array(
    [
        (0.50, 0.12),
        (0.56, 0.09),
        (0.44, 0.09),
        (0.64, 0.11),
        (0.36, 0.11),
        (0.78, 0.27),
        (0.22, 0.27),
        (0.88, 0.42),
        (0.12, 0.42),
        (0.92, 0.56),
        (0.08, 0.56),
        (0.68, 0.56),
        (0.32, 0.56),
        (0.70, 0.75),
        (0.30, 0.75),
        (0.72, 0.95),
        (0.28, 0.95),
    ]
)


def person_annotation(
    box: tuple[float, float, float, float], image_id: int, person_id: int
) -> dict[str, Any]:
    """A RefHuman annotation of a person that fills its box (x, y, width, height) as a diamond."""
    x, y, width, height = box
    keypoints = np.ones((17, 3)) * 2
    keypoints[:, :2] = np.rint(POSE * (width, height) + (x, y))
    polygon = [(x + width / 2, y), (x + width, y + height / 2), (x + width / 2, y + height)]
    polygon.append((x, y + height / 2))
    steps = np.linspace(0.2, 0.8, 12)
    scribbles = [
        np.stack((np.full(12, x + width * share), y + height * steps), axis=1)
        for share in (0.5, 0.48, 0.52, 0.46, 0.54)
    ]
    return {
        "id": image_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [float(value) for value in box],
        "area": width * height / 2,
        "segmentation": [np.array(polygon, dtype=float).ravel().tolist()],
        "keypoints": keypoints.ravel().astype(int).tolist(),
        "num_keypoints": 17,
        "scribble": np.rint(np.array(scribbles)).astype(int).ravel().tolist(),
        "person_id": person_id,
    }


def write_refhuman(
    folder: Path,
    pairs: dict[str, int] | None = None,
    size: tuple[int, int] = (96, 128),
    change: Callable[[dict[str, Any], str], None] | None = None,
) -> Path:
    """Write a small valid RefHuman folder: noise images, each with two people as bright boxes.

    Args:
        folder: where to; made if needed.
        pairs: number of image-prompt pairs per split, default 6 and 5. Two pairs share an image
            and refer to its two people.
        size: (height, width) of the images in pixels.
        change: called with (annotation content, split) before it is written, to break or vary it.

    Returns:
        The folder.
    """
    height, width = size
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for split_number, (split, count) in enumerate((pairs or {"train": 6, "val": 5}).items()):
        content: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": "person"}],
        }
        generator = np.random.default_rng(split_number)
        for i in range(count):
            image, side = divmod(i, 2)
            file_name = f"{split}_{image:03d}.jpg"
            boxes = [
                (width * (0.06 + 0.5 * s), height * 0.1, width * 0.36, height * 0.8) for s in (0, 1)
            ]
            if side == 0:
                pixels = generator.integers(0, 80, (height, width, 3), dtype=np.uint8)
                for s, (x, y, w, h) in enumerate(boxes):
                    pixels[int(y) : int(y + h), int(x) : int(x + w), s] += 150
                Image.fromarray(pixels).save(images / file_name, quality=95)
            content["images"].append(
                {
                    "id": i + 1,
                    "file_name": file_name,
                    "height": height,
                    "width": width,
                    "caption": f"the person on the {('left', 'right')[side]} side",
                }
            )
            content["annotations"].append(person_annotation(boxes[side], i + 1, image * 2 + side))
        if change is not None:
            change(content, split)
        (folder / f"RefHuman_{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def refhuman_folder(tmp_path: Path) -> Callable[..., Path]:
    """Factory: `refhuman_folder(**arguments of write_refhuman)` -> a new folder, the coco_path."""
    made: list[Path] = []

    def make(**arguments: Any) -> Path:
        made.append(tmp_path / f"refhuman_{len(made)}")
        return write_refhuman(made[-1], **arguments)

    return make


def write_coco(
    folder: Path,
    size: tuple[int, int] = (96, 128),
    change: Callable[[dict[str, Any], str], None] | None = None,
    images_folder: str = "images/{split}2017",
) -> Path:
    """Write a small COCO keypoints folder of four noise images per split.

    Image 1 has two people; image 2 one, a crowd region, a person without labelled keypoints and one
    whose box has no width; image 3 nobody; image 4 only a person without labelled keypoints.

    Args:
        folder: where to; made if needed.
        size: (height, width) of the images in pixels.
        change: called with (annotation content, split) before it is written, to break or vary it.
        images_folder: of the images, below `folder`.

    Returns:
        The folder.
    """
    height, width = size
    generator = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        images = folder / images_folder.format(split=split)
        images.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {
            "images": [
                {"id": i, "file_name": f"{split}_{i}.png", "height": height, "width": width}
                for i in (1, 2, 3, 4)
            ],
            "annotations": [],
            "categories": [{"id": 1, "name": "person"}],
        }
        for image in content["images"]:
            pixels = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / image["file_name"])
        left, right = (
            (width * share, height * 0.1, width * 0.36, height * 0.8) for share in (0.06, 0.56)
        )
        crowd = {"size": [height, width], "counts": [height, 2 * height, (width - 3) * height]}
        flat = (right[0], right[1], 0.0, right[3])
        for image_id, box, more in (
            (1, left, {}),
            (1, right, {}),
            (2, left, {}),
            (2, (1.0, 0.0, 2.0, height), {"iscrowd": 1, "segmentation": crowd}),
            (2, right, {"keypoints": [0] * 51}),
            (2, flat, {}),
            (4, left, {"keypoints": [0] * 51}),
        ):
            annotation = person_annotation(box, image_id, 0)
            del annotation["scribble"], annotation["person_id"]
            annotation = {**annotation, "id": len(content["annotations"]) + 1, **more}
            if annotation["iscrowd"]:
                annotation["keypoints"] = [0] * 51
            labelled = sum(visibility > 0 for visibility in annotation["keypoints"][2::3])
            content["annotations"].append({**annotation, "num_keypoints": labelled})
        if change is not None:
            change(content, split)
        file = folder / "annotations" / f"person_keypoints_{split}2017.json"
        file.write_text(json.dumps(content))
    return folder


@pytest.fixture
def coco_folder(tmp_path: Path) -> Callable[..., Path]:
    """Factory: `coco_folder(**arguments of write_coco)` -> a new folder, the coco_path."""
    made: list[Path] = []

    def make(**arguments: Any) -> Path:
        made.append(tmp_path / f"coco_{len(made)}")
        return write_coco(made[-1], **arguments)

    return make


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """Messages of the project's logger, whether `util.logging.setup` was called before or not."""
    from util.logging import LOGGER_NAME

    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger(LOGGER_NAME)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in the same order in every run."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
