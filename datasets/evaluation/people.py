"""Metrics of pose estimation with many people: all people of an image by COCO's protocol."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from datasets.evaluation.evaluator import Evaluator
from datasets.evaluation.truth import Truth
from datasets.skeleton import COCO, Skeleton


class PeopleEvaluator(Evaluator):
    """Finds and judges everybody in an image; see `Evaluator` for the way of use.

    The figures are those that pycocotools' `COCOeval` prints for the same files: crowd regions and
    people without labelled keypoints are ignored, at most 20 poses of an image count.

    Args:
        ground_truth: COCO-style dict with `images` and `annotations` (any number per image): bbox,
            area, keypoints, iscrowd, and, where masks are to be judged, segmentation; not changed.
        skeleton: keypoint definition.
        subsets: name -> image ids. Instead of the figures by people's size, the keypoint AP of
            each of these sets of images: `keypoint_ap_{name}`.
        keep_predictions: see `Evaluator`.
    """

    def __init__(
        self,
        ground_truth: Mapping[str, Any],
        skeleton: Skeleton = COCO,
        subsets: Mapping[str, Collection[int]] | None = None,
        *,
        keep_predictions: bool = False,
    ) -> None:
        truth = Truth(ground_truth["images"], ground_truth["annotations"], skeleton)
        super().__init__(truth, skeleton, keep_predictions)
        self._subsets = None
        if subsets is not None:
            self._subsets = {name: self._positions(ids) for name, ids in subsets.items()}

    def summarize(self) -> dict[str, float]:
        """Compute all metrics; see `Evaluator.summarize`.

        Returns:
            - `keypoint_{ap,ap50,ap75}`, and `keypoint_{apm,apl,ar}` or `keypoint_ap_{subset}`,
              where the results have keypoints;
            - the same of `box_` and `mask_`, without subsets, where the results have boxes or masks
              (for masks, the ground truth has to have them too);
            - `num_samples`, the number of images.
        """
        self._require_all_results()
        kinds = [
            kind for kind, key in (("keypoint", "keypoints"), ("box", "boxes")) if self._have(key)
        ]
        if self._have("masks") and self._truth.has_masks:
            kinds.append("mask")
        summary: dict[str, float] = {}
        for kind in kinds:
            figures = self._average_precision(kind)
            if self._subsets is not None:
                figures = {name: figures[name] for name in ("ap", "ap50", "ap75")}
            summary.update({f"{kind}_{name}": value for name, value in figures.items()})
        subsets = self._subsets if self._subsets is not None and self._have("keypoints") else {}
        for name, numbers in subsets.items():
            summary[f"keypoint_ap_{name}"] = self._average_precision("keypoint", numbers)["ap"]
        summary["num_samples"] = len(self._truth)
        return summary

    def _positions(self, image_ids: Collection[int]) -> np.ndarray:
        """Positions of images, by rising id."""
        numbers = [self._truth.number(image_id) for image_id in sorted(set(image_ids))]
        return np.array(numbers, dtype=np.int64)
