"""Metrics of referring human pose and mask estimation: one person per image entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from datasets.annotations import same_person
from datasets.evaluation.evaluator import Evaluator
from datasets.evaluation.found import Found
from datasets.evaluation.selection import Selection
from datasets.evaluation.truth import Truth, true_keypoints
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
        keep_predictions: see `Evaluator`.

    Raises:
        UserError: an image entry does not have exactly one annotation, or its person is not among
            the image's people, or an entry of `people` is incomplete.
    """

    # Of the highest-scoring group, zero without any group: labelled keypoints within half the ear
    # distance; pixels of intersection and union; is the pose similar to the referred person, and
    # more so than to anybody else
    image_values: ClassVar[Mapping[str, tuple[tuple[int, ...], Any]]] = {
        "right_keypoints": ((), np.int16),
        "overlap": ((2,), np.float64),
        "found": ((), bool),
        "identified": ((), bool),
    }

    def __init__(
        self,
        ground_truth: Mapping[str, Any],
        skeleton: Skeleton = COCO,
        *,
        keep_predictions: bool = False,
    ) -> None:
        entries = _one_annotation_each(ground_truth)
        images, annotations = ground_truth["images"], list(entries.values())
        # Person number i is the one of image number i.
        super().__init__(Truth(images, annotations, skeleton), skeleton, keep_predictions)
        self._selection: Selection | None = None
        self._heads = self._head_sizes()
        files = [image["file_name"] for image in images]
        company = _people_by_file(ground_truth.get("people"), files, annotations)
        self._set_company(company, files, annotations)

    def selecting(self, selection: Selection) -> ReferringEvaluator:
        """An evaluator without results that counts only those which `selection` chooses.

        It shares this one's ground truth in memory, and keeps predictions if this one does: those
        that are chosen.
        """
        other = self.fresh(keep_predictions=self._kept is not None)
        other._selection = selection
        return other

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

            Without keypoints, boxes or masks in the results, their metrics are absent; so is
            `pckh` for a skeleton without a head size.

        Raises:
            ValueError: results of some image entries are missing.
        """
        self._require_all_results()
        has_keypoints, has_masks = self._have("keypoints"), self._have("masks")
        kinds = {"keypoint": has_keypoints, "box": self._have("boxes"), "mask": has_masks}
        summary: dict[str, float] = {}
        for kind in (kind for kind, is_there in kinds.items() if is_there):
            figures = self._average_precision(kind)
            summary.update({f"{kind}_{name}": figures[name] for name in _AVERAGE_PRECISIONS})
        if has_keypoints and self.skeleton.head_pair is not None:
            summary["pckh"] = self._pckh()
        if has_masks:
            summary.update(self._mask_overlap())
        if has_keypoints:
            summary.update(self._identity())
        summary["num_samples"] = len(self._truth)
        return summary

    # --- whom a pose shows -----------------------------------------------------------------------

    @property
    def num_people(self) -> np.ndarray:
        """[N] distinct people with a labelled keypoint in each image."""
        return np.diff(self._company, axis=1)[:, 0]

    @property
    def has_identity(self) -> np.ndarray:
        """[N] bool: identity accuracy counts it; who is meant is labelled and has company."""
        return (self._referred >= 0) & (self.num_people >= 2)

    def similarities(self, numbers: np.ndarray, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """OKS of poses [B, K, 2] with the referred person, and the greatest with another, [B].

        Zero where the pose is infinite, or nobody is referred to or nobody else is there.
        """
        ranges = self._company[numbers]
        people = np.concatenate([np.arange(start, end) for start, end in ranges])
        owners = np.repeat(np.arange(len(numbers)), np.diff(ranges, axis=1)[:, 0])
        truths = torch.from_numpy(self._people[people])
        similarity = object_keypoint_similarity(
            torch.from_numpy(poses)[owners],
            truths[..., :2],
            truths[..., 2] > 0,
            torch.from_numpy(self._people_areas[people]),
            torch.from_numpy(self._sigmas),
        ).numpy()
        is_referred = people == self._referred[numbers][owners]
        referred, others = np.zeros((2, len(numbers)))
        referred[owners[is_referred]] = similarity[is_referred]
        np.maximum.at(others, owners[~is_referred], similarity[~is_referred])
        return referred, others

    # --- metrics of the highest-scoring group ----------------------------------------------------

    def _pckh(self) -> float:
        """Share of labelled keypoints within half the ear distance; see `summarize`."""
        eligible = self._heads > 0
        labelled = int((self._truth.keypoints[eligible, :, 2] > 0).sum())
        right = int(self._judged.values["right_keypoints"][eligible].sum())
        return right / labelled if labelled else -1.0

    def _mask_overlap(self) -> dict[str, float]:
        """Overall IoU, mean IoU and precision at IoU thresholds; see `summarize`."""
        intersections, unions = self._judged.values["overlap"].T
        overlaps = intersections / np.maximum(unions, 1.0)  # two empty masks: 0
        return {
            "oiou": float(np.sum(intersections) / max(np.sum(unions), 1.0)),
            "miou": float(overlaps.mean()),
            **{f"precision@{t}": float((overlaps >= t).mean()) for t in PRECISION_THRESHOLDS},
        }

    def _identity(self) -> dict[str, float]:
        """`found` and the `identity_` metrics of `summarize`."""
        labelled = self._referred >= 0
        people, several = self.num_people, self.has_identity
        found = self._judged.values["found"][labelled]
        right = self._judged.values["identified"][several]
        return {
            "found": float(found.mean()) if len(found) else -1.0,
            "identity_accuracy": float(right.mean()) if len(right) else -1.0,
            "identity_chance": float((1 / people[several]).mean()) if len(right) else -1.0,
            "identity_count": len(right),
        }

    def _that_count(self, numbers: Sequence[int], found: Sequence[Found]) -> Sequence[Found]:
        """See `Evaluator._that_count`."""
        if self._selection is None:
            return found
        return [
            people.chosen(self._selection.choose(people.keypoints, people.scores, true_box))
            for people, true_box in zip(found, self._truth.boxes[list(numbers)], strict=True)
        ]

    def _judge_best(self, numbers: np.ndarray, found: Sequence[Found]) -> dict[str, np.ndarray]:
        """See `Evaluator._judge_best` and `image_values`."""
        poses = np.full((len(found), *self._truth.keypoints.shape[1:2], 2), np.inf)
        overlap = np.zeros((len(found), 2))
        for i, people in enumerate(found):
            if len(people.scores) and people.keypoints is not None:
                poses[i] = people.keypoints[0, :, :2]
            if people.pixels is not None:
                if not self._truth.has_masks:
                    raise UserError(
                        "The model makes masks, but not every annotation has a 'segmentation' to "
                        "judge them by; add them, or evaluate without masks (--no_mask)."
                    )
                area, intersection = people.pixels[0, :2] if len(people.scores) else (0, 0)
                overlap[i] = intersection, people.true_pixels[0] + area - intersection
        truth = self._truth.keypoints[numbers]
        near = np.linalg.norm(poses - truth[..., :2], axis=-1)
        near = near <= PCKH_THRESHOLD * self._heads[numbers, None]
        referred, others = self.similarities(numbers, poses)
        return {
            "right_keypoints": (near & (truth[..., 2] > 0)).sum(axis=1),
            "overlap": overlap,
            "found": referred >= FOUND_THRESHOLD,
            "identified": referred > others,  # a tie decides for nobody
        }

    # --- ground truth ----------------------------------------------------------------------------

    def _head_sizes(self) -> np.ndarray:
        """[N] distance of the ears in pixels, 0 where they are not both labelled."""
        if self.skeleton.head_pair is None:
            return np.zeros(len(self._truth))
        ears = self._truth.keypoints[:, self.skeleton.head_pair]
        both = (ears[..., 2] > 0).all(axis=1)
        # Ears on the same pixel (seen from far away) give no head size either.
        return np.where(both, np.linalg.norm(ears[:, 0, :2] - ears[:, 1, :2], axis=-1), 0)

    def _set_company(
        self,
        company: Mapping[str, Sequence[Mapping[str, Any]]],
        files: Sequence[str],
        annotations: Sequence[Mapping[str, Any]],
    ) -> None:
        """Pack everybody who could be meant.

        Args:
            company: file_name -> its distinct people.
            files: N file names of the images.
            annotations: N annotations of those who are meant.

        Raises:
            UserError: who is meant is not among the image's people.
        """
        people = [person for of_file in company.values() for person in of_file]
        shape = (len(people), self.skeleton.num_keypoints, 3)
        self._people = np.array([true_keypoints(person) for person in people]).reshape(shape)
        self._people_areas = np.array([person["area"] for person in people], dtype=np.float64)
        ends = np.cumsum([len(of_file) for of_file in company.values()]).tolist()
        ranges = {
            name: (end - len(of_file), end)
            for (name, of_file), end in zip(company.items(), ends, strict=True)
        }
        # [N, 2] first and last + 1 of the people of an image; [N] who is meant, -1 if unlabelled
        self._company = np.array([ranges.get(name, (0, 0)) for name in files], dtype=np.int64)
        self._company = self._company.reshape(-1, 2)
        self._referred = np.full(len(files), -1)
        for number, (name, annotation) in enumerate(zip(files, annotations, strict=True)):
            if (true_keypoints(annotation)[:, 2] > 0).any():
                of_file = company.get(name, [])
                same = [i for i, p in enumerate(of_file) if same_person(p, annotation)]
                if not same:
                    raise UserError(
                        f"The person of image id {self._truth.ids[number]} is not among the "
                        f"'people' of {name}; list everybody there or leave 'people' out."
                    )
                self._referred[number] = ranges[name][0] + same[0]


def _one_annotation_each(ground_truth: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Image id -> its annotation, in the order of the image entries.

    Raises:
        UserError: an image entry has none or several, or an annotation no image entry.
    """
    annotations: dict[int, dict[str, Any] | None] = {
        image["id"]: None for image in ground_truth["images"]
    }
    for annotation in ground_truth["annotations"]:
        image_id = annotation["image_id"]
        if annotations.get(image_id, annotation) is not None:
            raise UserError(
                f"Evaluation needs exactly one annotation per image entry: image id {image_id} "
                f"has {'several' if image_id in annotations else 'no image entry'}."
            )
        annotations[image_id] = annotation
    for image_id, annotation in annotations.items():
        if annotation is None:
            raise UserError(f"Image id {image_id} has no annotation to evaluate against.")
    return annotations


def _people_by_file(
    people: Sequence[dict[str, Any]] | None,
    files: Sequence[str],
    annotations: Sequence[dict[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """file_name -> its distinct people with a labelled keypoint, the only ones to recognise.

    Args:
        people: as listed in the ground truth; None: those that anybody refers to.
        files: N file names of the images.
        annotations: N annotations.

    Raises:
        UserError: an entry of `people` is incomplete.
    """
    if people is None:
        people = [
            {**annotation, "file_name": name}
            for name, annotation in zip(files, annotations, strict=True)
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
