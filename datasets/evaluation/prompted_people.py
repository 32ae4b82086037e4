"""Metrics of prompts for everybody in an image: their results together, by COCO's protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datasets.evaluation.evaluator import best_first
from datasets.evaluation.found import HAS, Found
from datasets.evaluation.packed import PackedResults, Piece
from datasets.evaluation.people import PeopleEvaluator
from datasets.skeleton import COCO, Skeleton

# Images that are judged at once: few enough for the arrays of `matching.judge` to stay small.
_IMAGES_AT_ONCE = 64


class PromptedPeopleEvaluator(PeopleEvaluator):
    """Judges the results of several prompts for an image as one (Table 3 of the paper).

    A sample is a person who was prompted for, known by the annotation's id. All results of all
    people of an image count as the image's, in the order of the ground truth's annotations; what
    follows is COCO's protocol, see `PeopleEvaluator`. Of the poses of an image the 20 best count.

    In the figures of boxes and masks people without a prompt are ignored, as crowd regions are,
    since nobody asked for them. In those of keypoints COCO's own rule decides: whoever has a
    labelled keypoint and is no crowd counts, prompted or not.

    Args:
        ground_truth: see `PeopleEvaluator`; the annotations have an `id`.
        prompted: annotation ids of the N people who are prompted for.
        skeleton: keypoint definition.
        keep_predictions: see `Evaluator`; predictions have the ids of the images.
    """

    def __init__(
        self,
        ground_truth: Mapping[str, Any],
        prompted: Sequence[int],
        skeleton: Skeleton = COCO,
        *,
        keep_predictions: bool = False,
    ) -> None:
        images = ground_truth["images"]
        numbers = {image["id"]: number for number, image in enumerate(images)}
        # In the order of `Truth`: the people of an image lie side by side.
        people = sorted(
            (a for a in ground_truth["annotations"] if a["image_id"] in numbers),
            key=lambda annotation: numbers[annotation["image_id"]],
        )
        wanted = set(prompted)
        is_prompted = np.array([person["id"] in wanted for person in people], dtype=bool)
        samples = [person for person in people if person["id"] in wanted]
        self._samples = {sample["id"]: number for number, sample in enumerate(samples)}
        self._images = np.array([numbers[s["image_id"]] for s in samples], dtype=np.int64)
        self._first = np.searchsorted(self._images, np.arange(len(images) + 1))
        super().__init__(ground_truth, skeleton, keep_predictions=keep_predictions)
        for kind in ("box", "mask"):
            self._ignored[kind] = self._ignored[kind] | ~is_prompted

    def summarize(self) -> dict[str, float]:
        """Compute all metrics; see `PeopleEvaluator.summarize`.

        Returns:
            The same; `num_samples` is the number of people who were prompted for.

        Raises:
            ValueError: results of some of them are missing.
        """
        missing = np.flatnonzero(~self._found.is_there)
        if len(missing):
            ids = list(self._samples)
            raise ValueError(
                f"{len(missing)} of {len(ids)} prompted people have no results, among them "
                f"annotation id {ids[missing[0]]}; evaluate the whole data set, call synchronize() "
                f"where several processes share it, and summarize on the main process."
            )
        for first in range(0, len(self._truth), _IMAGES_AT_ONCE):
            numbers = list(range(first, min(first + _IMAGES_AT_ONCE, len(self._truth))))
            together = [best_first(self._together(number)) for number in numbers]
            self._judged.put(self._judge(numbers, together))
        return {**super().summarize(), "num_samples": len(self._samples)}

    # --- for `Evaluator` -------------------------------------------------------------------------

    def _forget(self, keep_predictions: bool) -> None:
        """Begin without results."""
        super()._forget(keep_predictions)
        shape = (self._truth.keypoints.shape[1], 3)
        # Of every sample its results, and of each of these the pixels in every mask of the image
        self._found = PackedResults(
            len(self._samples),
            rows={
                "scores": ((), np.float32),
                "keypoints": (shape, np.float32),
                "boxes": ((4,), np.float32),
            },
            values=dict.fromkeys(HAS, ((), bool)),
        )
        self._pixels = PackedResults(len(self._samples), rows={"pixels": ((), np.int64)}, values={})
        # Of every image the areas of the true masks
        self._true_pixels = PackedResults(
            len(self._truth), rows={"pixels": ((), np.int64)}, values={}
        )

    def _numbers(self, image_ids: Sequence[int]) -> list[int]:
        """See `Evaluator._numbers`; the ids are those of annotations."""
        unknown = [i for i in image_ids if i not in self._samples]
        if unknown:
            raise ValueError(f"Annotation id {unknown[0]} is not of a person with a prompt.")
        return [self._samples[i] for i in image_ids]

    def _images_of(self, numbers: Sequence[int]) -> Sequence[int]:
        """See `Evaluator._images_of`."""
        return self._images[list(numbers)].tolist()

    def _take(self, numbers: Sequence[int], found: Sequence[Found]) -> None:
        """See `Evaluator._take`: nothing is judged before all results of an image are there."""
        of_samples = np.array(numbers)
        counts = np.array([len(people.scores) for people in found])
        pose_shape = (self._truth.keypoints.shape[1], 3)
        keypoints = [
            np.zeros((count, *pose_shape)) if people.keypoints is None else people.keypoints
            for people, count in zip(found, counts, strict=True)
        ]
        boxes = [
            np.zeros((count, 4)) if people.boxes is None else people.boxes
            for people, count in zip(found, counts, strict=True)
        ]
        rows = {
            "scores": np.concatenate([people.scores for people in found]),
            "keypoints": np.concatenate(keypoints),
            "boxes": np.concatenate(boxes),
        }
        values = {
            "has_keypoints": np.array([people.keypoints is not None for people in found]),
            "has_boxes": np.array([people.boxes is not None for people in found]),
            "has_masks": np.array([people.pixels is not None for people in found]),
        }
        self._found.put(Piece(of_samples, counts, rows, values))
        nothing = np.empty(0, dtype=np.int64)
        pixels = [nothing if people.pixels is None else people.pixels.ravel() for people in found]
        true = [nothing if people.pixels is None else people.true_pixels for people in found]
        for part, of_what, values in (
            (self._pixels, of_samples, pixels),
            (self._true_pixels, self._images[of_samples], true),
        ):
            lengths = np.array([len(numbers) for numbers in values])
            part.put(Piece(of_what, lengths, {"pixels": np.concatenate(values)}, {}))

    def _parts(self) -> tuple[PackedResults, ...]:
        """See `Evaluator._parts`."""
        return self._found, self._pixels, self._true_pixels

    def _kept_samples(self) -> tuple[np.ndarray, np.ndarray]:
        """See `Evaluator._kept_samples`."""
        return self._truth.ids[self._images], self._truth.sizes[self._images]

    def _together(self, number: int) -> Found:
        """All results of image `number`, sample after sample."""
        samples = np.arange(self._first[number], self._first[number + 1])
        scores, keypoints, boxes = self._found.rows(samples, "scores", "keypoints", "boxes")
        has_keypoints, has_boxes, has_masks = (
            self._found.values[name][samples].all() for name in HAS
        )
        pixels = true_pixels = None
        if has_masks:
            people = self._truth.people(number)
            true_pixels = np.zeros(people.stop - people.start if self._truth.has_masks else 0)
            if len(samples):
                (true_pixels,) = self._true_pixels.rows(np.array([number]), "pixels")
            (pixels,) = self._pixels.rows(samples, "pixels")
            pixels = pixels.reshape(len(scores), 1 + len(true_pixels))
        return Found(
            scores,
            keypoints if has_keypoints else None,
            boxes if has_boxes else None,
            pixels,
            true_pixels,
        )
