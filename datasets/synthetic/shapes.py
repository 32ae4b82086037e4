"""Convex polygons, and drawing them onto an image and its label map.

Everything is drawn twice, with the same polygons: anti-aliased in colour, and hard-edged into a
label map (`datasets/synthetic/labels.py`).  Masks, boxes and the visibility of keypoints are read
from the labels, so they agree with the pixels.

Points are (x, y), see the frames of `datasets/synthetic/__init__.py`; further columns (depth) are
ignored.

A person is some 80 polygons of a few corners each.  NumPy's calls would take longer than drawing
them, so limbs and circles stay descriptions, `Capsule` and `Disc`, until all shapes are drawn; then
there is one array of each kind.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from datasets.synthetic.people import Rgb

SHIFT = 4
"""Fractional bits of OpenCV's fixed-point coordinates; see `fixed`."""


class Capsule(NamedTuple):
    """The outline of a limb: two half circles around its ends [3], and what lies between them."""

    start: np.ndarray
    end: np.ndarray
    start_radius: float
    end_radius: float


class Disc(NamedTuple):
    """A circle around a centre [3], or an ellipse that is `squeeze` times as high as wide."""

    centre: np.ndarray
    radius: float
    squeeze: float = 1.0


Outline = np.ndarray | Capsule | Disc
"""Of a convex polygon; an array holds its corners [n, 2] in pixels."""


@dataclass
class Shape:
    """A convex polygon: outline, colour, and its label (None: colour only)."""

    outline: Outline
    rgb: Rgb
    label: int | None


def draw_shapes(
    canvas: np.ndarray,
    labels: np.ndarray,
    shapes: Sequence[Shape],
    corners: Iterable[np.ndarray],
) -> None:
    """Draws shapes in order, in place.

    Args:
        canvas: the image [h, w, 3].
        labels: the label map [h, w].
        shapes: what to draw.
        corners: of each shape, from `fixed_corners`.
    """
    for shape, polygon in zip(shapes, corners, strict=True):
        cv2.fillConvexPoly(canvas, polygon, shape.rgb, cv2.LINE_AA, SHIFT)
        if shape.label is not None:
            cv2.fillConvexPoly(labels, polygon, shape.label, cv2.LINE_8, SHIFT)


def fixed_corners(shapes: Sequence[Shape]) -> list[np.ndarray]:
    """Corners [n, 2] of every shape in OpenCV's fixed-point numbers, int32."""
    capsules: list[Capsule] = []
    discs: list[Disc] = []
    arrays: list[np.ndarray] = []
    of_kind = {Capsule: capsules, Disc: discs, np.ndarray: arrays}
    for shape in shapes:
        of_kind[type(shape.outline)].append(shape.outline)
    corners: dict[type, Iterator[np.ndarray]] = {}
    if capsules:
        corners[Capsule] = iter(fixed(capsule_corners(capsules)))
    if discs:
        corners[Disc] = iter(fixed(disc_corners(discs)))
    if arrays:
        together = fixed(np.concatenate(arrays))
        ends = itertools.accumulate(map(len, arrays))
        corners[np.ndarray] = (
            together[end - len(array) : end] for array, end in zip(arrays, ends, strict=True)
        )
    # Each kind is in its own order: the shapes take from them one after the other.
    return [next(corners[type(shape.outline)]) for shape in shapes]


def fixed(points: np.ndarray) -> np.ndarray:
    """Points in pixels -> OpenCV's fixed-point numbers, int32."""
    return np.rint(points * (1 << SHIFT)).astype(np.int32)


def shade(rgb: Rgb, gain: float) -> Rgb:
    """A colour, darker (gain below 1) or lighter."""
    red, green, blue = rgb
    return int(min(255.0, red * gain)), int(min(255.0, green * gain)), int(min(255.0, blue * gain))


def blend(first: Rgb, second: Rgb, share: float) -> Rgb:
    """`first` with `share` of `second`."""
    return tuple(int(round(a + (b - a) * share)) for a, b in zip(first, second, strict=True))


# --- outlines ------------------------------------------------------------------------------------

_HALF_TURN = np.linspace(math.pi / 2, 3 * math.pi / 2, 9)
_CAPSULE_ANGLES = np.concatenate((_HALF_TURN, _HALF_TURN + math.pi))
_TURN = np.linspace(0, 2 * math.pi, 16, endpoint=False)

CIRCLE = np.stack((np.cos(_TURN), np.sin(_TURN)), axis=1)
"""16 points [16, 2] of the unit circle."""


def capsule_corners(capsules: Sequence[Capsule]) -> np.ndarray:
    """Corners [n, 18, 2] of n capsules, at least one."""
    ends = np.concatenate([point for c in capsules for point in c[:2]])
    ends = ends.reshape(-1, 2, 3)[..., :2]
    radii = np.array([c[2:] for c in capsules])
    along = ends[:, 1] - ends[:, 0]
    angles = np.arctan2(along[:, 1], along[:, 0])[:, None] + _CAPSULE_ANGLES
    corners = np.empty((len(ends), 2, 9, 2))  # nine around either end
    corners[..., 0] = np.cos(angles).reshape(-1, 2, 9)
    corners[..., 1] = np.sin(angles).reshape(-1, 2, 9)
    corners *= radii[:, :, None, None]
    corners += ends[:, :, None]
    return corners.reshape(-1, 18, 2)


def disc_corners(discs: Sequence[Disc]) -> np.ndarray:
    """Corners [n, 16, 2] of n discs, at least one."""
    centres = np.concatenate([disc.centre for disc in discs]).reshape(-1, 3)[:, :2]
    radii = np.array([(disc.radius, disc.radius * disc.squeeze) for disc in discs])
    return centres[:, None] + CIRCLE * radii[:, None]


def hull(points: np.ndarray) -> np.ndarray:
    """Convex hull [n, 2] float32 of all points [..., 2 or 3]."""
    if points.dtype != np.float32 or points.shape[-1] != 2:
        points = points[..., :2].astype(np.float32)
    return cv2.convexHull(points.reshape(-1, 2))[:, 0]


def toward_centre(corners: np.ndarray, share: float) -> np.ndarray:
    """Corners whose distance to their mean is multiplied by `share`."""
    centre = corners.mean(axis=0)
    return centre + (corners - centre) * share
