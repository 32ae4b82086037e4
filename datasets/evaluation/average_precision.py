"""COCO's average precision by pycocotools, from plain dicts."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as CocoIndex
from pycocotools.cocoeval import COCOeval

from datasets.annotations import encode_segmentation
from datasets.evaluation.evaluator import PERSON, true_keypoints
from datasets.skeleton import Skeleton

# Kind of result -> pycocotools' name of it, and the key of its values in annotations
_KINDS = {
    "keypoint": ("keypoints", "keypoints"),
    "box": ("bbox", "bbox"),
    "mask": ("segm", "segmentation"),
}


def average_precision(
    kind: str,
    images: Mapping[int, Mapping[str, Any]],
    annotations: Iterable[Mapping[str, Any]],
    detections: Iterable[Mapping[str, Any]],
    skeleton: Skeleton,
) -> dict[str, float]:
    """COCO's average precision and recall of one kind of result.

    At most 20 poses, or 100 boxes or masks, of an image count. Crowd regions and, for keypoints,
    people without a labelled keypoint are neither to be found nor wrong to find.

    Args:
        kind: "keypoint" (by object keypoint similarity), "box" or "mask" (by IoU).
        images: image entries by id; what belongs to other images is left out.
        annotations: of people, COCO-style: image_id, bbox, area, keypoints, and for masks
            segmentation.
        detections: in the COCO results format, masks as RLE.
        skeleton: keypoint definition.

    Returns:
        `ap`, `ap50`, `ap75`, `apm`, `apl` and `ar` in [0, 1]; -1 without anybody to find.
    """
    truths: list[dict[str, Any]] = []
    for annotation in annotations:
        image_id = annotation["image_id"]
        if image_id not in images:
            continue
        height, width = images[image_id]["height"], images[image_id]["width"]
        truth = {
            **annotation,
            "id": len(truths) + 1,  # pycocotools takes 0 for "unmatched"
            "category_id": PERSON,
            "iscrowd": annotation.get("iscrowd", 0),
            "num_keypoints": int((true_keypoints(annotation)[:, 2] > 0).sum()),
            "segmentation": [],
        }
        if kind == "mask":
            truth["segmentation"] = encode_segmentation(
                annotation["segmentation"], height, width, f"image id {image_id}"
            )
        truths.append(truth)
    found: list[dict[str, Any]] = []
    for detection in detections:
        if detection["image_id"] in images:
            fields = _detection_fields(kind, detection)
            found.append({**fields, "id": len(found) + 1, "iscrowd": 0})
    coco_type, _ = _KINDS[kind]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(images, truths), _index(images, found), coco_type)
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    return _figures(evaluation)


def _detection_fields(kind: str, detection: Mapping[str, Any]) -> dict[str, Any]:
    """What of a detection is judged, with the area that pycocotools' `loadRes` gives it."""
    _, key = _KINDS[kind]
    value = detection[key]
    if kind == "mask":
        area = float(coco_mask.area(value))
    elif kind == "box":
        area = value[2] * value[3]
    else:
        x, y = value[0::3], value[1::3]
        area = (max(x) - min(x)) * (max(y) - min(y))
    kept = {name: detection[name] for name in ("image_id", "score")}
    return {**kept, "category_id": PERSON, key: value, "area": area}


def _index(
    images: Mapping[int, Mapping[str, Any]], annotations: Sequence[dict[str, Any]]
) -> CocoIndex:
    index = CocoIndex()
    index.dataset = {
        "images": list(images.values()),
        "annotations": list(annotations),
        "categories": [{"id": PERSON}],
    }
    index.createIndex()
    return index


def _figures(evaluation: COCOeval) -> dict[str, float]:
    """See `average_precision`."""
    # [IoU thresholds, recall levels, categories, area ranges, numbers of detections]
    precision = evaluation.eval["precision"][..., -1]
    recall = evaluation.eval["recall"][..., -1]  # the same without recall levels
    thresholds = evaluation.params.iouThrs
    areas = evaluation.params.areaRngLbl

    def mean(values: np.ndarray, area: str, threshold: float | None = None) -> float:
        values = values[..., areas.index(area)]
        if threshold is not None:
            values = values[np.isclose(thresholds, threshold)]
        values = values[values > -1]
        return float(values.mean()) if values.size else -1.0

    return {
        "ap": mean(precision, "all"),
        "ap50": mean(precision, "all", 0.5),
        "ap75": mean(precision, "all", 0.75),
        "apm": mean(precision, "medium"),
        "apl": mean(precision, "large"),
        "ar": mean(recall, "all"),
    }
