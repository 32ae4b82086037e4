"""Metrics of pose estimation with many people: all people of an image by COCO's protocol."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from datasets.evaluation.average_precision import average_precision
from datasets.evaluation.evaluator import Evaluator
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
    """

    def __init__(
        self,
        ground_truth: Mapping[str, Any],
        skeleton: Skeleton = COCO,
        subsets: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        super().__init__(ground_truth["images"], skeleton)
        self._annotations = list(ground_truth["annotations"])
        self._subsets = subsets

    def summarize(self) -> dict[str, float]:
        """Compute all metrics; see `Evaluator.summarize`.

        Returns:
            - `keypoint_{ap,ap50,ap75}`, and `keypoint_{apm,apl,ar}` or `keypoint_ap_{subset}`;
            - the same of `box_` and `mask_`, without subsets, where the results have boxes or masks
              (for masks, the ground truth has to have them too);
            - `num_samples`, the number of images.
        """
        self._require_all_results()
        has_true_masks = all("segmentation" in annotation for annotation in self._annotations)
        kinds = ["keypoint"]
        if self._have("boxes"):
            kinds.append("box")
        if self._have("masks") and has_true_masks:
            kinds.append("mask")
        summary: dict[str, float] = {}
        for kind in kinds:
            figures = self._figures(kind, self._images)
            if self._subsets is not None:
                figures = {name: figures[name] for name in ("ap", "ap50", "ap75")}
            summary.update({f"{kind}_{name}": value for name, value in figures.items()})
        for name, image_ids in (self._subsets or {}).items():
            figures = self._figures("keypoint", image_ids)
            summary[f"keypoint_ap_{name}"] = figures["ap"]
        summary["num_samples"] = len(self._images)
        return summary

    def _figures(self, kind: str, image_ids: Collection[int]) -> dict[str, float]:
        return average_precision(
            kind,
            {image_id: self._images[image_id] for image_id in image_ids},
            self._annotations,
            (record for image_id in image_ids for record in self._records(image_id)),
            self.skeleton,
        )
