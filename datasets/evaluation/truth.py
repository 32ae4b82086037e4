"""The ground truth of an evaluation, packed into arrays that all its variants share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from datasets.annotations import PackedList, encode_segmentation
from datasets.skeleton import Skeleton


@dataclass(frozen=True)
class TrueMask:
    """The mask of a person.

    Attributes:
        window: rows and columns of the image outside of which the mask is empty.
        inside: bool, the mask in the window.
        area: number of its pixels.
    """

    window: tuple[slice, slice]
    inside: Tensor
    area: int


class Truth:
    """N images and the M people in them: what results are compared with.

    A Python object per number would take ten times the memory of all results.

    Args:
        images: COCO-style entries: `id`, `height`, `width`.
        annotations: of people, COCO-style: `image_id`, `bbox`, `area`, `keypoints` and, where masks
            are judged, `segmentation`; those of other images are left out.
        skeleton: keypoint definition, K keypoints.

    Attributes:
        ids: [N] int64.
        sizes: [N, 2] int64 (height, width).
        boxes: [M, 4] float64 (x, y, width, height); an image's people lie side by side.
        areas: [M] float64.
        keypoints: [M, K, 3] float64 (x, y, COCO visibility).
        crowd: [M] bool, a region rather than a person.
        has_masks: everybody has a segmentation.
    """

    def __init__(
        self,
        images: Sequence[Mapping[str, Any]],
        annotations: Sequence[Mapping[str, Any]],
        skeleton: Skeleton,
    ) -> None:
        self.ids = np.array([image["id"] for image in images], dtype=np.int64)
        self.sizes = np.array([(image["height"], image["width"]) for image in images])
        self.sizes = self.sizes.reshape(-1, 2)
        self._numbers = {int(image_id): number for number, image_id in enumerate(self.ids)}
        people = [a for a in annotations if a["image_id"] in self._numbers]
        people.sort(key=lambda annotation: self._numbers[annotation["image_id"]])
        owners = [self._numbers[annotation["image_id"]] for annotation in people]
        self._first = np.searchsorted(owners, np.arange(len(images) + 1))
        self.boxes = np.array([a["bbox"] for a in people], dtype=np.float64).reshape(-1, 4)
        self.areas = np.array([a["area"] for a in people], dtype=np.float64)
        self.keypoints = np.empty((len(people), skeleton.num_keypoints, 3))
        for keypoints, annotation in zip(self.keypoints, people, strict=True):
            keypoints[:] = true_keypoints(annotation)
        self.crowd = np.array([bool(a.get("iscrowd", 0)) for a in people], dtype=bool)
        self.has_masks = all("segmentation" in annotation for annotation in people)
        self._segmentations = PackedList([a.get("segmentation") for a in people])
        self._drawn: tuple[Any, list[list[TrueMask]]] = (None, [])

    def __len__(self) -> int:
        return len(self.ids)

    def number(self, image_id: int) -> int:
        """Position of an image among `ids`.

        Raises:
            ValueError: there is no such image.
        """
        number = self._numbers.get(image_id)
        if number is None:
            raise ValueError(f"Image id {image_id} is not in the ground truth.")
        return number

    def people(self, number: int) -> slice:
        """Where the people of image `number` are in the arrays, in the annotations' order."""
        return slice(int(self._first[number]), int(self._first[number + 1]))

    def people_of(self, numbers: np.ndarray) -> np.ndarray:
        """Positions of all people of several images."""
        parts = [np.arange(self._first[i], self._first[i + 1]) for i in numbers]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def masks(self, numbers: Sequence[int], device: torch.device) -> list[list[TrueMask]]:
        """The masks of everybody in several images, on `device`.

        The last answer is kept: the variants of an evaluation ask for the same images in turns.

        Raises:
            UserError: a segmentation is missing or broken.
        """
        question = (tuple(numbers), device)
        if self._drawn[0] != question:
            once = {number: self._masks_of(number, device) for number in dict.fromkeys(numbers)}
            self._drawn = (question, [once[number] for number in numbers])
        return self._drawn[1]

    def _masks_of(self, number: int, device: torch.device) -> list[TrueMask]:
        people = self.people(number)
        return [self._mask(number, i, device) for i in range(people.start, people.stop)]

    def _mask(self, number: int, person: int, device: torch.device) -> TrueMask:
        height, width = self.sizes[number].tolist()
        name = f"image id {self.ids[number]}"
        code = encode_segmentation(self._segmentations[person], height, width, name)
        x, y, w, h = (int(value) for value in coco_mask.toBbox(code))
        window = (slice(y, y + h), slice(x, x + w))
        inside = torch.from_numpy(np.ascontiguousarray(coco_mask.decode(code)[window]))
        return TrueMask(
            window, inside.bool().to(device, non_blocking=True), int(coco_mask.area(code))
        )


def true_keypoints(annotation: Mapping[str, Any]) -> np.ndarray:
    """[K, 3] float64 (x, y, COCO visibility) of an annotation or a person."""
    return np.array(annotation["keypoints"], dtype=np.float64).reshape(-1, 3)
