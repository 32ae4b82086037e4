"""One image with its people: what the data sets hand to the transforms and the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

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

    A *finished* sample, from `datasets.transforms.normalize`, is what `dataset[i]` yields:

    - image: [3, h, w] float32, ImageNet mean and standard deviation (the loaders' samples, from
      `datasets.transforms.finish`, and their batches keep uint8 until they are on the model's
      device: `util.normalization.normalize_batch`);
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
        samples: N finished samples, at least one, with images of one type.
        divisor: the padded height and width are multiples of it.
        sides: see `NestedTensor.from_list`.
        share_images: samples that follow each other with the same pixels have one image in common.

    Returns:
        NestedTensor of [B, 3, H, W] of the images' type and the N target dicts. Padding is at the
        bottom and right, so that pixel coordinates of an image are pixel coordinates of the batch.
        B is N, or less where images are shared; then `image_of_sample` tells which image is whose.
        In a loader's worker the batch is in shared memory from the start.
    """
    images: list[Tensor] = []
    image_of_sample = []
    for sample in samples:
        if not (share_images and images and torch.equal(images[-1], sample.image)):
            images.append(sample.image)
        image_of_sample.append(len(images) - 1)
    allocate = partial(_allocate, dtype=images[0].dtype)
    batch = NestedTensor.from_list(images, divisor, sides, allocate)
    if len(images) < len(samples):
        batch = replace(batch, image_of_sample=torch.tensor(image_of_sample))
    return batch, [sample.target for sample in samples]


def _allocate(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor with any content; a worker's is one that the main process can map."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    # As PyTorch's own `default_collate` does: without it the finished batch is copied once more.
    storage = torch.UntypedStorage._new_shared(dtype.itemsize * math.prod(shape))
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)
