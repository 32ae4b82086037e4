"""Augmentation of raw samples (Appendix A.2).

Every function takes a raw `Sample` and returns a new one; nothing is changed in place. All random
draws come from the generator that is passed in. Pixel i of an image has the coordinate i, as in
COCO's keypoints; a flip therefore maps x to width - 1 - x, and edges of boxes to width - x.

What `TrainingTransform`, `EvaluationTransform` and `keep_size` return is *transformed*: its image
has been read; see `Sample`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.geometry import PersonMasks
from datasets.sample import Sample
from datasets.scribble import draw_scribble
from datasets.skeleton import COCO, Skeleton
from util.errors import UserError
from util.images import evaluation_size, size_for_shorter_side
from util.normalization import normalize_images

# A new scribble is drawn after a crop where the mask keeps more pixels than this.
MIN_MASK_FOR_SCRIBBLE = 100

# "left", "left-hand", "leftmost" ... but not "bright" or "upright"
_SIDE_WORD = re.compile(r"\b(left|right)(?=(?:most|hand|handed|wards?)?\b)", re.IGNORECASE)


# Fields of a raw target with one entry per person.
_PERSON_KEYS = ("boxes", "keypoints", "visible", "area", "labels")

# Fields of a raw target that are points (x, y).
_POINT_KEYS = ("keypoints", "scribble")


class EvaluationTransform:
    """Resize an image to a given longer or shorter side.

    Args:
        max_side: longer side in pixels; with `short_side`, the longest that the longer may be.
        short_side: shorter side in pixels; None: the longer side is `max_side`.
    """

    def __init__(self, max_side: int, short_side: int | None = None) -> None:
        self.max_side = max_side
        self.short_side = short_side

    def __call__(self, sample: Sample, generator: np.random.Generator | None = None) -> Sample:
        """Raw sample -> transformed sample; the generator is not used."""
        height, width = sample.image.size
        size = evaluation_size(height, width, self.max_side, self.short_side)
        return _read(resize(sample, *size))


def keep_size(sample: Sample, generator: np.random.Generator | None = None) -> Sample:
    """The transform that changes nothing: raw sample -> transformed sample."""
    return _read(sample)


class TrainingTransform:
    """The paper's augmentation: flip, then resize, or resize, crop and resize.

    Sides of the crop that the image does not have shrink to the image's.

    Args:
        short_sides: shorter sides of the final resize, in pixels; one is drawn.
        max_side: the longer side stays at most this.
        crop_short_sides: shorter sides of the resize before the crop; one is drawn.
        crop_range: smallest and largest side of the crop.
        flip_probability: of the horizontal flip.
        drop_cropped_keypoints: keypoints outside the crop become unlabelled; otherwise they move to
            its border and stay labelled, as published.
        draft_decoding: a JPEG of at least twice the size that is needed first may be decoded at a
            half, a quarter or an eighth of its size: pixels differ slightly, geometry does not.
        skeleton: keypoint definition, for the flip.

    Raises:
        UserError: a setting is empty or out of range.
    """

    def __init__(
        self,
        short_sides: Sequence[int],
        max_side: int,
        crop_short_sides: Sequence[int],
        crop_range: tuple[int, int],
        flip_probability: float = 0.5,
        drop_cropped_keypoints: bool = False,
        draft_decoding: bool = False,
        skeleton: Skeleton = COCO,
    ) -> None:
        for name, sides in (("short_sides", short_sides), ("crop_short_sides", crop_short_sides)):
            if len(sides) == 0 or min(sides) < 1:
                raise UserError(f"{name} has to list at least one positive side, got {sides}.")
        if len(crop_range) != 2 or not 1 <= crop_range[0] <= crop_range[1]:
            raise UserError(f"crop_range has to be (smallest, largest) side, got {crop_range}.")
        if not 0 <= flip_probability <= 1:
            raise UserError(f"flip_probability has to lie in [0, 1], got {flip_probability}.")
        self.short_sides = tuple(short_sides)
        self.max_side = max_side
        self.crop_short_sides = tuple(crop_short_sides)
        self.crop_range = tuple(crop_range)
        self.flip_probability = flip_probability
        self.drop_cropped_keypoints = drop_cropped_keypoints
        self.draft_decoding = draft_decoding
        self.skeleton = skeleton

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample | None:
        """Raw sample -> transformed sample, or None where nothing is left of its people.

        The crop may miss people, and masks of very small ones may vanish in the resize. The image
        is read only if somebody stays.
        """
        if generator.random() < self.flip_probability:
            sample = horizontal_flip(sample, self.skeleton)
        if generator.random() < 0.5:
            height, width = sample.image.size
            side = int(generator.choice(self.crop_short_sides))
            sample = resize(sample, *size_for_shorter_side(height, width, side))
            cropped = crop(
                sample,
                *self._draw_crop(*sample.image.size, generator),
                generator,
                drop_keypoints=self.drop_cropped_keypoints,
            )
            if cropped is None:
                return None
            sample = cropped
        height, width = sample.image.size
        side = int(generator.choice(self.short_sides))
        sample = resize(sample, *size_for_shorter_side(height, width, side, self.max_side))
        target = _keep_people(sample.target, _has_pixels(sample.target))
        return None if target is None else _read(Sample(sample.image, target), self.draft_decoding)

    def _draw_crop(
        self, height: int, width: int, generator: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Top, left, height and width of a random crop, in pixels."""
        smallest, largest = self.crop_range
        crop_height = int(generator.integers(min(smallest, height), min(largest, height) + 1))
        crop_width = int(generator.integers(min(smallest, width), min(largest, width) + 1))
        top = int(generator.integers(height - crop_height + 1))
        left = int(generator.integers(width - crop_width + 1))
        return top, left, crop_height, crop_width


