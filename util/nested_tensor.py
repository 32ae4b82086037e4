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
        cls, images: Sequence[Tensor], divisor: int = 16, sides: Sequence[int] = ()
    ) -> NestedTensor:
        """Pad images [C, h, w] with zeros at the bottom and right.

        Args:
            images: images with the same number of channels.
            divisor: the common height and width are rounded up to a multiple of it.
            sides: before that, to the smallest of these that is large enough, if there is one.

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
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        batch = cls.with_room(sizes, channels, divisor, images[0].new_empty, sides)
        for i, image in enumerate(images):
            batch.tensors[i, :, : image.shape[1], : image.shape[2]] = image
        return batch

    @classmethod
    def with_room(
        cls,
        sizes: Sequence[tuple[int, int]],
        channels: int,
        divisor: int,
        allocate: Callable[[tuple[int, ...]], Tensor],
        sides: Sequence[int] = (),
    ) -> NestedTensor:
        """A batch whose padding is there, with room for images that are still to be written.

        Args:
            sizes: (h, w) of every image, at least one.
            channels: of the images.
            divisor: as in `from_list`.
            allocate: makes a tensor of a given shape, with any content.
            sides: as in `from_list`.
        """
        height = _padded(max(height for height, _ in sizes), divisor, sides)
        width = _padded(max(width for _, width in sizes), divisor, sides)
        tensors = allocate((len(sizes), channels, height, width))
        mask = torch.ones(len(sizes), height, width, dtype=torch.bool, device=tensors.device)
        for image, own_mask, (own_height, own_width) in zip(tensors, mask, sizes, strict=True):
            image[:, own_height:] = 0
            image[:, :own_height, own_width:] = 0
            own_mask[:own_height, :own_width] = False
        return cls(tensors, mask)

    @property
    def sizes(self) -> Tensor:
        """[N, 2] int64 unpadded (height, width) of every sample's image."""
        height = (~self.mask[:, :, 0]).sum(1)
        width = (~self.mask[:, 0, :]).sum(1)
        sizes = torch.stack([height, width], dim=1)
        if self.image_of_sample is None:
            return sizes
        return sizes.index_select(0, self.image_of_sample)

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
