"""One image with its people: what the data sets hand to the transforms and the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torchvision.transforms.v2 import functional as F

from datasets.geometry import PendingImage
from util.images import IMAGENET_MEAN, IMAGENET_STD
from util.nested_tensor import NestedTensor

# Normalised value of each of the 256 values of a channel, [3, 256] float32
_NORMALIZED = F.normalize(
    F.to_dtype(
        torch.arange(256, dtype=torch.uint8)[None, None].expand(3, 1, 256),
        torch.float32,
        scale=True,
    ),
    mean=list(IMAGENET_MEAN),
    std=list(IMAGENET_STD),
).numpy()


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

    A *finished* sample, from `datasets.transforms.normalize`, is what `dataset[i]` yields:

    - image: [3, h, w] float32, ImageNet mean and standard deviation (the loaders' samples, from
      `datasets.transforms.finish`, leave that to `collate` and keep uint8);
    - target: boxes [P, 4] cxcywh in [0, 1], labels [P] int64, keypoints [P, K, 3] (x and y in
      [0, 1], visible 0 or 1; all three 0 where unlabelled), area [P] as a fraction of the
      image's, masks [P, h, w] bool (absent where none are loaded), scribble [12, 2] float32 pixels
      (absent without one), caption str (absent without one), image_id int, size [2] int64 (h, w),
      orig_size [2] int64 (height, width) of the file.

    P is at least 1 in training; in evaluation an image may be without people.
    """

    image: PendingImage | Tensor
    target: dict[str, Any]


def collate(
    samples: Sequence[Sample],
    divisor: int = 16,
    sides: Sequence[int] = (),
    share_images: bool = False,
) -> tuple[NestedTensor, list[dict]]:
    """Finished samples -> padded batch and its targets.

    Args:
        samples: N finished samples, at least one; images of uint8 are normalised here.
        divisor: the padded height and width are multiples of it.
        sides: see `NestedTensor.from_list`.
        share_images: samples that follow each other with the same pixels have one image in common.

    Returns:
        NestedTensor of [B, 3, H, W] float32 and the N target dicts. Padding is at the bottom and
        right, so that pixel coordinates of an image are pixel coordinates of the batch.  B is N, or
        less where images are shared; then `image_of_sample` tells which image is whose. In a
        loader's worker the batch is in shared memory from the start.
    """
    images: list[Tensor] = []
    image_of_sample = []
    for sample in samples:
        if not (share_images and images and torch.equal(images[-1], sample.image)):
            images.append(sample.image)
        image_of_sample.append(len(images) - 1)
    sizes = [tuple(image.shape[1:]) for image in images]
    batch = NestedTensor.with_room(sizes, 3, divisor, _allocate, sides)
    for image, padded, (height, width) in zip(images, batch.tensors, sizes, strict=True):
        place = padded[:, :height, :width]
        if image.dtype == torch.uint8:
            write_normalized(image, place)
        else:
            place.copy_(image)
    if len(images) < len(samples):
        batch = replace(batch, image_of_sample=torch.tensor(image_of_sample))
    return batch, [sample.target for sample in samples]


def write_normalized(image: Tensor, place: Tensor) -> None:
    """Normalise an image with ImageNet's mean and standard deviation, by table.

    Args:
        image: [3, h, w] uint8.
        place: [3, h, w] float32 to write to, the last dimension contiguous.
    """
    planes = cv2.split(image.permute(1, 2, 0).numpy(), list(np.empty(image.shape, np.uint8)))
    for plane, table, result in zip(planes, _NORMALIZED, place.numpy(), strict=True):
        cv2.LUT(plane, table, dst=result)


def _allocate(shape: tuple[int, ...]) -> Tensor:
    """A float32 tensor with any content; a worker's is one that the main process can map."""
    if get_worker_info() is None:
        return torch.empty(shape)
    # As PyTorch's own `default_collate` does: without it the finished batch is copied once more.
    storage = torch.UntypedStorage._new_shared(4 * math.prod(shape))
    return torch.empty(0).set_(storage, 0, shape)
