"""Metrics of referring human pose and mask estimation, exact under several processes."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO as CocoIndex
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from datasets.refhuman import encode_segmentation
from datasets.skeleton import COCO, Skeleton
from util.distributed import all_gather_object
from util.keypoint_ops import object_keypoint_similarity

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
PCKH_THRESHOLD = 0.5  # of the head size
FOUND_THRESHOLD = 0.5  # OKS

# pycocotools' names of the kinds of result, and ours
_COCO_TYPES = {"keypoint": "keypoints", "box": "bbox", "mask": "segm"}

_PERSON_KEYS = ("file_name", "bbox", "area", "keypoints")

_TABLE_NAMES = {
    **{
        f"{kind}_{key}": f"{kind} {name}"
        for kind in _COCO_TYPES
        for key, name in (
            ("ap", "AP"),
            ("ap50", "AP50"),
            ("ap75", "AP75"),
            ("apm", "AP medium"),
            ("apl", "AP large"),
        )
    },
    "pckh": f"PCKh@{PCKH_THRESHOLD}",
    "oiou": "overall IoU",
    "miou": "mean IoU",
    **{f"precision@{t}": f"precision@{t}" for t in PRECISION_THRESHOLDS},
    "found": f"best pose OKS >= {FOUND_THRESHOLD}",
    "identity_accuracy": "right person",
    "identity_chance": "right person by chance",
}


class Evaluator:
    """Collects results of a data set and computes its metrics.

    The way of use: `update` with every batch, `synchronize` once, then `summarize` and
    `predictions`. Masks become run-length codes in `update`, so memory does not grow with the
    images' pixels.

    Args:
        ground_truth: COCO-style dict with `images` and `annotations`, one annotation per image
            entry, as from a data set's `ground_truth()`; not changed. An optional list `people`
            holds all people of every image (`file_name`, `bbox`, `area`, `keypoints`,
            `person_id`); without it the people of an image are the distinct annotations of all
            entries with its file_name.
        skeleton: keypoint definition.

    Raises:
        ValueError: an image entry does not have exactly one annotation, or its person is not among
            the image's people, or an entry of `people` is incomplete.
    """

    def __init__(self, ground_truth: Mapping[str, Any], skeleton: Skeleton = COCO) -> None:
        self.skeleton = skeleton
        self._images = {image["id"]: image for image in ground_truth["images"]}
        self._annotations: dict[int, dict[str, Any]] = {}
        for annotation in ground_truth["annotations"]:
            image_id = annotation["image_id"]
            if image_id in self._annotations or image_id not in self._images:
                raise ValueError(
                    f"Evaluation needs exactly one annotation per image entry: image id {image_id} "
                    f"has {'several' if image_id in self._annotations else 'no image entry'}."
                )
            self._annotations[image_id] = annotation
        for image_id in self._images:
            if image_id not in self._annotations:
                raise ValueError(f"Image id {image_id} has no annotation to evaluate against.")
        self._people = self._group_people(ground_truth.get("people"))
        self._referred = {image_id: self._find_referred(image_id) for image_id in self._images}
        self._results: dict[int, dict[str, Any]] = {}

    def update(self, image_ids: Sequence[int], results: Sequence[Mapping[str, Tensor]]) -> None:
        """Add the results of a batch. An image given again replaces its earlier results.

        Args:
            image_ids: of the B samples.
            results: B dicts of the postprocessor, in pixels of the original image: scores [n],
                boxes [n, 4] xyxy, keypoints [n, K, 3] (x, y, confidence) and, where the model makes
                masks, masks [n, height, width] bool.

        Raises:
            ValueError: an unknown image id, or results that do not fit it.
        """
        if len(image_ids) != len(results):
            raise ValueError(f"Got {len(image_ids)} image ids for {len(results)} results.")
        for image_id, result in zip(image_ids, results, strict=True):
            if image_id not in self._images:
                raise ValueError(f"Image id {image_id} is not in the ground truth.")
            self._results[image_id] = self._compress(image_id, result)

    def synchronize(self) -> None:
        """Give every process the results of all processes; each image counts once."""
        merged: dict[int, dict[str, Any]] = {}
        for results in all_gather_object(self._results):
            merged.update(results)
        self._results = merged

    def summarize(self) -> dict[str, float]:
        """Compute all metrics.

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

            Without masks in the results, the mask metrics are absent.

        Raises:
            ValueError: results of some image entries are missing.
        """
        missing = [image_id for image_id in self._images if image_id not in self._results]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self._images)} image entries have no results, among them "
                f"image id {missing[0]}; evaluate the whole data set, and call synchronize() "
                f"where several processes share it."
            )
        has_masks = all("masks" in result for result in self._results.values())
        summary: dict[str, float] = {}
        for kind in _COCO_TYPES:
            if kind != "mask" or has_masks:
                summary.update(self._average_precision(kind))
        best = {image_id: self._best_group(image_id) for image_id in self._images}
        summary["pckh"] = self._pckh(best)
        if has_masks:
            summary.update(self._mask_overlap(best))
        summary.update(self._identity(best))
        summary["num_samples"] = len(self._images)
        return summary

    def predictions(self) -> list[dict[str, Any]]:
        """All results in the COCO results format, ready for JSON.

        Returns:
            One dict per image and group: image_id, category_id, score, bbox [x, y, w, h],
            keypoints [3K] and, with masks, segmentation (compressed RLE with text counts).
        """
        records = []
        for image_id in self._images:
            if image_id not in self._results:
                continue
            result = self._results[image_id]
            for i in range(len(result["scores"])):
                record = {
                    "image_id": image_id,
                    "category_id": self._annotations[image_id]["category_id"],
                    "score": float(result["scores"][i]),
                    "bbox": _xyxy_to_xywh(result["boxes"][i]).tolist(),
                    "keypoints": result["keypoints"][i].ravel().tolist(),
                }
                if "masks" in result:
                    rle = result["masks"][i]
                    record["segmentation"] = {
                        "size": list(rle["size"]),
                        "counts": rle["counts"].decode("ascii"),
                    }
                records.append(record)
        return records

    # --- results ---------------------------------------------------------------------------------

    def _compress(self, image_id: int, result: Mapping[str, Tensor]) -> dict[str, Any]:
        """A postprocessor's result as arrays on the CPU, masks as a list of RLE."""
        compressed: dict[str, Any] = {
            key: result[key].detach().float().cpu().numpy()
            for key in ("scores", "boxes", "keypoints")
        }
        count = len(compressed["scores"])
        expected = {"boxes": (count, 4), "keypoints": (count, self.skeleton.num_keypoints, 3)}
        if "masks" in result:
            image = self._images[image_id]
            expected["masks"] = (count, image["height"], image["width"])
        for key, shape in expected.items():
            if tuple(result[key].shape) != shape:
                raise ValueError(
                    f"Image id {image_id}: result {key!r} has shape {tuple(result[key].shape)}, "
                    f"expected {shape}."
                )
        if "masks" in result:
            # pycocotools wants [h, w, n] with rows running fastest, which this view of it has.
            masks = result["masks"].to("cpu", torch.uint8).transpose(1, 2).contiguous().numpy()
            compressed["masks"] = coco_mask.encode(masks.transpose(2, 1, 0))
        return compressed

    def _best_group(self, image_id: int) -> int | None:
        """Index of the highest-scoring group of an image, None without any."""
        scores = self._results[image_id]["scores"]
        return int(scores.argmax()) if len(scores) else None

    # --- average precision -----------------------------------------------------------------------

    def _average_precision(self, kind: str) -> dict[str, float]:
        """COCO AP of one kind of result; see `summarize` for the keys."""
        truths = []
        for number, (image_id, annotation) in enumerate(self._annotations.items(), start=1):
            truths.append(
                {
                    **annotation,
                    "id": number,  # pycocotools takes 0 for "unmatched"
                    "iscrowd": annotation.get("iscrowd", 0),
                    "num_keypoints": int((self._keypoints(annotation)[:, 2] > 0).sum()),
                    "segmentation": self._true_mask(image_id) if kind == "mask" else [],
                }
            )
        detections = []
        for image_id in self._images:
            for fields in self._coco_detections(kind, image_id):
                detections.append(
                    {
                        **fields,
                        "id": len(detections) + 1,
                        "image_id": image_id,
                        "category_id": self._annotations[image_id]["category_id"],
                        "iscrowd": 0,
                    }
                )
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(
                self._coco_index(truths), self._coco_index(detections), _COCO_TYPES[kind]
            )
            evaluation.params.kpt_oks_sigmas = np.array(self.skeleton.sigmas)
            evaluation.evaluate()
            evaluation.accumulate()
        # [IoU thresholds, recall levels, categories, area ranges, numbers of detections]
        precision = evaluation.eval["precision"][..., -1]
        thresholds = evaluation.params.iouThrs
        areas = evaluation.params.areaRngLbl

        def mean(area: str, threshold: float | None = None) -> float:
            values = precision[..., areas.index(area)]
            if threshold is not None:
                values = values[np.isclose(thresholds, threshold)]
            values = values[values > -1]
            return float(values.mean()) if values.size else -1.0

        return {
            f"{kind}_ap": mean("all"),
            f"{kind}_ap50": mean("all", 0.5),
            f"{kind}_ap75": mean("all", 0.75),
            f"{kind}_apm": mean("medium"),
            f"{kind}_apl": mean("large"),
        }

    def _coco_detections(self, kind: str, image_id: int) -> list[dict[str, Any]]:
        """An image's groups as pycocotools wants them; areas as its `loadRes` sets them."""
        result = self._results[image_id]
        detections = []
        for i, score in enumerate(result["scores"].tolist()):
            if kind == "mask":
                rle = result["masks"][i]
                fields = {"segmentation": rle, "area": float(coco_mask.area(rle))}
            elif kind == "box":
                box = _xyxy_to_xywh(result["boxes"][i])
                fields = {"bbox": box.tolist(), "area": float(box[2] * box[3])}
            else:
                keypoints = result["keypoints"][i]
                fields = {
                    "keypoints": keypoints.ravel().tolist(),
                    "area": float(np.prod(np.ptp(keypoints[:, :2], axis=0))),
                }
            detections.append({"score": score, **fields})
        return detections

    def _coco_index(self, annotations: list[dict[str, Any]]) -> CocoIndex:
        index = CocoIndex()
        categories = {annotation["category_id"] for annotation in self._annotations.values()}
        index.dataset = {
            "images": list(self._images.values()),
            "annotations": annotations,
            "categories": [{"id": category} for category in sorted(categories)],
        }
        index.createIndex()
        return index

    # --- metrics of the highest-scoring group ----------------------------------------------------

    def _pckh(self, best: Mapping[int, int | None]) -> float:
        """Share of labelled keypoints within half the ear distance; see `summarize`."""
        first_ear, second_ear = self.skeleton.head_pair
        right, labelled = 0, 0
        for image_id, annotation in self._annotations.items():
            truth = self._keypoints(annotation)
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
        truths = torch.from_numpy(np.stack([self._keypoints(person) for person in people]))
        return object_keypoint_similarity(
            torch.from_numpy(predicted[:, :2]).double(),
            truths[..., :2],
            truths[..., 2] > 0,
            torch.tensor([person["area"] for person in people], dtype=torch.float64),
            torch.tensor(self.skeleton.sigmas, dtype=torch.float64),
        ).numpy()

    # --- ground truth ----------------------------------------------------------------------------

    def _keypoints(self, annotation: Mapping[str, Any]) -> np.ndarray:
        """[K, 3] float64 (x, y, COCO visibility) of an annotation or a person."""
        return np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)

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
                raise ValueError(
                    f"An entry of 'people' lacks {', '.join(lacking)}: {str(person)[:80]}; "
                    f"complete it or leave 'people' out."
                )
            of_file = grouped.setdefault(person["file_name"], [])
            is_known = any(_same_person(person, other) for other in of_file)
            if not is_known and (self._keypoints(person)[:, 2] > 0).any():
                of_file.append(person)
        return grouped

    def _find_referred(self, image_id: int) -> int | None:
        """Index of the referred person among its image's people; None without keypoints."""
        annotation = self._annotations[image_id]
        if not (self._keypoints(annotation)[:, 2] > 0).any():
            return None
        people = self._people.get(self._images[image_id]["file_name"], [])
        for i, person in enumerate(people):
            if _same_person(person, annotation):
                return i
        raise ValueError(
            f"The person of image id {image_id} is not among the 'people' of "
            f"{self._images[image_id]['file_name']}; list everybody there or leave 'people' out."
        )


def format_table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """One table for several prompts.

    Args:
        metrics: prompt kind -> summary of `Evaluator.summarize`.

    Returns:
        Lines without a trailing newline: a row per metric in percent ("-" where it has no value),
        a column per prompt kind.
    """
    present = {name for summary in metrics.values() for name in summary}
    rows = [["metric, %", *metrics]]
    for key, name in _TABLE_NAMES.items():
        if key in present:
            values = [summary.get(key, -1.0) for summary in metrics.values()]
            rows.append([name, *(f"{100 * v:.2f}" if v >= 0 else "-" for v in values)])
    for key, name in (("num_samples", "samples"), ("identity_count", "... with several people")):
        if key in present:
            rows.append([name, *(str(summary.get(key, "-")) for summary in metrics.values())])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _same_person(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two descriptions inside an image are of the same person."""
    if "person_id" in first and "person_id" in second:
        return first["person_id"] == second["person_id"]
    return all(list(first[key]) == list(second[key]) for key in ("keypoints", "bbox"))


def _xyxy_to_xywh(box: np.ndarray) -> np.ndarray:
    return np.array([box[0], box[1], box[2] - box[0], box[3] - box[1]])
