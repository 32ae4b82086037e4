"""Scribbles inside a mask: a cubic Bezier curve through a person, given by 12 points.

RefHuman stores five scribbles per person.  A new one is drawn where an augmentation has cut the
stored one off, and the synthetic data set draws all of its scribbles here.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

NUM_POINTS = 12
"""Points of a scribble."""

EROSIONS = (10, 8, 6, 4, 2, 0)
"""Sides, in pixels, of the square that the mask is eroded with; the first that leaves enough."""

_MIN_KEPT_FRACTION = 0.1  # an erosion that leaves less of the mask than this is "too little"
_NUM_CONTROL_POINTS = 4
_NUM_ATTEMPTS = 8

# Bernstein basis of a cubic curve at NUM_POINTS equal steps, [NUM_POINTS, 4]
_STEPS = np.linspace(0.0, 1.0, NUM_POINTS)[:, None]
_BASIS = np.concatenate(
    (
        (1 - _STEPS) ** 3,
        3 * (1 - _STEPS) ** 2 * _STEPS,
        3 * (1 - _STEPS) * _STEPS**2,
        _STEPS**3,
    ),
    axis=1,
)


def draw_scribbles(mask: np.ndarray, generator: np.random.Generator, count: int) -> np.ndarray:
    """Draws random scribbles inside a mask.

    The mask is eroded with a square of 10 pixels, or a smaller one where less than a tenth of it
    would be left; four random pixels of the rest, ordered from top to bottom, are the control
    points of a cubic Bezier curve, and the scribble is that curve at 12 equal parameter steps.

    The curve of four points inside a concave mask (legs apart, an arm raised) may leave the mask.
    Eight curves are tried and the first that stays inside is taken; where none does, the one with
    the most points inside is taken and its other points move to the nearest pixel of the mask. All
    returned points therefore lie on the mask; the line between two of them need not.

    Args:
        mask: [h, w], bool or anything that is non-zero inside.
        generator: the source of all randomness; the same state gives the same scribbles, however
            many of them are drawn at once.
        count: of scribbles.

    Returns:
        float32 [count, 12, 2], (x, y) in whole pixels: `mask[y, x]` is True for each of them.

    Raises:
        ValueError: the mask is not two-dimensional or is empty.
    """
    if mask.ndim != 2:
        raise ValueError(f"a scribble needs a mask [h, w], got one of shape {list(mask.shape)}")
    mask = np.ascontiguousarray(mask, dtype=bool).view(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    if width == 0:
        raise ValueError("a scribble needs a mask with at least one pixel inside, got an empty one")
    # One pixel of background around the box, so that the image's border erodes as well.
    inside = np.zeros((height + 2, width + 2), dtype=np.uint8)
    inside[1:-1, 1:-1] = mask[top : top + height, left : left + width]

    pixels = np.flatnonzero(_erode(inside))
    chosen = generator.integers(len(pixels), size=(count, _NUM_ATTEMPTS, _NUM_CONTROL_POINTS))
    chosen.sort(axis=-1)  # the pixels are listed row by row: ordered indices run top to bottom
    controls = np.stack(np.divmod(pixels[chosen], width + 2)[::-1], axis=-1)
    curves = np.rint(_BASIS @ controls).astype(np.int64)  # inside the controls' hull, so in the box
    is_inside = inside[curves[..., 1], curves[..., 0]] > 0
    best = is_inside.sum(axis=-1).argmax(axis=-1)  # the first with the highest count
    scribbles = np.arange(count)
    points, is_inside = curves[scribbles, best], is_inside[scribbles, best]
    if not is_inside.all():
        ys, xs = np.nonzero(inside)
        for index in np.argwhere(~is_inside):
            x, y = points[tuple(index)]
            nearest = ((xs - x) ** 2 + (ys - y) ** 2).argmin()
            points[tuple(index)] = xs[nearest], ys[nearest]
    return (points + (left - 1, top - 1)).astype(np.float32)


def draw_scribble(mask: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One random scribble inside a mask, [12, 2]; see `draw_scribbles`."""
    return draw_scribbles(mask, generator, 1)[0]


def _erode(inside: np.ndarray) -> np.ndarray:
    """The pixels of a uint8 mask that are left by the largest erosion which leaves enough."""
    # Chessboard distance to the background: a square of side s keeps the pixels beyond s / 2.
    distance = cv2.distanceTransform(inside, cv2.DIST_C, 3)
    needed = max(_NUM_CONTROL_POINTS, _MIN_KEPT_FRACTION * np.count_nonzero(inside))
    for side in EROSIONS:
        kept = distance > side / 2
        if np.count_nonzero(kept) >= needed:
            return kept
    return inside > 0


def resample_stroke(points: Tensor, count: int) -> Tensor:
    """A stroke [P, 2] → [count, 2] points at equal distances along it, from end to end."""
    steps = (points[1:] - points[:-1]).norm(dim=-1)
    distance = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    wanted = torch.linspace(0, 1, count, device=points.device) * distance[-1]
    index = torch.searchsorted(distance, wanted).clamp(1, len(points) - 1)
    start, end = distance[index - 1], distance[index]
    share = ((wanted - start) / (end - start).clamp(min=1e-6)).clamp(0, 1)
    return points[index - 1] + share[:, None] * (points[index] - points[index - 1])
