"""One image with its people: what the data sets hand to the transforms and the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from datasets.geometry import PendingImage
from util.nested_tensor import NestedTensor


@dataclass(frozen=True)
class Sample:
    """One image with P people, K keypoints; a data set with prompts has exactly one, who is meant.

    A *raw* sample, from `datasets.base.make_sample` to the last of the transforms' steps:

    - image: `PendingImage` of (h, w) pixels, not read yet;
    - target, in pixels of that image, (x, y), origin in the top left corner:
      boxes [P, 4] float32 xyxy, keypoints [P, K, 2] float32, visible [P, K] bool (labelled), masks
      `PersonMasks` of P people (absent where none are loaded), area [P] float32 square pixels,
      labels [P] int64 (all 1), scribble [12, 2] float32 (absent without one), caption str (absent
      without one), image_id int, orig_size [2] int64 (height, width) of the image file.

    A *transformed* sample, from the transforms, differs in

    - image: [3, h, w] uint8, usually with its channels last in memory;
    - target: masks [P, h, w] bool.

    A *finished* sample, from `datasets.transforms.normalize`, is what the data sets yield:

    - image: [3, h, w] float32, ImageNet mean and standard deviation;
    - target: boxes [P, 4] cxcywh in [0, 1], labels [P] int64, keypoints [P, K, 3] (x and y in
      [0, 1], visible 0 or 1; all three 0 where unlabelled), area [P] as a fraction of the
      image's, masks [P, h, w] bool (absent where none are loaded), scribble [12, 2] float32 pixels
      (absent without one), caption str (absent without one), image_id int, size [2] int64 (h, w),
      orig_size [2] int64 (height, width) of the file.

    P is at least 1 in training; in evaluation an image may be without people.
    """

    image: PendingImage | Tensor
    target: dict[str, Any]


def collate(samples: Sequence[Sample], divisor: int = 16) -> tuple[NestedTensor, list[dict]]:
    """Finished samples -> padded batch and its targets.

    Args:
        samples: B finished samples.
        divisor: the padded height and width are multiples of it.

    Returns:
        NestedTensor of [B, 3, H, W] and the B target dicts. Padding is at the bottom and right, so
        that pixel coordinates of an image are pixel coordinates of the batch.
    """
    images = NestedTensor.from_list([sample.image for sample in samples], divisor=divisor)
    return images, [sample.target for sample in samples]
