"""Write a small COCO or CrowdPose folder for over-fitting, from files of COCO's person keypoints.

    python tools/make_people_subset.py --format coco --input_annotations A.json B.json \
        --images FOLDER --output data/coco_subset --max_side 256

Images with people are made smaller. Train and validation file are the same, so that a model which
cannot learn its own images is found out in minutes. For CrowdPose the 14 keypoints are derived from
COCO's 17: the limbs' points are the same, the neck is the middle of the shoulders, the head the
mean of what is labelled of nose, eyes and ears.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import _repository  # noqa: F401  # makes the project's modules importable
import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from datasets.annotations import encode_segmentation
from datasets.coco import CocoKeypoints, is_target
from datasets.skeleton import COCO, CROWDPOSE, Skeleton
from datasets.transforms import keep_size
from util.command_line import output_folder, require_range, run_program
from util.errors import UserError
from util.files import written_together
from util.images import load_image, png_name, size_for_longer_side
from util.logging import write_json

FORMATS = ("coco", "crowdpose")
_HEAD = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_SHOULDERS = ("left_shoulder", "right_shoulder")

Scene = tuple[dict[str, Any], list[dict[str, Any]]]


def read_scenes(files: list[Path], images_folder: Path, count: int | None) -> list[Scene]:
    """Images with somebody to learn, each with all its annotations.

    Args:
        files: of COCO's person keypoints.
        images_folder: of all their images.
        count: that many images, those whose smallest person is largest; None: all, in the files'
            order.

    Raises:
        UserError: a file is broken, or has too few such images.
    """
    scenes: dict[int, Scene] = {}
    for file in files:
        dataset = CocoKeypoints(images_folder, file, keep_size, training=False, with_masks=True)
        truth = dataset.ground_truth()
        entries = {image["id"]: (image, []) for image in truth["images"]}
        for annotation in truth["annotations"]:
            entries[annotation["image_id"]][1].append(annotation)
        scenes |= {
            image_id: (image, annotations)
            for image_id, (image, annotations) in entries.items()
            if any(is_target(annotation, image) for annotation in annotations)
        }
    if count is None:
        return list(scenes.values())
    if len(scenes) < count:
        raise UserError(f"Only {len(scenes)} images have people; ask for a smaller --count.")

    def smallest(scene: Scene) -> float:
        image, annotations = scene
        areas = [a["area"] for a in annotations if is_target(a, image)]
        return min(areas) / (image["width"] * image["height"])

    return sorted(scenes.values(), key=smallest, reverse=True)[:count]


def scale_annotation(
    annotation: dict[str, Any], size: tuple[int, int], new_size: tuple[int, int]
) -> dict[str, Any]:
    """An annotation for the resized image; sizes are (height, width) in pixels."""
    scale = np.array([new_size[1] / size[1], new_size[0] / size[0]])
    keypoints = np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
    keypoints[:, :2] *= scale

    def scaled(coordinates: list[float]) -> list[float]:
        points = np.array(coordinates, dtype=np.float64).reshape(-1, 2) * scale
        return points.round(2).ravel().tolist()

    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        segmentation = [scaled(polygon) for polygon in segmentation]
    else:
        rle = encode_segmentation(segmentation, *size, f"image id {annotation['image_id']}")
        mask = cv2.resize(coco_mask.decode(rle), new_size[::-1], interpolation=cv2.INTER_NEAREST)
        rle = coco_mask.encode(np.asfortranarray(mask))
        segmentation = {"size": list(new_size), "counts": rle["counts"].decode("ascii")}
    return {
        **annotation,
        "bbox": scaled(annotation["bbox"]),
        "area": float(annotation["area"] * scale.prod()),
        "keypoints": keypoints.round(2).ravel().tolist(),
        "segmentation": segmentation,
    }


def crowdpose_keypoints(keypoints: list[float]) -> list[float]:
    """COCO's 17 keypoints -> CrowdPose's 14, (x, y, visibility) each; (0, 0, 0) where unlabelled.

    Head and neck are guesses: CrowdPose has points of its own for them.
    """
    points = dict(zip(COCO.names, np.array(keypoints).reshape(-1, 3), strict=True))

    def mean(names: tuple[str, ...], needed: int) -> np.ndarray:
        labelled = [points[name] for name in names if points[name][2] > 0]
        if len(labelled) < needed:
            return np.zeros(3)
        x, y, _ = np.mean(labelled, axis=0).round(2)
        return np.array([x, y, min(visibility for _, _, visibility in labelled)])

    points["head"] = mean(_HEAD, needed=1)
    points["neck"] = mean(_SHOULDERS, needed=2)
    return np.concatenate([points[name] for name in CROWDPOSE.names]).tolist()


def crowd_index(people: list[dict[str, Any]]) -> float:
    """CrowdPose's measure of an image: how many of the keypoints in people's boxes are others'.

    The mean over people i of N_b(i) / N_a(i): keypoints of others inside of i's box, and keypoints
    of i itself.
    """
    poses = [np.array(person["keypoints"]).reshape(-1, 3) for person in people]
    poses = [pose[pose[:, 2] > 0, :2] for pose in poses]
    shares = []
    for i, person in enumerate(people):
        low = np.array(person["bbox"][:2])
        high = low + person["bbox"][2:]
        others = np.concatenate([np.zeros((0, 2)), *poses[:i], *poses[i + 1 :]])
        inside = ((others >= low) & (others <= high)).all(axis=1)
        shares.append(inside.sum() / len(poses[i]))
    return float(np.mean(shares))


def to_crowdpose(scene: Scene) -> Scene | None:
    """A scene as CrowdPose's file has it; None where nobody has one of its keypoints."""
    image, annotations = scene
    people = []
    for annotation in annotations:
        keypoints = crowdpose_keypoints(annotation["keypoints"])
        if is_target(annotation, image) and any(keypoints[2::3]):
            kept = {key: annotation[key] for key in ("image_id", "bbox")}
            people.append({**kept, "keypoints": keypoints, "iscrowd": 0})
    if not people:
        return None
    return {**image, "crowdIndex": crowd_index(people)}, people


