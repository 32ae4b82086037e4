"""Metrics of referring human pose and mask estimation: one person per image entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from datasets.annotations import encode_segmentation, same_person
from datasets.evaluation.average_precision import average_precision
from datasets.evaluation.evaluator import Evaluator, true_keypoints
from datasets.skeleton import COCO, Skeleton
from util.errors import UserError
from util.keypoint_ops import object_keypoint_similarity

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
PCKH_THRESHOLD = 0.5  # of the head size
FOUND_THRESHOLD = 0.5  # OKS

_AVERAGE_PRECISIONS = ("ap", "ap50", "ap75", "apm", "apl")

_PERSON_KEYS = ("file_name", "bbox", "area", "keypoints")


class ReferringEvaluator(Evaluator):
    """Judges whom a prompt means; see `Evaluator` for the way of use.

    Args:
        ground_truth: COCO-style dict with `images` and `annotations`, one annotation per image
            entry, as from a data set's `ground_truth()`; not changed. An optional list `people`
            holds all people of every image (`file_name`, `bbox`, `area`, `keypoints`,
            `person_id`); without it the people of an image are the distinct annotations of all
            entries with its file_name.
        skeleton: keypoint definition.

    Raises:
        UserError: an image entry does not have exactly one annotation, or its person is not among
            the image's people, or an entry of `people` is incomplete.
    """

    def __init__(self, ground_truth: Mapping[str, Any], skeleton: Skeleton = COCO) -> None:
        super().__init__(ground_truth["images"], skeleton)
        self._annotations: dict[int, dict[str, Any]] = {}
        for annotation in ground_truth["annotations"]:
            image_id = annotation["image_id"]
            if image_id in self._annotations or image_id not in self._images:
                raise UserError(
                    f"Evaluation needs exactly one annotation per image entry: image id {image_id} "
                    f"has {'several' if image_id in self._annotations else 'no image entry'}."
                )
            self._annotations[image_id] = annotation
        for image_id in self._images:
            if image_id not in self._annotations:
                raise UserError(f"Image id {image_id} has no annotation to evaluate against.")
        self._people = self._group_people(ground_truth.get("people"))
        self._referred = {image_id: self._find_referred(image_id) for image_id in self._images}

    def summarize(self) -> dict[str, float]:
        """Compute all metrics; see `Evaluator.summarize`.

        Returns:
            Fractions in [0, 1]; -1 where no image is eligible, as in pycocotools:

            - `{keypoint,box,mask}_{ap,ap50,ap75,apm,apl}`: COCO average precision over all groups;
            - of the highest-scoring group: `pckh` (labelled keypoints within half the ear distance
              of images with both ears labelled), `oiou` and `miou` (overall and mean IoU),
              `precision@0.5` ... `precision@0.9` (share of images with at least that IoU),
              `found` (share of images with OKS of at least 0.5, of those with a labelled
              keypoint);
            - `identity_accuracy`: among samples whose image has at least two people with labelled
              keypoints, how often the pose of the highest-scoring group is more similar (OKS) to
              the referred person than to any other; `identity_chance`, the mean of 1 / people
              there, and `identity_count`, the number of these samples;
            - `num_samples`, the number of samples.

            Without boxes or masks in the results, their metrics are absent; so is `pckh` for a
            skeleton without a head size.

        Raises:
            ValueError: results of some image entries are missing.
        """
        self._require_all_results()
        has_masks = self._have("masks")
        kinds = {"keypoint": True, "box": self._have("boxes"), "mask": has_masks}
        summary: dict[str, float] = {}
        for kind in (kind for kind, is_there in kinds.items() if is_there):
            figures = average_precision(
                kind,
                self._images,
                self._annotations.values(),
                (record for image_id in self._images for record in self._records(image_id)),
                self.skeleton,
            )
            summary.update({f"{kind}_{name}": figures[name] for name in _AVERAGE_PRECISIONS})
        best = {image_id: self._best_group(image_id) for image_id in self._images}
        if self.skeleton.head_pair is not None:
            summary["pckh"] = self._pckh(best, *self.skeleton.head_pair)
        if has_masks:
            summary.update(self._mask_overlap(best))
        summary.update(self._identity(best))
        summary["num_samples"] = len(self._images)
        return summary

    # --- metrics of the highest-scoring group ----------------------------------------------------

    def _best_group(self, image_id: int) -> int | None:
        """Index of the highest-scoring group of an image, None without any."""
        scores = self._results[image_id]["scores"]
        return int(scores.argmax()) if len(scores) else None

    def _pckh(self, best: Mapping[int, int | None], first_ear: int, second_ear: int) -> float:
        """Share of labelled keypoints within half the ear distance; see `summarize`."""
        right, labelled = 0, 0
        for image_id, annotation in self._annotations.items():
            truth = true_keypoints(annotation)
            head_size = np.linalg.norm(truth[first_ear, :2] - truth[second_ear, :2])
            both_ears = truth[first_ear, 2] > 0 and truth[second_ear, 2] > 0
            # Ears on the same pixel (seen from far away) give no head size.
            if not both_ears or head_size == 0:
                continue
            counts = truth[:, 2] > 0
            labelled += int(counts.sum())
            if best[image_id] is not None:
                predicted = self._results[image_id]["keypoints"][best[image_id]]
                distance = np.linalg.norm(predicted[:, :2] - truth[:, :2], axis=1)
                right += int((distance[counts] <= PCKH_THRESHOLD * head_size).sum())
        return right / labelled if labelled else -1.0

    def _mask_overlap(self, best: Mapping[int, int | None]) -> dict[str, float]:
        """Overall IoU, mean IoU and precision at IoU thresholds; see `summarize`."""
        intersections, unions = [], []
        for image_id in self._images:
            truth = self._true_mask(image_id)
            intersection, union = 0.0, float(coco_mask.area(truth))
            if best[image_id] is not None:
                predicted = self._results[image_id]["masks"][best[image_id]]
                both = coco_mask.merge([truth, predicted], intersect=True)
                intersection = float(coco_mask.area(both))
                union += float(coco_mask.area(predicted)) - intersection
            intersections.append(intersection)
            unions.append(union)
        overlaps = np.array(intersections) / np.maximum(unions, 1.0)  # two empty masks: 0
        return {
            "oiou": float(np.sum(intersections) / max(np.sum(unions), 1.0)),
            "miou": float(overlaps.mean()),
            **{f"precision@{t}": float((overlaps >= t).mean()) for t in PRECISION_THRESHOLDS},
        }

    def _identity(self, best: Mapping[int, int | None]) -> dict[str, float]:
        """`found` and the `identity_` metrics of `summarize`."""
        found, right, chance = [], [], []
        for image_id, image in self._images.items():
            referred = self._referred[image_id]
            if referred is None:
                continue
            people = self._people[image["file_name"]]
            similarity = np.zeros(len(people))
            if best[image_id] is not None:
                predicted = self._results[image_id]["keypoints"][best[image_id]]
                similarity = self._similarity(predicted, people)
            found.append(similarity[referred] >= FOUND_THRESHOLD)
            if len(people) >= 2:
                others = np.delete(similarity, referred)
                right.append(similarity[referred] > others.max())  # a tie decides for nobody
                chance.append(1 / len(people))
        return {
            "found": float(np.mean(found)) if found else -1.0,
            "identity_accuracy": float(np.mean(right)) if right else -1.0,
            "identity_chance": float(np.mean(chance)) if chance else -1.0,
            "identity_count": len(right),
        }

    def _similarity(self, predicted: np.ndarray, people: list[dict[str, Any]]) -> np.ndarray:
        """OKS [P] of one pose [K, 3] with each of P people."""
        truths = torch.from_numpy(np.stack([true_keypoints(person) for person in people]))
        return object_keypoint_similarity(
            torch.from_numpy(predicted[:, :2]).double(),
            truths[..., :2],
            truths[..., 2] > 0,
            torch.tensor([person["area"] for person in people], dtype=torch.float64),
            torch.tensor(self.skeleton.sigmas, dtype=torch.float64),
        ).numpy()

    # --- ground truth ----------------------------------------------------------------------------

    def _true_mask(self, image_id: int) -> dict[str, Any]:
        """RLE of the referred person's mask."""
        image = self._images[image_id]
        return encode_segmentation(
            self._annotations[image_id]["segmentation"],
            image["height"],
            image["width"],
            f"image id {image_id}",
        )

    def _group_people(
        self, people: Sequence[dict[str, Any]] | None
    ) -> dict[str, list[dict[str, Any]]]:
        """file_name -> its distinct people with a labelled keypoint, the only ones to recognise."""
        if people is None:
            people = [
                {**annotation, "file_name": self._images[image_id]["file_name"]}
                for image_id, annotation in self._annotations.items()
            ]
        grouped: dict[str, list[dict[str, Any]]] = {}
        for person in people:
            lacking = [key for key in _PERSON_KEYS if key not in person]
            if lacking:
                raise UserError(
                    f"An entry of 'people' lacks {', '.join(lacking)}: {str(person)[:80]}; "
                    f"complete it or leave 'people' out."
                )
            of_file = grouped.setdefault(person["file_name"], [])
            is_known = any(same_person(person, other) for other in of_file)
            if not is_known and (true_keypoints(person)[:, 2] > 0).any():
                of_file.append(person)
        return grouped

    def _find_referred(self, image_id: int) -> int | None:
        """Index of the referred person among its image's people; None without keypoints."""
        annotation = self._annotations[image_id]
        if not (true_keypoints(annotation)[:, 2] > 0).any():
            return None
        people = self._people.get(self._images[image_id]["file_name"], [])
        for i, person in enumerate(people):
            if same_person(person, annotation):
                return i
        raise UserError(
            f"The person of image id {image_id} is not among the 'people' of "
            f"{self._images[image_id]['file_name']}; list everybody there or leave 'people' out."
        )
