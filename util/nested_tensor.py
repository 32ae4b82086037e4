"""A padded batch of images of different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NestedTensor:
    """Images (or feature maps) of different sizes, padded to one size.

    Attributes:
        tensors: [B, C, H, W], zero in the padding.
        mask: [B, H, W] bool, True in the padding.
    """

    tensors: Tensor
    mask: Tensor

    @classmethod
    def from_list(cls, images: Sequence[Tensor], divisor: int = 16) -> NestedTensor:
        """Pad images [C, h, w] with zeros at the bottom and right.

        Args:
            images: images with the same number of channels.
            divisor: the common height and width are rounded up to a multiple of it.

        Raises:
            ValueError: no images, or images that are not [C, h, w] with a common C.
        """
        if len(images) == 0:
            raise ValueError("NestedTensor.from_list needs at least one image, got none.")
        channels = images[0].shape[0] if images[0].dim() == 3 else None
        for i, image in enumerate(images):
            if image.dim() != 3 or image.shape[0] != channels:
                raise ValueError(
                    f"Image {i} of the batch has shape {tuple(image.shape)}; expected "
                    f"[C, h, w] with the same C for the whole batch."
                )
        height = max(image.shape[1] for image in images)
        width = max(image.shape[2] for image in images)
        height = (height + divisor - 1) // divisor * divisor
        width = (width + divisor - 1) // divisor * divisor
        tensors = images[0].new_zeros(len(images), channels, height, width)
        mask = torch.ones(len(images), height, width, dtype=torch.bool, device=tensors.device)
        for i, image in enumerate(images):
            tensors[i, :, : image.shape[1], : image.shape[2]] = image
            mask[i, : image.shape[1], : image.shape[2]] = False
        return cls(tensors, mask)

    @property
    def sizes(self) -> Tensor:
        """[B, 2] int64 unpadded (height, width) of every image."""
        height = (~self.mask[:, :, 0]).sum(1)
        width = (~self.mask[:, 0, :]).sum(1)
        return torch.stack([height, width], dim=1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> NestedTensor:
        """The same batch on another device."""
        return NestedTensor(
            self.tensors.to(device, non_blocking=non_blocking),
            self.mask.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> NestedTensor:
        """The same batch in page-locked memory, for `DataLoader(pin_memory=True)`."""
        return NestedTensor(self.tensors.pin_memory(), self.mask.pin_memory())
