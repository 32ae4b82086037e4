"""Write a small RefHuman folder for over-fitting: images with several people, made smaller.

    python tools/make_subset.py --input data/RefHuman --output data/RefHuman_subset

Train and validation file of the subset are the same, so that a model which cannot learn its own
training pairs is found out in minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.annotations import read_annotation_file
from datasets.refhuman import pair_entries
from util.command_line import output_folder, require_range, run_program
from util.errors import MissingFileError, UserError
from util.files import written_together
from util.images import load_image, png_name, size_for_longer_side
from util.logging import write_json

Pair = tuple[dict[str, Any], dict[str, Any]]


def choose_images(pairs: list[Pair], count: int, min_people: int) -> dict[str, list[Pair]]:
    """Images with at least `min_people` people, those whose smallest person is largest first.

    Returns:
        file_name -> all pairs of that image, for `count` images.

    Raises:
        UserError: there are fewer such images.
    """
    by_image: dict[str, list[Pair]] = defaultdict(list)
    for image, annotation in pairs:
        by_image[image["file_name"]].append((image, annotation))

    def people(pairs: list[Pair]) -> int:
        return len({(*a["bbox"], *a["keypoints"]) for _, a in pairs})

    def smallest(pairs: list[Pair]) -> float:
        return min(a["area"] / (image["width"] * image["height"]) for image, a in pairs)

    crowded = {name: p for name, p in by_image.items() if people(p) >= min_people}
    if len(crowded) < count:
        raise UserError(
            f"Only {len(crowded)} images have at least {min_people} people; ask for fewer "
            f"--images or --min_people."
        )
    order = sorted(crowded, key=lambda name: (-smallest(crowded[name]), name))
    return {name: crowded[name] for name in order[:count]}


def scale_pair(image: dict, annotation: dict, height: int, width: int) -> Pair:
    """A pair for the image resized to `height` × `width` pixels."""
    scale = np.array([width / image["width"], height / image["height"]])
    keypoints = np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
    keypoints[:, :2] *= scale

    def scaled(coordinates: list) -> list[float]:
        points = np.array(coordinates, dtype=np.float64).reshape(-1, 2) * scale
        return points.round(2).flatten().tolist()

    if not isinstance(annotation["segmentation"], list):
        raise UserError(
            f"Image id {image['id']}: the segmentation is not a list of polygons; only polygons "
            "can be resized."
        )
    changed = {
        "bbox": scaled(annotation["bbox"]),
        "area": float(annotation["area"] * scale.prod()),
        "keypoints": keypoints.round(2).flatten().tolist(),
        "segmentation": [scaled(polygon) for polygon in annotation["segmentation"]],
    }
    if annotation.get("scribble"):
        changed["scribble"] = scaled(annotation["scribble"])
    return {**image, "height": height, "width": width}, {**annotation, **changed}


def make_subset(
    source: Path, output: Path, split: str, images: int, min_people: int, max_side: int
) -> int:
    """Write the subset; returns its number of pairs.

    Raises:
        UserError: the source is not a RefHuman folder, or has too few images.
    """
    annotation_file = source / f"RefHuman_{split}.json"
    if not annotation_file.is_file():
        raise MissingFileError(f"{annotation_file} does not exist; check --input and --split.")
    content = read_annotation_file(annotation_file, "a RefHuman folder")
    chosen = choose_images(pair_entries(content, str(annotation_file)), images, min_people)
    output_folder(output, "--output")
    with written_together(output) as unfinished:
        pairs = _write(content, chosen, source, unfinished, max_side)
    return len(pairs)


def _write(
    content: dict[str, Any],
    chosen: dict[str, list[Pair]],
    source: Path,
    output: Path,
    max_side: int,
) -> list[Pair]:
    """Write the images and files of a subset; returns its pairs."""
    (output / "images").mkdir()
    pairs: list[Pair] = []
    taken: set[str] = set()
    for name, pairs_of_file in tqdm(chosen.items(), unit="image", disable=None):
        entry = pairs_of_file[0][0]
        size = (entry["height"], entry["width"])
        height, width = size_for_longer_side(*size, min(max_side, max(size)))
        pixels = Image.fromarray(load_image(source / "images" / name, size=size))
        short = png_name(name, taken)
        pixels.resize((width, height), Image.Resampling.LANCZOS).save(output / "images" / short)
        for image, annotation in pairs_of_file:
            pairs.append(scale_pair({**image, "file_name": short}, annotation, height, width))
    subset = {
        "images": [image for image, _ in pairs],
        "annotations": [annotation for _, annotation in pairs],
        "categories": content.get("categories", []),
    }
    for name in ("train", "val"):
        write_json(output / f"RefHuman_{name}.json", subset, indent=None)
    return pairs


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", type=Path, required=True, help="a RefHuman folder")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--split", choices=("train", "val"), default="train")
    parser.add_argument("--images", "--pictures", type=int, default=8, help="how many")
    parser.add_argument("--min_people", type=int, default=2, help="in every image")
    parser.add_argument("--max_side", type=int, default=256, help="longer side in pixels")
    arguments = parser.parse_args()

    def run() -> None:
        require_range(
            *(1, 10**9),
            images=arguments.images,
            min_people=arguments.min_people,
            max_side=arguments.max_side,
        )
        if arguments.output.resolve() == arguments.input.resolve():
            raise UserError(f"--output {arguments.output}: would overwrite --input; name another.")
        pairs = make_subset(
            arguments.input,
            arguments.output,
            arguments.split,
            arguments.images,
            arguments.min_people,
            arguments.max_side,
        )
        print(f"{arguments.images} images, {pairs} pairs in {arguments.output}")

    return run_program(run)


if __name__ == "__main__":
    sys.exit(main())
