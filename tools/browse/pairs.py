"""A data set's pairs, and what a model found, as plain values for the page.

Two kinds of values: the index, columns with one value per pair that the page filters and sorts
by; and what is drawn, which the page loads in pieces when it is scrolled to. Coordinates are
written as whole tenths of a pixel, masks as polygons or COCO's compressed run-length codes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from datasets.annotations import encode_segmentation, read_annotation_file
from datasets.checks import check_people
from datasets.evaluation import ReferringEvaluator
from datasets.refhuman import pair_entries
from datasets.scribble import NUM_POINTS
from datasets.skeleton import Skeleton

Pair = tuple[dict[str, Any], dict[str, Any]]

# Verdicts on a pair's highest-scoring pose; their places in this list are what the page gets.
VERDICTS = ("right", "wrong", "nothing", "alone", "unlabelled")


def read_pairs(path: Path, skeleton: Skeleton) -> tuple[list[Pair], ReferringEvaluator]:
    """The pairs of a RefHuman file, checked, and what judges poses by them.

    Raises:
        MissingFileError: there is no such file.
        UserError: it is not in RefHuman's form; with the image id and the reason.
    """
    content = read_annotation_file(path, "a RefHuman file")
    pairs = pair_entries(content, str(path), (), skeleton)
    truth = {"images": [image for image, _ in pairs], "annotations": [a for _, a in pairs]}
    if content.get("people") is not None:
        sizes = {image["file_name"]: (image["height"], image["width"]) for image, _ in pairs}
        truth["people"] = check_people(content["people"], sizes, str(path), skeleton)
    return pairs, ReferringEvaluator(truth, skeleton)


def file_columns(pairs: Sequence[Pair]) -> tuple[list[dict[str, Any]], list[int]]:
    """An image entry of every image file, and for every pair the number of its image."""
    numbers: dict[str, int] = {}
    for image, _ in pairs:
        numbers.setdefault(image["file_name"], len(numbers))
    entries: list[dict[str, Any]] = [{}] * len(numbers)
    for image, _ in pairs:
        entries[numbers[image["file_name"]]] = image
    return entries, [numbers[image["file_name"]] for image, _ in pairs]


def people_to_draw(pairs: Sequence[Pair]) -> tuple[list[dict[str, Any]], list[int]]:
    """What is drawn of everybody, once however many captions mean them.

    Returns:
        P people: `keypoints` [2K] tenths of pixels, `visibility` one digit each, `box` [4], `mask`
        (polygons in tenths of pixels, or the counts of a compressed RLE) and `scribbles` [S][24];
        and for every pair the number of its person.
    """
    people: dict[str, int] = {}
    drawn: list[dict[str, Any]] = []
    numbers = []
    for image, annotation in pairs:
        shape = [image["file_name"], annotation.get("person_id")]
        shape += [annotation.get(key) for key in ("keypoints", "bbox", "segmentation", "scribble")]
        key = json.dumps(shape)
        if key not in people:
            people[key] = len(drawn)
            drawn.append(_person(image, annotation))
        numbers.append(people[key])
    return drawn, numbers


def pair_columns(pairs: Sequence[Pair], evaluator: ReferringEvaluator) -> dict[str, list[Any]]:
    """One value per pair of what the page filters and sorts by.

    Returns:
        `id` of the image entry, `annotation` id, `caption`, `people` with labelled keypoints in
        the image, `labelled` keypoints of who is meant, and `area` in percent of the image.
    """
    return {
        "id": [image["id"] for image, _ in pairs],
        "annotation": [annotation.get("id") for _, annotation in pairs],
        "caption": [image.get("caption") or None for image, _ in pairs],
        "people": evaluator.num_people.tolist(),
        "labelled": [sum(v > 0 for v in a["keypoints"][2::3]) for _, a in pairs],
        "area": [
            round(100 * annotation["area"] / (image["width"] * image["height"]), 2)
            for image, annotation in pairs
        ],
    }


def judge(
    pairs: Sequence[Pair], best: Mapping[int, Mapping[str, Any]], evaluator: ReferringEvaluator
) -> dict[str, list[Any]]:
    """What became of every pair; the rule of right and wrong is that of identity accuracy.

    Args:
        pairs: N pairs.
        best: image id -> its highest-scoring result in COCO's format.
        evaluator: of the pairs.

    Returns:
        N values each: `score` and `oks`, the similarity with who is meant (None without a result;
        `oks` also where nobody's keypoints are labelled), `iou` of the masks (None without), and
        `verdict`, an index into `VERDICTS`; `judged`, 1 where identity accuracy counts the pair: if
        it is right or wrong, or nothing was found although there is somebody to be mixed up with.
    """
    found = [best.get(image["id"]) for image, _ in pairs]
    poses = np.full((len(pairs), evaluator.skeleton.num_keypoints, 2), np.inf)
    for pose, result in zip(poses, found, strict=True):
        if result is not None:
            pose[:] = np.reshape(result["keypoints"], (-1, 3))[:, :2]
    referred, others = evaluator.similarities(np.arange(len(pairs)), poses)
    labelled = [any(v > 0 for v in annotation["keypoints"][2::3]) for _, annotation in pairs]
    verdicts = []
    for number, result in enumerate(found):
        if result is None:
            verdict = "nothing"
        elif evaluator.has_identity[number]:
            verdict = "right" if referred[number] > others[number] else "wrong"
        else:
            verdict = "alone" if labelled[number] else "unlabelled"
        verdicts.append(VERDICTS.index(verdict))
    return {
        "score": [None if result is None else round(result["score"], 4) for result in found],
        "oks": [
            round(float(similarity), 4) if result is not None and known else None
            for similarity, result, known in zip(referred, found, labelled, strict=True)
        ],
        "iou": [_overlap(*pair, result) for pair, result in zip(pairs, found, strict=True)],
        "verdict": verdicts,
        "judged": evaluator.has_identity.astype(int).tolist(),
    }


def results_to_draw(
    pairs: Sequence[Pair], best: Mapping[int, Mapping[str, Any]]
) -> list[dict[str, Any] | None]:
    """What is drawn of every pair's result, as of a person, `confidence` in percent in place of
    `visibility`; None without a result.
    """
    return [
        None if image["id"] not in best else _result(image, best[image["id"]]) for image, _ in pairs
    ]


def _person(image: Mapping[str, Any], annotation: Mapping[str, Any]) -> dict[str, Any]:
    keypoints = np.reshape(annotation["keypoints"], (-1, 3))
    person = {
        "keypoints": _tenths(keypoints[:, :2]),
        "visibility": "".join(str(int(v)) for v in keypoints[:, 2]),
        "box": _tenths(annotation["bbox"]),
        "mask": _mask(image, annotation["segmentation"]),
    }
    if annotation.get("scribble"):
        scribbles = np.asarray(annotation["scribble"], dtype=float).reshape(-1, NUM_POINTS * 2)
        person["scribbles"] = [_tenths(scribble) for scribble in scribbles]
    return person


def _result(image: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    keypoints = np.reshape(result["keypoints"], (-1, 3))
    drawn = {
        "keypoints": _tenths(keypoints[:, :2]),
        "confidence": np.rint(100 * keypoints[:, 2]).astype(int).tolist(),
    }
    if "bbox" in result:
        drawn["box"] = _tenths(result["bbox"])
    if "segmentation" in result:
        drawn["mask"] = _mask(image, result["segmentation"])
    return drawn


def _mask(image: Mapping[str, Any], segmentation: list[Any] | dict[str, Any]) -> Any:
    if isinstance(segmentation, list):
        return [_tenths(polygon) for polygon in segmentation]
    return _code(image, segmentation)["counts"].decode("ascii")


def _code(image: Mapping[str, Any], segmentation: list[Any] | dict[str, Any]) -> dict[str, Any]:
    name = f"image id {image['id']}"
    return encode_segmentation(segmentation, image["height"], image["width"], name)


def _overlap(
    image: Mapping[str, Any], annotation: Mapping[str, Any], result: Mapping[str, Any] | None
) -> float | None:
    """Intersection over union of the masks; 0 for two empty ones."""
    if result is None or "segmentation" not in result:
        return None
    codes = [_code(image, owner["segmentation"]) for owner in (annotation, result)]
    intersection = int(coco_mask.area(coco_mask.merge(codes, intersect=True)))
    union = int(coco_mask.area(coco_mask.merge(codes)))
    return round(intersection / max(union, 1), 4)


def _tenths(values: Any) -> list[int]:
    """Pixels as whole tenths, in one row."""
    return np.rint(10 * np.asarray(values, dtype=float)).astype(int).ravel().tolist()
