"""Draws a contact sheet of a RefHuman folder or of the synthetic data set.

    python tools/contact_sheet.py --output sheet.png --data data/synthetic --split val
    python tools/contact_sheet.py --output sheet.png --difficulty 0.5 --seed 3
    python tools/contact_sheet.py --output sheet.png --images outputs/eval/images

The last form joins images that are there already, as `main.py --save_images` writes them.  Else
a tile shows the image and, beside it, one person with mask, box, keypoints and scribble; below
are the captions that mean this person.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import cv2
import numpy as np
from pycocotools import mask as coco_mask

from datasets.annotations import encode_segmentation
from datasets.refhuman import pair_entries
from datasets.scribble import NUM_POINTS
from datasets.skeleton import COCO
from datasets.synthetic import SPLITS, SceneGenerator, scene_pairs
from util import visualize
from util.command_line import output_file, require_range, run_program
from util.errors import MissingFileError, UserError
from util.images import load_image

Pair = tuple[dict[str, Any], dict[str, Any]]


def draw_tile(image: np.ndarray, pairs: list[Pair], side: int) -> np.ndarray:
    """The image, its annotated copy, and the captions.

    Args:
        image: [h, w, 3] uint8 RGB.
        pairs: (image entry, annotation) of one person.
        side: about how wide one of the two images is to be, in pixels.
    """
    height, width = image.shape[:2]
    annotation = pairs[0][1]
    name = f"image id {pairs[0][0]['id']}"
    mask = coco_mask.decode(encode_segmentation(annotation["segmentation"], height, width, name))
    x, y, box_width, box_height = annotation["bbox"]
    scale = max(1, round(side / width))

    def enlarged(points: np.ndarray) -> np.ndarray:
        """Points of the image -> of the large one; pixel i has the coordinate i in both."""
        return (points + 0.5) * scale - 0.5

    keypoints = np.array(annotation["keypoints"], dtype=float).reshape(-1, 3)
    keypoints[:, :2] = enlarged(keypoints[:, :2])
    large = image.repeat(scale, axis=0).repeat(scale, axis=1)
    drawn = visualize.draw_person(
        large,
        visualize.Person(
            keypoints=keypoints,
            mask=mask.astype(bool).repeat(scale, axis=0).repeat(scale, axis=1),
            # The edges of a box run between pixels.
            box=enlarged(np.array((x, y, x + box_width, y + box_height)) - 0.5),
        ),
        COCO.limbs,
        COCO.flip_pairs,
    )
    if annotation.get("scribble"):
        scribble = np.array(annotation["scribble"], dtype=float).reshape(-1, NUM_POINTS, 2)[0]
        drawn = visualize.draw_points(drawn, enlarged(scribble))
    captions = [
        f"{entry.get('caption', '')}{' (held out)' if entry.get('held_out') else ''}"
        for entry, _ in pairs
    ]
    return visualize.add_text(np.concatenate((large, drawn), axis=1), " | ".join(captions))


def tiles_of_folder(folder: Path, split: str, start: int, side: int) -> Iterator[np.ndarray]:
    """One tile per image of a RefHuman folder, of the first person that a pair means."""
    path = folder / f"RefHuman_{split}.json"
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; --data has to be a RefHuman folder")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); write it again") from error
    by_image: dict[str, list[Pair]] = {}
    for entry, record in pair_entries(content, str(path)):
        by_image.setdefault(entry["file_name"], []).append((entry, record))
    for number, (file_name, pairs) in enumerate(by_image.items()):
        if number >= start:
            image = load_image(folder / "images" / file_name)
            yield draw_tile(image, _of_one_person(pairs, number), side)


def tiles_of_generator(generator: SceneGenerator, start: int, side: int) -> Iterator[np.ndarray]:
    """One tile per synthetic scene."""
    index = start
    while True:
        scene, pairs = scene_pairs(generator, index, f"scene {index}")
        yield draw_tile(scene.image, _of_one_person(pairs, index), side)
        index += 1


def tiles_of_images(folder: Path, start: int, side: int) -> Iterator[np.ndarray]:
    """The PNG files of a folder in the order of their names, about `2 * side` wide."""
    if not folder.is_dir():
        raise MissingFileError(f"{folder} does not exist; --images has to be a folder")
    for path in sorted(folder.glob("*.png"))[start:]:
        image = load_image(path)
        scale = 2 * side / image.shape[1]
        yield cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _of_one_person(pairs: list[Pair], number: int) -> list[Pair]:
    """The pairs of one of the people, by turns a near and a far one."""
    boxes = list(dict.fromkeys(tuple(record["bbox"]) for _, record in pairs))
    chosen = boxes[number % len(boxes)]
    return [(entry, record) for entry, record in pairs if tuple(record["bbox"]) == chosen]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--output", type=Path, required=True, help="image file to write")
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument("--data", type=Path, help="RefHuman folder; without it, scenes are drawn")
    sources.add_argument("--images", "--pictures", type=Path, help="folder of PNG files to join")
    parser.add_argument("--split", choices=SPLITS, default="val")
    parser.add_argument("--start", type=int, default=0, help="first image (default: 0)")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--columns", type=int, default=3)
    parser.add_argument("--side", type=int, default=320, help="about the width of an image")
    parser.add_argument("--seed", type=int, default=0, help="of drawn scenes")
    parser.add_argument("--difficulty", type=float, default=1.0, help="of drawn scenes")
    parser.add_argument(
        "--people",
        type=int,
        nargs=2,
        default=[1, 6],
        metavar=("FEWEST", "MOST"),
        help="people in drawn scenes",
    )
    parser.add_argument("--image-size", type=int, default=192, help="of drawn scenes, in pixels")
    arguments = parser.parse_args()
    require_range(1, 100, rows=arguments.rows, columns=arguments.columns)
    require_range(1, 8192, side=arguments.side)
    require_range(48, 8192, **{"image-size": arguments.image_size})
    require_range(0, 10**9, start=arguments.start)
    output_file(arguments.output, "--output", (".png", ".jpg", ".jpeg"))

    if arguments.images is not None:
        tiles = tiles_of_images(arguments.images, arguments.start, arguments.side)
    elif arguments.data is not None:
        tiles = tiles_of_folder(arguments.data, arguments.split, arguments.start, arguments.side)
    else:
        generator = SceneGenerator(
            arguments.seed,
            arguments.split,
            image_size=(arguments.image_size, arguments.image_size),
            num_people=arguments.people,
            difficulty=arguments.difficulty,
        )
        tiles = tiles_of_generator(generator, arguments.start, arguments.side)
    chosen = list(islice(tiles, arguments.rows * arguments.columns))
    if not chosen:
        source = arguments.images or arguments.data or "the generator"
        raise UserError(f"{source}: nothing to draw from image {arguments.start} on")
    visualize.save(arguments.output, visualize.contact_sheet(chosen, arguments.columns))
    print(f"{len(chosen)} images: {arguments.output}")


if __name__ == "__main__":
    sys.exit(run_program(main))