def horizontal_flip(sample: Sample, skeleton: Skeleton = COCO) -> Sample:
    """Mirror the image, and with it the sides of the keypoints and of the caption's words."""
    width = sample.image.size[1]
    target = _moved(sample, PersonMasks.flip, (-1, 1), edges=(width, 0), centres=(width - 1, 0))
    target["boxes"] = target["boxes"][:, [2, 1, 0, 3]]
    permutation = list(skeleton.flip_permutation)
    target["keypoints"] = target["keypoints"][:, permutation]
    target["visible"] = target["visible"][:, permutation]
    if "caption" in target:
        target["caption"] = swap_sides(target["caption"])
    return Sample(sample.image.flip(), target)


def swap_sides(caption: str) -> str:
    """Exchange left and right as whole words ("left-hand", "Leftmost"), keeping capitals."""

    def other(match: re.Match[str]) -> str:
        word = match.group()
        swapped = "right" if word.lower() == "left" else "left"
        if word.isupper():
            return swapped.upper()
        return swapped.capitalize() if word[0].isupper() else swapped

    return _SIDE_WORD.sub(other, caption)


def resize(sample: Sample, height: int, width: int) -> Sample:
    """Resize the image to (height, width) pixels: antialiased bilinear, masks nearest."""
    old_height, old_width = old_size = sample.image.size
    if old_size == (height, width):
        return sample
    scale = (width / old_width, height / old_height)
    target = _moved(sample, lambda masks: masks.resize(height, width), scale)
    target["area"] = target["area"] * (height / old_height) * (width / old_width)
    return Sample(sample.image.resize(height, width), target)


def crop(
    sample: Sample,
    top: int,
    left: int,
    height: int,
    width: int,
    generator: np.random.Generator,
    drop_keypoints: bool = False,
) -> Sample | None:
    """Cut out a part of the image, and drop the people of whom nothing is left in it.

    An area shrinks by the same factor as the mask, or without masks as the box. Where scribble
    points are left outside the mask, a new scribble is drawn inside it; if the mask keeps too few
    pixels for that, the points move to its nearest pixels.

    Args:
        sample: raw sample.
        top: first row.
        left: first column.
        height: rows, inside the image.
        width: columns, inside the image.
        generator: for the new scribble.
        drop_keypoints: keypoints outside become unlabelled; otherwise they stay labelled. Either
            way they move to the border.

    Returns:
        Raw sample, or None where there were people and nothing is left of their boxes or masks.
    """
    box = (top, left, height, width)
    origin = (-left, -top)
    target = _moved(sample, lambda masks: masks.crop(*box), edges=origin, centres=origin)
    target["boxes"] = _clamped(target["boxes"], width, height)
    sizes_before, sizes_after = _sizes_of_people(sample.target), _sizes_of_people(target)
    share = (sizes_after / sizes_before.clamp(min=torch.finfo(torch.float64).eps)).float()
    target["area"] = target["area"] * share
    kept = _keep_people(target, (_box_areas(target["boxes"]) > 0) & _has_pixels(target))
    if kept is None:
        return None
    target = kept

    if drop_keypoints:
        x, y = target["keypoints"].unbind(-1)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        target["visible"] = target["visible"] & inside
    target["keypoints"] = _clamped(target["keypoints"], width - 1, height - 1)

    if "scribble" in target:
        mask = target["masks"].dense()[0].numpy()  # of the only person
        points = _scribble_inside(target["scribble"].numpy(), mask, generator)
        target["scribble"] = torch.from_numpy(points)
    return Sample(sample.image.crop(*box), target)


def _box_areas(boxes: Tensor) -> Tensor:
    """Boxes [P, 4] xyxy -> areas [P] float64 in square pixels, 0 where a side is missing."""
    sides = boxes.double().reshape(-1, 2, 2)
    return (sides[:, 1] - sides[:, 0]).clamp(min=0).prod(-1)


