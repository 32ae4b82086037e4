"""A padded batch of images of different sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NestedTensor:
    """Images (or feature maps) of different sizes, padded to one size.

    Attributes:
        tensors: [B, C, H, W], zero in the padding.
        mask: [B, H, W] bool, True in the padding.
        image_of_sample: [N] int64, of a batch of N >= B samples some of which have their image in
            common: which of the B images is whose; None: the samples have an image each.
    """

    tensors: Tensor
    mask: Tensor
    image_of_sample: Tensor | None = None

    @classmethod
    def from_list(
        cls,
        images: Sequence[Tensor],
        divisor: int = 16,
        sides: Sequence[int] = (),
        allocate: Callable[[tuple[int, ...]], Tensor] | None = None,
    ) -> NestedTensor:
        """Pad images [C, h, w] with zeros at the bottom and right.

        Args:
            images: images with the same number of channels, type and device.
            divisor: the common height and width are rounded up to a multiple of it.
            sides: before that, to the smallest of these that is large enough, if there is one.
            allocate: makes a tensor of a given shape and the images' type, with any content; None:
                as PyTorch does.

        Raises:
            ValueError: no images, or images that are not [C, h, w] with a common C and type.
        """
        if len(images) == 0:
            raise ValueError("NestedTensor.from_list needs at least one image, got none.")
        first = images[0]
        for i, image in enumerate(images):
            if image.dim() != 3 or (image.shape[0], image.dtype) != (first.shape[0], first.dtype):
                raise ValueError(
                    f"Image {i} of the batch has shape {tuple(image.shape)} and type "
                    f"{image.dtype}; expected [C, h, w] with the same C and type for the whole "
                    f"batch."
                )
        height = _padded(max(image.shape[1] for image in images), divisor, sides)
        width = _padded(max(image.shape[2] for image in images), divisor, sides)
        shape = (len(images), first.shape[0], height, width)
        tensors = first.new_empty(shape) if allocate is None else allocate(shape)
        mask = torch.ones(len(images), height, width, dtype=torch.bool, device=tensors.device)
        for image, place, own_mask in zip(images, tensors, mask, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
            own_mask[: image.shape[1], : image.shape[2]] = False
        batch = cls(tensors, mask)
        batch.clear_padding()
        return batch

    def clear_padding(self) -> None:
        """Make the padding of `tensors` zero, in place."""
        if self.tensors.device.type != "cpu":
            self.tensors.masked_fill_(self.mask[:, None], 0)
            return
        # Here the host need not wait for the sizes, and little is to be written.
        for image, (height, width) in zip(self.tensors, self._image_sizes().tolist(), strict=True):
            image[:, height:] = 0
            image[:, :height, width:] = 0

    @property
    def sizes(self) -> Tensor:
        """[N, 2] int64 unpadded (height, width) of every sample's image."""
        sizes = self._image_sizes()
        if self.image_of_sample is None:
            return sizes
        return sizes.index_select(0, self.image_of_sample)

    def _image_sizes(self) -> Tensor:
        """[B, 2] int64 unpadded (height, width) of every image."""
        height = (~self.mask[:, :, 0]).sum(1)
        width = (~self.mask[:, 0, :]).sum(1)
        return torch.stack([height, width], dim=1)

    def for_samples(self, maps: Sequence[NestedTensor]) -> list[NestedTensor]:
        """What was computed for the images, for the samples: [B, ...] maps → [N, ...] maps."""
        if self.image_of_sample is None:
            return list(maps)
        return [
            NestedTensor(
                part.tensors.index_select(0, self.image_of_sample),
                part.mask.index_select(0, self.image_of_sample),
            )
            for part in maps
        ]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> NestedTensor:
        """The same batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> NestedTensor:
        """The same batch in page-locked memory, for `DataLoader(pin_memory=True)`."""
        return self._each(Tensor.pin_memory)

    def _each(self, function: Callable[[Tensor], Tensor]) -> NestedTensor:
        image_of_sample = self.image_of_sample
        return NestedTensor(
            function(self.tensors),
            function(self.mask),
            None if image_of_sample is None else function(image_of_sample),
        )


def _padded(side: int, divisor: int, sides: Sequence[int]) -> int:
    side = min((candidate for candidate in sides if candidate >= side), default=side)
    return (side + divisor - 1) // divisor * divisor
