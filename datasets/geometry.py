"""Images and masks on their way through a sample's geometry, cheap until their pixels are wanted.

A raw sample is flipped, resized, cropped and resized again.  Its boxes and points follow at once.
The image only notes the steps and is read when all of them are known; the masks are kept as windows
around the people, since most of a mask is empty.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torchvision.transforms.v2 import functional as F

from datasets.annotations import encode_segmentation

# A reduced image is taken to be larger by this factor, so that a size which it has exactly is not
# lost to rounding; far below what moves a pixel.
_ROUNDING = 1 + 1e-12

# By these factors a JPEG can be reduced while it is decoded.
_REDUCTIONS = (2, 4, 8)


@dataclass(frozen=True)
class PendingImage:
    """An image that has not been read yet, and what is to be done to it; nothing changes in place.

    Attributes:
        read: called with `least` (height, width), or None for the image as it is stored; returns
            [h, w, 3] uint8 RGB of `stored_size` or, with `least`, possibly reduced by 2, 4 or 8 in
            both directions (rounded up), but not below `least`.
        stored_size: (height, width) of the stored image in pixels.
        size: (height, width) after the steps.
        steps: ("flip",), ("resize", height, width) or ("crop", top, left, height, width), in order.
    """

    read: Callable[[tuple[int, int] | None], np.ndarray]
    stored_size: tuple[int, int]
    size: tuple[int, int]
    steps: tuple[tuple[Any, ...], ...] = ()

    @classmethod
    def from_pixels(cls, pixels: np.ndarray) -> PendingImage:
        """Of pixels [h, w, 3] uint8 RGB that are there already."""
        return cls(lambda least: pixels, pixels.shape[:2], pixels.shape[:2])

    def flip(self) -> PendingImage:
        """Mirrored, left and right exchanged."""
        return replace(self, steps=(*self.steps, ("flip",)))

    def resize(self, height: int, width: int) -> PendingImage:
        """Resized to (height, width) pixels, antialiased bilinear."""
        return replace(self, size=(height, width), steps=(*self.steps, ("resize", height, width)))

    def crop(self, top: int, left: int, height: int, width: int) -> PendingImage:
        """The rows from `top` and columns from `left`, a part of the image."""
        step = ("crop", top, left, height, width)
        return replace(self, size=(height, width), steps=(*self.steps, step))

    def pixels(self, draft: bool = False) -> np.ndarray:
        """Read the image and do the steps.

        Args:
            draft: the image may be decoded at a half, a quarter or an eighth of its size where its
                first resize does not need more.  Pixels then differ slightly, geometry does not.

        Returns:
            [h, w, 3] uint8 RGB.

        Raises:
            MissingFileError, UserError: of `read`.
        """
        steps = list(self.steps)
        flips = next((i for i, step in enumerate(steps) if step[0] != "flip"), len(steps))
        least = None
        if draft and flips < len(steps) and steps[flips][0] == "resize":
            least = steps[flips][1:]
        pixels = self.read(least)
        if pixels.shape[:2] != self.stored_size:
            # A reduced image ends inside its last row and column, so that it is flipped afterwards.
            pixels = _resize_reduced(pixels, self.stored_size, least)
            steps = steps[:flips] + steps[flips + 1 :]
        for name, *arguments in steps:
            if name == "flip":
                pixels = cv2.flip(pixels, 1)
            elif name == "resize":
                pixels = _resize(pixels, *arguments)
            else:
                top, left, height, width = arguments
                # In one block: PyTorch resizes anything else the slow way.
                part = pixels[top : top + height, left : left + width]
                pixels = np.ascontiguousarray(part)
        return pixels


def _resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """[h, w, 3] uint8 to (height, width): torchvision's resize, spared the change of layout."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    return F.resize_image(image, [height, width], antialias=True).permute(1, 2, 0).numpy()


