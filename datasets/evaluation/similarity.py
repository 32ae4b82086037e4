"""How similar results are to people, to the last bit as pycocotools has it.

Figures are counted from these numbers by `>=`, so a difference in the last bit could change them.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from datasets.evaluation.truth import TrueMask


def keypoint_similarity(
    found: np.ndarray,
    keypoints: np.ndarray,
    boxes: np.ndarray,
    areas: np.ndarray,
    sigmas: np.ndarray,
) -> np.ndarray:
    """Object keypoint similarity of n poses to G people.

    For people without a labelled keypoint (crowds too), it is how near the pose is to their box,
    doubled in both directions.

    Args:
        found: [n, K, 2] float64 (x, y).
        keypoints: [G, K, 3] float64 (x, y, COCO visibility).
        boxes: [G, 4] float64 (x, y, width, height).
        areas: [G] float64.
        sigmas: [K] float64.

    Returns:
        [n, G] float64 in [0, 1].
    """
    similarity = np.zeros((len(found), len(keypoints)))
    variances = (sigmas * 2) ** 2
    for person, (truth, box, area) in enumerate(zip(keypoints, boxes, areas, strict=True)):
        counted = np.flatnonzero(truth[:, 2] > 0)
        if len(counted):
            # `take` leaves a pose's numbers side by side, so that `sum` adds them in the order in
            # which it adds those of a single pose.
            distance = found.take(counted, axis=1) - truth[counted, :2]
        else:
            counted = np.arange(len(truth))
            least, most = box[:2] - box[2:], box[:2] + box[2:] * 2
            distance = np.maximum(0, least - found) + np.maximum(0, found - most)
        squared = distance[..., 0] ** 2 + distance[..., 1] ** 2
        error = squared / variances[counted] / (area + np.spacing(1)) / 2
        similarity[:, person] = np.exp(-error).sum(axis=1) / len(counted)
    return similarity


def box_similarity(found: np.ndarray, boxes: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union of n boxes and G people; over the box alone in a crowd.

    Args:
        found: [n, 4] float64 (x, y, width, height).
        boxes: [G, 4] float64 (x, y, width, height).
        crowd: [G] bool.

    Returns:
        [n, G] float64 in [0, 1].
    """
    if not len(found) or not len(boxes):
        return np.zeros((len(found), len(boxes)))
    return coco_mask.iou(found, boxes, crowd.tolist())


def mask_similarity(pixels: np.ndarray, true_areas: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Intersection over union of n masks and G people; over the mask alone in a crowd.

    Args:
        pixels: [n, 1 + G] int64 of `mask_pixels`.
        true_areas: [G] int64, numbers of pixels.
        crowd: [G] bool.

    Returns:
        [n, G] float64 in [0, 1].
    """
    areas, intersections = pixels[:, :1], pixels[:, 1:]
    unions = np.where(crowd, areas, areas + true_areas - intersections)
    return intersections / np.maximum(unions, 1)  # without a union there is no intersection either


def mask_pixels(masks: Tensor, people: list[TrueMask]) -> Tensor:
    """Numbers of pixels of n masks [n, h, w], bool, and of them in each of G people's masks.

    Counted where the masks are: neither they nor a code of them have to leave the device.

    Returns:
        [n, 1 + G] int64 on the device of `masks`.
    """
    counts = [_count(masks)]
    for person in people:
        rows, columns = person.window
        counts.append(_count(masks[:, rows, columns] & person.inside))
    return torch.stack(counts, dim=1)


def _count(masks: Tensor) -> Tensor:
    """Numbers of pixels [n] int64 of bool masks [n, h, w]."""
    if masks.device.type == "cpu":  # where PyTorch's sum of bools takes fifty times as long
        counts = [np.count_nonzero(mask) for mask in masks.numpy()]
        return torch.tensor(counts, dtype=torch.int64)
    return masks.sum(dim=(1, 2))


def encode_masks(masks: Tensor) -> list[bytes]:
    """COCO's compressed run-length codes of n masks [n, h, w], bool."""
    count, height, width = masks.shape
    columns = np.empty((count, width, height), dtype=np.uint8)  # codes run down the columns
    for mask, transposed in zip(masks.cpu().numpy().view(np.uint8), columns, strict=True):
        cv2.transpose(mask, dst=transposed)
    return [code["counts"] for code in coco_mask.encode(columns.transpose(2, 1, 0))]
