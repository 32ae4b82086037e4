"""Results in COCO's format, as `main.py --eval --save_predictions` writes them, read as a stream.

A results file of a whole evaluation holds every group of every image and may be larger than the
memory; of each image only the highest-scoring result is kept, the one that is judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.evaluation.found import PERSON
from datasets.json_stream import read_list
from datasets.run_length import count_pixels
from datasets.skeleton import Skeleton
from datasets.values import are_numbers, is_number
from util.errors import UserError, shown

_NAME, _REMEDY = "results", "write it again with main.py --eval --save_predictions"


def read_best(
    path: Path, sizes: Mapping[int, tuple[int, int]], skeleton: Skeleton
) -> dict[int, dict[str, Any]]:
    """The highest-scoring result of every image; of equal scores the first.

    Args:
        path: a JSON list of objects `image_id`, `category_id`, `score`, `keypoints` and, where the
            model makes them, `bbox` [x, y, width, height] and `segmentation` (RLE).
        sizes: image id -> (height, width) of the ground truth.
        skeleton: keypoint definition, K keypoints.

    Returns:
        image id -> its result. Images without one are absent.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is no such list, or a result is broken or of an image that is not in `sizes`.
    """
    best: dict[int, dict[str, Any]] = {}
    for number, result in enumerate(read_list(path, _NAME, _REMEDY)):
        where = f"{path}: result {number}"
        if not isinstance(result, dict) or not {"image_id", "score", "keypoints"} <= set(result):
            raise UserError(
                f"{where} has to be an object with 'image_id', 'score' and 'keypoints', got "
                f"{shown(result)}. Give a file that main.py --eval --save_predictions wrote."
            )
        if result.get("category_id", PERSON) != PERSON:
            continue
        image_id, score = result["image_id"], result["score"]
        if type(image_id) is not int or image_id not in sizes:
            raise UserError(
                f"{where} is of image id {shown(image_id)}, which the ground truth does not have; "
                f"give the annotation file that was evaluated."
            )
        if not is_number(score):
            raise UserError(f"{where}: 'score' has to be a number, got {shown(score)}.")
        if image_id not in best or score > best[image_id]["score"]:
            _check_result(result, sizes[image_id], skeleton, f"{where} (image id {image_id})")
            best[image_id] = result
    return best


def _check_result(
    result: Mapping[str, Any], size: tuple[int, int], skeleton: Skeleton, where: str
) -> None:
    """Raises UserError where a result's parts cannot be drawn."""
    keypoints = result["keypoints"]
    expected = 3 * skeleton.num_keypoints
    if not are_numbers(keypoints) or len(keypoints) != expected:
        got = f"{len(keypoints)} entries" if isinstance(keypoints, list) else shown(keypoints)
        raise UserError(
            f"{where}: 'keypoints' has to hold {expected} finite numbers (x, y, confidence of "
            f"{skeleton.num_keypoints} keypoints), got {got}."
        )
    box = result.get("bbox", [0, 0, 0, 0])
    if not are_numbers(box) or len(box) != 4:
        raise UserError(f"{where}: 'bbox' has to be [x, y, width, height], got {shown(box)}.")
    if "segmentation" in result:
        code = result["segmentation"]
        if not isinstance(code, dict) or not {"size", "counts"} <= set(code):
            raise UserError(f"{where}: 'segmentation' has to be an RLE, got {shown(code)}.")
        try:
            count_pixels(code, *size)
        except ValueError as error:
            raise UserError(f"{where}: the RLE in 'segmentation' is broken: {error}.") from error
