"""What all evaluators share: results of a data set, collected from all processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from datasets.skeleton import Skeleton
from util.distributed import gather_object

PERSON = 1  # label of results, and category of the COCO results format


class Evaluator(ABC):
    """Collects results of a data set and computes its metrics.

    The way of use: `update` with every batch, `synchronize` once on every process, then `summarize`
    and `predictions` on the main process. Masks become run-length codes in `update`, so memory does
    not grow with the images' pixels.

    Args:
        images: COCO-style image entries: `id`, `height`, `width`.
        skeleton: keypoint definition, K keypoints.
    """

    def __init__(self, images: Sequence[dict[str, Any]], skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self._images = {image["id"]: image for image in images}
        self._results: dict[int, dict[str, Any]] = {}

    @abstractmethod
    def summarize(self) -> dict[str, float]:
        """Compute all metrics; for the main process, after `synchronize`.

        Returns:
            Fractions in [0, 1], -1 where there is nothing to judge; counts are integers. Every
            summary has `keypoint_ap`.

        Raises:
            ValueError: results of some image entries are missing.
        """

    def update(self, image_ids: Sequence[int], results: Sequence[Mapping[str, Tensor]]) -> None:
        """Add the results of a batch. An image given again replaces its earlier results.

        Args:
            image_ids: of the B samples.
            results: B dicts of the postprocessor, in pixels of the original image: scores [n],
                keypoints [n, K, 3] (x, y, confidence) and, where the model makes them, boxes
                [n, 4] xyxy, masks [n, height, width] bool, and labels [n] (only 1, a person,
                counts; without labels all are people).

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
        """Give the main process the results of all processes; each image counts once.

        The other processes hold none afterwards.
        """
        gathered = gather_object(self._results)
        self._results = {}
        for results in gathered or []:
            self._results.update(results)

    def predictions(self) -> list[dict[str, Any]]:
        """All results in the COCO results format, ready for JSON; for the main process.

        Returns:
            One dict per image and group: image_id, category_id, score, keypoints [3K] and, where
            the model makes them, bbox [x, y, w, h] and segmentation (compressed RLE with text
            counts).
        """
        records = []
        for image_id in self._images:
            for record in self._records(image_id):
                if "segmentation" in record:
                    rle = record["segmentation"]
                    counts = rle["counts"].decode("ascii")
                    record["segmentation"] = {"size": list(rle["size"]), "counts": counts}
                records.append(record)
        return records

    def _records(self, image_id: int) -> list[dict[str, Any]]:
        """An image's results as `predictions` has them, RLE with bytes as counts."""
        result = self._results.get(image_id)
        if result is None:
            return []
        records: list[dict[str, Any]] = [
            {"image_id": image_id, "category_id": PERSON, "score": score}
            for score in result["scores"].tolist()
        ]
        for i, record in enumerate(records):
            if "boxes" in result:
                x0, y0, x1, y1 = result["boxes"][i]
                record["bbox"] = np.array([x0, y0, x1 - x0, y1 - y0]).tolist()
            record["keypoints"] = result["keypoints"][i].ravel().tolist()
            if "masks" in result:
                record["segmentation"] = result["masks"][i]
        return records

    def _have(self, key: str) -> bool:
        """Whether the model makes `key`: all results have it."""
        return all(key in result for result in self._results.values())

    def _require_all_results(self) -> None:
        missing = [image_id for image_id in self._images if image_id not in self._results]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self._images)} image entries have no results, among them "
                f"image id {missing[0]}; evaluate the whole data set, call synchronize() where "
                f"several processes share it, and summarize on the main process."
            )

    def _compress(self, image_id: int, result: Mapping[str, Tensor]) -> dict[str, Any]:
        """The people of a postprocessor's result as arrays on the CPU, masks as a list of RLE."""
        count = len(result["scores"])
        expected = {
            "labels": (count,),
            "boxes": (count, 4),
            "keypoints": (count, self.skeleton.num_keypoints, 3),
            "masks": (count, self._images[image_id]["height"], self._images[image_id]["width"]),
        }
        for key, shape in expected.items():
            if key in result and tuple(result[key].shape) != shape:
                raise ValueError(
                    f"Image id {image_id}: result {key!r} has shape {tuple(result[key].shape)}, "
                    f"expected {shape}."
                )
        people = torch.arange(count)
        if "labels" in result:
            people = (result["labels"] == PERSON).nonzero()[:, 0]
        compressed: dict[str, Any] = {
            key: result[key][people].detach().float().cpu().numpy()
            for key in ("scores", "boxes", "keypoints")
            if key in result
        }
        if "masks" in result:
            # pycocotools wants [h, w, n] with rows running fastest, which this view of it has.
            masks = result["masks"][people].to("cpu", torch.uint8)
            masks = masks.transpose(1, 2).contiguous().numpy()
            compressed["masks"] = coco_mask.encode(masks.transpose(2, 1, 0))
        return compressed


def true_keypoints(annotation: Mapping[str, Any]) -> np.ndarray:
    """[K, 3] float64 (x, y, COCO visibility) of an annotation or a person."""
    return np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
