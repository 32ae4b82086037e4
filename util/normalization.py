"""ImageNet's normalisation, done where the model is: batches travel as bytes."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import cv2
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from util.images import IMAGENET_MEAN, IMAGENET_STD
from util.nested_tensor import NestedTensor


def _arithmetic(images: Tensor) -> Tensor:
    values = F.to_dtype(images, torch.float32, scale=True)
    # torchvision's `normalize` makes the host wait: it moves mean and deviation to the device.
    for channel, mean, std in zip(values.unbind(-3), IMAGENET_MEAN, IMAGENET_STD, strict=True):
        channel.sub_(mean).div_(std)
    return values


# What becomes of each of the 256 values of a channel, [3, 256] float32
_TABLES = _arithmetic(torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)).reshape(3, 256)


def normalize_images(images: Tensor) -> Tensor:
    """Normalise with ImageNet's mean and standard deviation.

    Args:
        images: [..., 3, h, w] uint8 RGB.

    Returns:
        [..., 3, h, w] float32 on the same device.
    """
    if images.device.type != "cpu":
        return _arithmetic(images)
    # The same numbers in a quarter of the time.
    result = torch.empty(images.shape)
    planes = images.reshape(-1, *images.shape[-2:]).contiguous().numpy()
    places = result.view(-1, *images.shape[-2:]).numpy()
    for plane, place, table in zip(planes, places, cycle(_TABLES.numpy()), strict=False):
        cv2.LUT(plane, table, dst=place)
    return result


def normalize_batch(batch: NestedTensor) -> NestedTensor:
    """The batch of a loader as the model expects it.

    Args:
        batch: images [B, 3, H, W] of uint8, padded; those of floats are normalised already.

    Returns:
        The batch with images of float32 on the same device, zero in the padding.
    """
    if batch.tensors.dtype != torch.uint8:
        return batch
    normalized = replace(batch, tensors=normalize_images(batch.tensors))
    normalized.clear_padding()
    return normalized