def _sizes_of_people(target: dict[str, Any]) -> Tensor:
    """[P] float64: pixels of the masks, or without masks areas of the boxes."""
    return target["masks"].counts().double() if "masks" in target else _box_areas(target["boxes"])


def _has_pixels(target: dict[str, Any]) -> Tensor:
    """[P] bool: whose mask is not empty; everybody where there are no masks."""
    if "masks" not in target:
        return torch.ones(len(target["boxes"]), dtype=torch.bool)
    return target["masks"].counts() > 0


def _keep_people(target: dict[str, Any], keep: Tensor) -> dict[str, Any] | None:
    """The target with some of its people, [P] bool; None where there were people and none stays."""
    if keep.all():  # also without people
        return target
    if not keep.any():
        return None
    kept = {**target, **{key: target[key][keep] for key in _PERSON_KEYS}}
    if "masks" in target:
        kept["masks"] = target["masks"].keep(keep.tolist())
    return kept


def _scribble_inside(
    points: np.ndarray, mask: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """The scribble [12, 2], or a new one where points are not on the (non-empty) mask [h, w]."""
    columns, rows = np.rint(points).astype(np.int64).T
    in_image = (columns >= 0) & (rows >= 0) & (columns < mask.shape[1]) & (rows < mask.shape[0])
    on_mask = in_image.copy()
    on_mask[in_image] = mask[rows[in_image], columns[in_image]]
    if on_mask.all():
        return points
    if np.count_nonzero(mask) > MIN_MASK_FOR_SCRIBBLE:
        return draw_scribble(mask, generator)
    mask_points = np.argwhere(mask)[:, ::-1].astype(np.float32)
    distances = np.square(points[:, None] - mask_points[None]).sum(-1)
    return np.where(on_mask[:, None], points, mask_points[distances.argmin(1)])


def _moved(
    sample: Sample,
    masks: Callable[[PersonMasks], PersonMasks],
    scale: tuple[float, float] = (1, 1),
    *,
    edges: tuple[float, float] = (0, 0),
    centres: tuple[float, float] = (0, 0),
) -> dict[str, Any]:
    """A copy of a raw target, with what follows the image's geometry moved.

    Args:
        sample: raw sample.
        masks: moves its masks.
        scale: of x and y.
        edges: what is then added to x and y of boxes, which are edges of pixels.
        centres: what is added to x and y of points, which are centres of pixels.
    """
    # NumPy's calls cost a fraction of PyTorch's on so few numbers.
    factors = np.array(scale, dtype=np.float32)
    target = dict(sample.target)
    corners = target["boxes"].numpy().reshape(-1, 2, 2) * factors
    corners += np.array(edges, dtype=np.float32)
    target["boxes"] = torch.from_numpy(corners.reshape(-1, 4))
    for key in _POINT_KEYS:
        if key in target:
            points = target[key].numpy() * factors
            points += np.array(centres, dtype=np.float32)
            target[key] = torch.from_numpy(points)
    if "masks" in target:
        target["masks"] = masks(target["masks"])
    return target


def _clamped(places: Tensor, x: float, y: float) -> Tensor:
    """Points or corners [..., 2n] with x and y moved into [0, x] and [0, y]."""
    pairs = places.numpy().reshape(-1, 2).clip(0, np.array((x, y), dtype=np.float32))
    return torch.from_numpy(pairs).view(places.shape)


def _read(sample: Sample, draft: bool = False) -> Sample:
    """Raw sample -> transformed sample: its image read, its masks whole; `draft` as in `pixels`."""
    target = dict(sample.target)
    if "masks" in target:
        target["masks"] = target["masks"].dense()
    return Sample(torch.from_numpy(sample.image.pixels(draft)).permute(2, 0, 1), target)


def finish(sample: Sample) -> Sample:
    """Transformed sample -> finished sample whose image is not normalised yet; see `Sample`."""
    height, width = sample.image.shape[-2:]
    target = dict(sample.target)
    sides = np.array((width, height), dtype=np.float32)
    corners = target["boxes"].numpy().reshape(-1, 2, 2)
    (x0, y0), (x1, y1) = corners[:, 0].T, corners[:, 1].T
    boxes = np.stack(((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0), axis=-1)
    visible = target.pop("visible").numpy()[..., None].astype(np.float32)
    keypoints = target["keypoints"].numpy() / sides * visible
    target["boxes"] = torch.from_numpy(boxes / np.tile(sides, 2))
    target["keypoints"] = torch.from_numpy(np.concatenate((keypoints, visible), axis=-1))
    target["area"] = target["area"] / (height * width)
    target["size"] = torch.tensor([height, width])
    return Sample(sample.image, target)


def normalize(sample: Sample) -> Sample:
    """Transformed sample -> finished sample with a normalised image; see `Sample` for both."""
    finished = finish(sample)
    return Sample(normalize_images(finished.image), finished.target)
