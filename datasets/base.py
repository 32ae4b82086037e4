"""What all data sets of people have in common: random streams, transforms, replaced samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.evaluation import Evaluator
from datasets.geometry import PendingImage, PersonMasks
from datasets.sample import Sample
from datasets.skeleton import COCO, Skeleton
from datasets.transforms import finish, normalize
from util.errors import UserError
from util.images import load_image

# Draws of another sample after the people of the first one were cropped away.
_MAX_ATTEMPTS = 100

# Keeps the samples' random streams apart from others of (seed, epoch, number).
_STREAM = 0x5A4D

# (raw sample, generator) -> transformed sample, or None where nobody is left.
Transform = Callable[[Sample, np.random.Generator], Sample | None]


def image_of_entry(folder: Path, image_entry: dict[str, Any]) -> PendingImage:
    """The image of an annotation file's entry, yet to be read.

    Args:
        folder: of the images.
        image_entry: `id`, `file_name`, `height`, `width`. Reading the image raises MissingFileError
            or UserError, with this id, where the file is missing or broken or of another size.
    """
    size = (image_entry["height"], image_entry["width"])
    path, name = folder / image_entry["file_name"], f"image id {image_entry['id']}"

    def read(least: tuple[int, int] | None) -> np.ndarray:
        try:
            return load_image(path, size=size, least=least)
        except UserError as error:
            # Of the same type and made of a text alone: it may have to leave a loader's worker.
            raise type(error)(f"{name}: {error}") from error

    return PendingImage(read, size, size)


def make_sample(
    image: np.ndarray | PendingImage,
    image_entry: dict[str, Any],
    people: Sequence[dict[str, Any]],
    *,
    skeleton: Skeleton = COCO,
    with_masks: bool = True,
) -> Sample:
    """Turn an image and the annotations of its people into a raw sample.

    Args:
        image: [h, w, 3] uint8 RGB, or an image that is yet to be read.
        image_entry: `id`, `height`, `width`.
        people: P >= 0 annotations: `bbox` [x, y, w, h], `area`, `keypoints` 3K numbers, and, with
            masks, `segmentation` (polygons or COCO RLE).
        skeleton: keypoint definition, K keypoints.
        with_masks: decode the segmentations; otherwise the sample has no `masks`.

    Raises:
        UserError: image and entry differ in size, or the polygons cannot be drawn.
    """
    if isinstance(image, np.ndarray):
        image = PendingImage.from_pixels(image)
    height, width = image.size
    name = f"image id {image_entry['id']}"
    if (height, width) != (image_entry["height"], image_entry["width"]):
        raise UserError(
            f"{name}: the image is {width}x{height} pixels (width x height), its entry says "
            f"{image_entry['width']}x{image_entry['height']}."
        )
    count = len(people)
    boxes = np.array([person["bbox"] for person in people], dtype=np.float64).reshape(count, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes = boxes.clip(0, [width, height, width, height])
    keypoints = np.array([person["keypoints"] for person in people], dtype=np.float32)
    keypoints = keypoints.reshape(count, skeleton.num_keypoints, 3)
    target: dict[str, Any] = {
        "boxes": torch.from_numpy(boxes).float(),
        "keypoints": torch.from_numpy(keypoints[..., :2].copy()),
        "visible": torch.from_numpy(keypoints[..., 2] > 0),
        "area": torch.tensor([person["area"] for person in people], dtype=torch.float32),
        "labels": torch.ones(count, dtype=torch.int64),
        "image_id": int(image_entry["id"]),
        "orig_size": torch.tensor([height, width]),
    }
    if with_masks:
        segmentations = (person["segmentation"] for person in people)
        target["masks"] = PersonMasks.from_segmentations(segmentations, height, width, name)
    return Sample(image, target)


class PeopleDataset(Dataset[Sample]):
    """An image with its people -> transforms -> finished sample.

    Subclasses provide `__len__`, `raw_sample`, `image_groups`, `ground_truth` and `make_evaluator`.

    Every random draw of a sample comes from the stream of (seed, epoch, index): the samples do not
    depend on the number of workers or processes, and no two samples share a stream.

    Args:
        transform: (raw sample, generator) -> transformed sample, or None where nobody is left.
        training: augment, and replace a sample whose people were all cropped away by another one.
        seed: of the random streams, not negative.
        skeleton: keypoint definition.

    Attributes:
        has_prompts: whether the samples have one person each, and what prompts are made of.
    """

    has_prompts: ClassVar[bool] = False

    def __init__(
        self,
        transform: Transform,
        *,
        training: bool,
        seed: int = 0,
        skeleton: Skeleton = COCO,
    ) -> None:
        self.transform = transform
        self.training = training
        self.seed = seed
        self.skeleton = skeleton
        # In shared memory: the loader's workers, who have copies of the data set, live on.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        raise NotImplementedError

    def raw_sample(self, index: int, generator: np.random.Generator) -> Sample:
        """Raw sample `index`; `generator` is the source of what training draws."""
        raise NotImplementedError

    def image_groups(self) -> list[list[Sequence[int]]]:
        """For every image, for every person in it that samples are of, these samples.

        Every sample is in it once. Without prompts a sample is a whole image: [[[0]], [[1]], ...].
        """
        raise NotImplementedError

    def ground_truth(self) -> dict[str, Any]:
        """COCO-style dict for evaluation: images, annotations, categories, optionally people."""
        raise NotImplementedError

    def make_evaluator(self) -> Evaluator:
        """A fresh evaluator of results on this data set."""
        raise NotImplementedError

    @property
    def epoch(self) -> int:
        """The epoch whose samples are read, 0 at first."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's random streams, for the workers of running loaders as well.

        Call it before a loader is iterated over, not in between.
        """
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Sample:
        """Finished sample `index` of this epoch, 0 <= index < len(self).

        Raises:
            IndexError: there is no such sample.
            UserError: no sample survives the crop, or an image or annotation is broken.
        """
        return normalize(self._transformed(index))

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """What a loader asks for: finished samples whose images are still bytes; see `Sample`."""
        return [finish(self._transformed(index)) for index in indices]

    def _transformed(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"Sample {index} of a data set of {len(self)}.")
        generator = np.random.default_rng((self.seed, self.epoch, index, _STREAM))
        chosen = index
        for _ in range(_MAX_ATTEMPTS):
            transformed = self.transform(self.raw_sample(chosen, generator), generator)
            if transformed is not None:
                return transformed
            chosen = int(generator.integers(len(self)))
        raise UserError(
            f"{type(self).__name__}: {_MAX_ATTEMPTS} samples in a row, starting at index {index}, "
            f"lost their people to the crop; raise crop_range or set augment=False."
        )
