"""One image with its people: what the data sets hand to the transforms and the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from util.nested_tensor import NestedTensor


@dataclass(frozen=True)
class Sample:
    """One image with P people, K keypoints; a data set with prompts has exactly one, who is meant.

    A *raw* sample, from `datasets.base.make_sample` and through the transforms:

    - image: [3, h, w] uint8 `tv_tensors.Image`;
    - target, in pixels of that image, (x, y), origin in the top left corner:
      boxes [P, 4] xyxy `BoundingBoxes`, keypoints [P, K, 2] `KeyPoints`, visible [P, K] bool
      (labelled), masks [P, h, w] bool `Mask` (absent where none are loaded), area [P] square
      pixels, labels [P] int64 (all 1), scribble [12, 2] `KeyPoints` (absent without one), caption
      str (absent without one), image_id int, orig_size [2] int64 (height, width) of the image file.

    A *finished* sample, from `datasets.transforms.normalize`, is what the data sets yield:

    - image: [3, h, w] float32, ImageNet mean and standard deviation;
    - target: boxes [P, 4] cxcywh in [0, 1], labels [P] int64, keypoints [P, K, 3] (x and y in
      [0, 1], visible 0 or 1; all three 0 where unlabelled), area [P] as a fraction of the
      image's, masks [P, h, w] bool (absent where none are loaded), scribble [12, 2] float32 pixels
      (absent without one), caption str (absent without one), image_id int, size [2] int64 (h, w),
      orig_size [2] int64 (height, width) of the file.

    P is at least 1 in training; in evaluation an image may be without people.
    """

    image: Tensor
    target: dict[str, Any]


def collate(
    samples: Sequence[Sample], divisor: int = 16, share_images: bool = False
) -> tuple[NestedTensor, list[dict]]:
    """Finished samples -> padded batch and its targets.

    Args:
        samples: N finished samples.
        divisor: the padded height and width are multiples of it.
        share_images: samples that follow each other with the same pixels have one image in common.

    Returns:
        NestedTensor of [B, 3, H, W] and the N target dicts. Padding is at the bottom and right, so
        that pixel coordinates of an image are pixel coordinates of the batch.  B is N, or less
        where images are shared; then `image_of_sample` tells which image is whose.
    """
    images: list[Tensor] = []
    image_of_sample = []
    for sample in samples:
        if not (share_images and images and torch.equal(images[-1], sample.image)):
            images.append(sample.image)
        image_of_sample.append(len(images) - 1)
    batch = NestedTensor.from_list(images, divisor=divisor)
    if len(images) < len(samples):
        batch = replace(batch, image_of_sample=torch.tensor(image_of_sample))
    return batch, [sample.target for sample in samples]
