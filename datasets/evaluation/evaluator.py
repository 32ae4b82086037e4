"""What all evaluators share: results of a data set, judged as they come, from all processes."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import Tensor

from datasets.evaluation.average_precision import average_precision
from datasets.evaluation.found import HAS, Found, fetch
from datasets.evaluation.matching import MOST_RESULTS, Candidates, judge, outside
from datasets.evaluation.packed import PackedResults, Piece
from datasets.evaluation.predictions import KeptPredictions
from datasets.evaluation.similarity import box_similarity, keypoint_similarity, mask_similarity
from datasets.evaluation.truth import Truth
from datasets.skeleton import Skeleton
from util.distributed import gather_in_pieces, is_main_process

EvaluatorType = TypeVar("EvaluatorType", bound="Evaluator")

# Images that travel together from one process to another: some megabytes, or some ten with masks.
_IMAGES_PER_PIECE = 4096


class Evaluator(ABC):
    """Collects results of a data set and computes its metrics.

    The way of use: `update` with every batch, `synchronize` once on every process, then `summarize`
    and `predictions` on the main process. Results are compared with the ground truth in `update`;
    of each only a score and two verdicts of four bytes per kind stay in memory.

    Args:
        truth: everybody there is to find.
        skeleton: keypoint definition, K keypoints.
        keep_predictions: keep the results themselves, for `predictions`.
    """

    # What subclasses keep of every image: name -> (shape, dtype)
    image_values: ClassVar[Mapping[str, tuple[tuple[int, ...], Any]]] = {}

    def __init__(self, truth: Truth, skeleton: Skeleton, keep_predictions: bool) -> None:
        self.skeleton = skeleton
        self._truth = truth
        self._sigmas = np.array(skeleton.sigmas)
        # Equal scores are ranked by image id.
        self._by_id = np.argsort(truth.ids, kind="stable")
        labelled = (truth.keypoints[..., 2] > 0).any(axis=1)
        self._ignored = {
            "keypoint": truth.crowd | ~labelled,
            "box": truth.crowd,
            "mask": truth.crowd,
        }
        self._forget(keep_predictions)

    def fresh(self: EvaluatorType, *, keep_predictions: bool = False) -> EvaluatorType:
        """An evaluator without results that shares this one's ground truth in memory."""
        other = copy.copy(self)
        other._forget(keep_predictions)
        return other

    @abstractmethod
    def summarize(self) -> dict[str, float]:
        """Compute all metrics; for the main process, after `synchronize`.

        Returns:
            Fractions in [0, 1], -1 where there is nothing to judge; counts are integers. Of what
            the results lack (keypoints, boxes or masks) there are no figures.

        Raises:
            ValueError: results of some image entries are missing.
        """

    def update(
        self, image_ids: Sequence[int], results: Sequence[Mapping[str, Tensor]]
    ) -> Sequence[Mapping[str, Tensor]]:
        """Add the results of a batch. An image given again replaces its earlier results.

        Args:
            image_ids: of the B samples.
            results: B dicts of the postprocessor, in pixels of the original image: scores [n] and,
                where the model makes them, keypoints [n, K, 3] (x, y, confidence), boxes [n, 4]
                xyxy, masks [n, height, width] bool, mask_sums [n] of the masks' logits and labels
                [n] (only 1, a person, counts; without labels all are people).

        Returns:
            The results, without those that `_that_count` leaves out.

        Raises:
            ValueError: an unknown image id, or results that do not fit it.
            UserError: results that are not finite, or a broken segmentation in the ground truth.
        """
        if len(image_ids) != len(results):
            raise ValueError(f"Got {len(image_ids)} image ids for {len(results)} results.")
        if not len(image_ids):
            return results
        numbers = self._numbers(image_ids)
        images = self._images_of(numbers)
        everybody = fetch(images, results, self._truth, with_codes=self._kept is not None)
        found = self._that_count(numbers, everybody)
        if self._kept is not None:
            self._kept.put(np.array(numbers), found)
        self._take(numbers, [best_first(people) for people in found])
        if found is everybody:
            return results
        return [people.of_result(result) for people, result in zip(found, results, strict=True)]

    def synchronize(self) -> None:
        """Give the main process the results of all processes; each image counts once.

        The other processes hold none afterwards.
        """
        for part in (*self._parts(), *(self._kept.parts if self._kept is not None else ())):
            for piece in gather_in_pieces(part.pieces(_IMAGES_PER_PIECE)):
                part.put(piece)
        if not is_main_process():
            self._forget(self._kept is not None)

    def predictions(self) -> Iterator[dict[str, Any]]:
        """All results in the COCO results format, ready for JSON; for the main process.

        Returns:
            One dict per image and group: image_id, category_id, score and, where the model makes
            them, bbox [x, y, w, h], keypoints [3K] and segmentation (compressed RLE with text
            counts). They are made one by one: a list of them all would take gigabytes.

        Raises:
            ValueError: the evaluator was made without `keep_predictions`.
        """
        if self._kept is None:
            raise ValueError("Predictions were not kept; make the evaluator with keep_predictions.")
        return self._kept.records()

    # --- for subclasses --------------------------------------------------------------------------

    def _numbers(self, image_ids: Sequence[int]) -> list[int]:
        """Which samples these are, by the ids that `update` gets. By default a sample is an image.

        Raises:
            ValueError: there is no such sample.
        """
        return [self._truth.number(image_id) for image_id in image_ids]

    def _images_of(self, numbers: Sequence[int]) -> Sequence[int]:
        """The positions in the ground truth of the images of samples `numbers`."""
        return numbers

    def _that_count(self, numbers: Sequence[int], found: Sequence[Found]) -> Sequence[Found]:
        """Of the results of samples `numbers` [B] those that are judged and kept; by default all.

        `found` itself where none is left out.
        """
        return found

    def _take(self, numbers: Sequence[int], found: Sequence[Found]) -> None:
        """Keep of the results of samples `numbers` [B], best first, what the figures need."""
        self._judged.put(self._judge(numbers, found))

    def _parts(self) -> tuple[PackedResults, ...]:
        """What `_take` has kept and `synchronize` has to bring to the main process."""
        return (self._judged,)

    def _kept_samples(self) -> tuple[np.ndarray, np.ndarray]:
        """Image id [N] and (height, width) [N, 2] of every sample, for predictions."""
        return self._truth.ids, self._truth.sizes

    def _judge_best(self, numbers: np.ndarray, found: Sequence[Found]) -> dict[str, np.ndarray]:
        """The `image_values` of images `numbers` [B]; results come best first."""
        return {}

    def _average_precision(self, kind: str, numbers: np.ndarray | None = None) -> dict[str, float]:
        """COCO's figures of one kind of result, in all images or in those of `numbers`."""
        if numbers is None:
            numbers = self._by_id
        scores, right, wrong = self._judged.rows(
            numbers, "scores", f"{kind}_right", f"{kind}_wrong"
        )
        people = self._truth.people_of(numbers)
        counted = ~(self._ignored[kind][people] | outside(self._truth.areas[people]))
        return average_precision(scores, right, wrong, counted.sum(axis=1))

    def _have(self, key: str) -> bool:
        """Whether the model makes `key`, "keypoints", "boxes" or "masks": all results have it."""
        return bool(self._judged.values[f"has_{key}"].all())

    def _require_all_results(self) -> None:
        missing = self._truth.ids[~self._judged.is_there]
        if len(missing):
            raise ValueError(
                f"{len(missing)} of {len(self._truth)} image entries have no results, among them "
                f"image id {missing[0]}; evaluate the whole data set, call synchronize() where "
                f"several processes share it, and summarize on the main process."
            )

    # --- results ---------------------------------------------------------------------------------

    def _forget(self, keep_predictions: bool) -> None:
        """Begin without results."""
        verdicts = [f"{kind}_{verdict}" for kind in MOST_RESULTS for verdict in ("right", "wrong")]
        self._judged = PackedResults(
            len(self._truth),
            rows={"scores": ((), np.float32), **dict.fromkeys(verdicts, ((), np.uint32))},
            values={**dict.fromkeys(HAS, ((), bool)), **self.image_values},
        )
        self._kept = None
        if keep_predictions:
            num_keypoints = self._truth.keypoints.shape[1]
            self._kept = KeptPredictions(*self._kept_samples(), num_keypoints)

    def _judge(self, numbers: Sequence[int], found: Sequence[Found]) -> Piece:
        """What stays of a batch; results come best first."""
        counts = np.array([len(people.scores) for people in found])
        ranks = np.concatenate([np.arange(count) for count in counts])
        has = {
            "keypoint": np.array([people.keypoints is not None for people in found]),
            "box": np.array([people.boxes is not None for people in found]),
            "mask": np.array([people.pixels is not None for people in found]),
        }
        rows = {"scores": np.concatenate([people.scores for people in found])}
        for kind, most in MOST_RESULTS.items():
            judged = (ranks < most) & np.repeat(has[kind], counts)
            right, wrong = np.zeros((2, len(ranks)), dtype=np.uint32)
            if judged.any() and (kind != "mask" or self._truth.has_masks):
                candidates = [
                    self._candidates(kind, number, people, most)
                    for number, people, there in zip(numbers, found, has[kind], strict=True)
                    if there
                ]
                right[judged], wrong[judged] = judge(candidates)
            rows |= {f"{kind}_right": right, f"{kind}_wrong": wrong}
        of_images = np.array(numbers)
        values = dict(zip(HAS, has.values(), strict=True))
        return Piece(of_images, counts, rows, values | self._judge_best(of_images, found))

    def _candidates(self, kind: str, number: int, found: Found, most: int) -> Candidates:
        """The `most` best results of a kind in image `number`, areas as in `COCO.loadRes`."""
        truth, people = self._truth, self._truth.people(number)
        crowd = truth.crowd[people]
        if kind == "keypoint":
            poses = found.keypoints[:most, :, :2].astype(np.float64)
            areas = np.ptp(poses, axis=1).prod(axis=1)
            similarity = keypoint_similarity(
                poses,
                truth.keypoints[people],
                truth.boxes[people],
                truth.areas[people],
                self._sigmas,
            )
        elif kind == "box":
            boxes = found.corners()[:most]
            areas = boxes[:, 2] * boxes[:, 3]
            similarity = box_similarity(boxes, truth.boxes[people], crowd)
        else:
            pixels = found.pixels[:most]
            areas = pixels[:, 0].astype(np.float64)
            similarity = mask_similarity(pixels, found.true_pixels, crowd)
        return Candidates(
            similarity, areas, truth.areas[people], self._ignored[kind][people], crowd
        )


def best_first(found: Found) -> Found:
    """The results that can count, by falling score; equal ones keep their order."""
    order = np.argsort(-found.scores, kind="stable")
    return found.chosen(order[: max(MOST_RESULTS.values())])