def _resize_reduced(
    pixels: np.ndarray, stored_size: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """The same for an image that was reduced while it was decoded.

    Args:
        pixels: [ceil(h / r), ceil(w / r), 3] uint8 for r in 2, 4, 8.
        stored_size: (h, w); where r does not divide them, the last row or column of `pixels` is
            only in part of the image.
        size: (height, width) that the image, not that row or column, is to have.
    """
    (height, width), (new_height, new_width) = stored_size, size
    reduction = next(
        r for r in _REDUCTIONS if pixels.shape[:2] == (-(-height // r), -(-width // r))
    )
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None],
        scale_factor=(
            new_height * reduction / height * _ROUNDING,
            new_width * reduction / width * _ROUNDING,
        ),
        mode="bilinear",
        antialias=True,
    )
    return resized[0, :, :new_height, :new_width].permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class PersonMasks:
    """Masks of P people, each kept as the window that it does not leave; nothing changes in place.

    Attributes:
        size: (height, width) of the image in pixels.
        windows: for each person the window's top row, left column and pixels [h, w] uint8, 0 or 1;
            the window may be empty.
    """

    size: tuple[int, int]
    windows: tuple[tuple[int, int, np.ndarray], ...]

    @classmethod
    def from_segmentations(
        cls, segmentations: Iterable[Any], height: int, width: int, name: str
    ) -> PersonMasks:
        """Draw COCO segmentations; see `datasets.annotations.encode_segmentation`.

        Raises:
            UserError: one of them is neither polygons nor an RLE of this size.
        """
        windows = []
        for segmentation in segmentations:
            code = encode_segmentation(segmentation, height, width, name)
            left, top, w, h = (int(value) for value in coco_mask.toBbox(code))
            # COCO's masks lie in memory column by column.
            columns = coco_mask.decode(code).T[left : left + w, top : top + h]
            windows.append((top, left, _transpose(columns)))
        return cls((height, width), tuple(windows))

    def __len__(self) -> int:
        return len(self.windows)

    def flip(self) -> PersonMasks:
        """Mirrored, left and right exchanged."""
        height, width = self.size
        return PersonMasks(
            self.size,
            tuple(
                (top, width - left - window.shape[1], np.ascontiguousarray(window[:, ::-1]))
                for top, left, window in self.windows
            ),
        )

    def resize(self, height: int, width: int) -> PersonMasks:
        """Resized to (height, width) pixels: nearest neighbour, as `torch.nn.functional` does."""
        rows = _nearest(self.size[0], height)
        columns = _nearest(self.size[1], width)
        windows = []
        for top, left, window in self.windows:
            first_row, last_row = np.searchsorted(rows, (top, top + window.shape[0]))
            first, last = np.searchsorted(columns, (left, left + window.shape[1]))
            # Two copies of whole rows, which are faster than one of single pixels.
            by_column = _transpose(window)[columns[first:last] - left]
            resized = _transpose(by_column)[rows[first_row:last_row] - top]
            windows.append((int(first_row), int(first), resized))
        return PersonMasks((height, width), tuple(windows))

    def crop(self, top: int, left: int, height: int, width: int) -> PersonMasks:
        """The rows from `top` and columns from `left`, a part of the image."""
        windows = []
        for own_top, own_left, window in self.windows:
            first_row, first = max(top - own_top, 0), max(left - own_left, 0)
            last_row, last = (max(top + height - own_top, 0), max(left + width - own_left, 0))
            part = window[first_row:last_row, first:last]
            windows.append((max(own_top - top, 0), max(own_left - left, 0), part))
        return PersonMasks((height, width), tuple(windows))

    def keep(self, which: Sequence[bool]) -> PersonMasks:
        """Of some of the people, P flags."""
        kept = (window for window, stays in zip(self.windows, which, strict=True) if stays)
        return PersonMasks(self.size, tuple(kept))

    def counts(self) -> torch.Tensor:
        """[P] int64: how many pixels each mask has."""
        counts = [cv2.countNonZero(w) if w.size else 0 for _, _, w in self.windows]
        return torch.tensor(counts, dtype=torch.int64)

    def dense(self) -> torch.Tensor:
        """[P, height, width] bool."""
        masks = np.zeros((len(self), *self.size), dtype=np.uint8)
        for mask, (top, left, window) in zip(masks, self.windows, strict=True):
            mask[top : top + window.shape[0], left : left + window.shape[1]] = window
        return torch.from_numpy(masks.view(bool))


def _transpose(window: np.ndarray) -> np.ndarray:
    """[h, w] uint8 -> [w, h], contiguous; OpenCV's is several times as fast as NumPy's copy."""
    return cv2.transpose(window) if window.size else np.zeros(window.shape[::-1], np.uint8)


@functools.lru_cache(maxsize=512)
def _nearest(old: int, new: int) -> np.ndarray:
    """Which of `old` pixels each of `new` ones takes, [new] int64; PyTorch's own choice."""
    positions = torch.arange(old, dtype=torch.float32)[None, None]
    return torch.nn.functional.interpolate(positions, size=new)[0, 0].long().numpy()