def write_subset(
    scenes: list[Scene], images_folder: Path, output: Path, form: str, max_side: int
) -> tuple[int, int]:
    """Write images and annotation files; returns the numbers of images and annotations.

    Raises:
        UserError: an image cannot be read or has another size than its entry.
    """
    is_coco = form == "coco"
    skeleton: Skeleton = COCO if is_coco else CROWDPOSE
    splits = ("train2017", "val2017") if is_coco else ("trainval", "test")
    folders = [output / "images" / split if is_coco else output / "images" for split in splits]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"images": [], "annotations": []}
    taken: set[str] = set()
    for image, of_image in tqdm(scenes, unit="image", disable=None):
        size = (image["height"], image["width"])
        new_size = size_for_longer_side(*size, min(max_side, max(size)))
        name = png_name(image["file_name"], taken)
        scaled = [scale_annotation(annotation, size, new_size) for annotation in of_image]
        entry = {"id": image["id"], "file_name": name, "height": new_size[0], "width": new_size[1]}
        scene = (entry, scaled) if is_coco else to_crowdpose((entry, scaled))
        if scene is None:
            continue
        pixels = Image.fromarray(load_image(images_folder / image["file_name"], size=size))
        pixels = pixels.resize(new_size[::-1], Image.Resampling.LANCZOS)
        for folder in dict.fromkeys(folders):
            pixels.save(folder / name)
        content["images"].append(scene[0])
        for annotation in scene[1]:
            labelled = sum(visibility > 0 for visibility in annotation["keypoints"][2::3])
            number = len(content["annotations"]) + 1
            more = {"id": number, "category_id": 1, "num_keypoints": labelled}
            content["annotations"].append({**annotation, **more})
    content["categories"] = [{"id": 1, "name": "person", "keypoints": list(skeleton.names)}]
    for split in splits:
        stem = f"annotations/person_keypoints_{split}" if is_coco else f"json/crowdpose_{split}"
        (output / stem).parent.mkdir(parents=True, exist_ok=True)
        write_json(output / f"{stem}.json", content, indent=None)
    return len(content["images"]), len(content["annotations"])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--format", choices=FORMATS, required=True, help="of the new folder")
    parser.add_argument(
        "--input_annotations",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="files of COCO's person keypoints",
    )
    parser.add_argument("--images", type=Path, required=True, help="folder of their images")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write")
    parser.add_argument("--max_side", type=int, default=256, help="longer side in pixels")
    parser.add_argument(
        "--count", type=int, help="how many images, those with the largest people; default: all"
    )
    arguments = parser.parse_args()

    def run() -> None:
        require_range(1, 10**9, max_side=arguments.max_side, count=arguments.count)
        inputs = {file.resolve() for file in arguments.input_annotations}
        if any(file.is_relative_to(arguments.output.resolve()) for file in inputs):
            raise UserError(
                f"--output {arguments.output}: holds the input {arguments.input_annotations[0]}; "
                "name another folder."
            )
        output_folder(arguments.output, "--output")
        scenes = read_scenes(arguments.input_annotations, arguments.images, arguments.count)
        with written_together(arguments.output) as unfinished:
            images, annotations = write_subset(
                scenes, arguments.images, unfinished, arguments.format, arguments.max_side
            )
        print(f"{images} images, {annotations} annotations in {arguments.output}")

    return run_program(run)


if __name__ == "__main__":
    sys.exit(main())
