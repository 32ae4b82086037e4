"""Convex polygons, and drawing them onto an image and its label map.

Everything is drawn twice, with the same polygons: anti-aliased in colour, and hard-edged into a
label map (`datasets/synthetic/labels.py`).  Masks, boxes and the visibility of keypoints are read
from the labels, so they agree with the pixels.

Points are (x, y), see the frames of `datasets/synthetic/__init__.py`; further columns (depth) are
ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic.people import Rgb

SHIFT = 4
"""Fractional bits of OpenCV's fixed-point coordinates; see `fixed`."""


@dataclass
class Shape:
    """A convex polygon: corners [n, 2] in pixels, colour, and its label (None: colour only)."""

    corners: np.ndarray
    rgb: Rgb
    label: int | None


def draw_shapes(canvas: np.ndarray, labels: np.ndarray, shapes: Sequence[Shape]) -> None:
    """Draws shapes in order, onto the image [h, w, 3] and the label map [h, w], in place."""
    for shape in shapes:
        corners = fixed(shape.corners)
        cv2.fillConvexPoly(canvas, corners, shape.rgb, cv2.LINE_AA, SHIFT)
        if shape.label is not None:
            cv2.fillConvexPoly(labels, corners, shape.label, cv2.LINE_8, SHIFT)


def fixed(points: np.ndarray) -> np.ndarray:
    """Points in pixels -> OpenCV's fixed-point numbers, int32."""
    return np.rint(points * (1 << SHIFT)).astype(np.int32)


def shade(rgb: Rgb, gain: float) -> Rgb:
    """A colour, darker (gain below 1) or lighter."""
    return tuple(int(min(255.0, c * gain)) for c in rgb)


def blend(first: Rgb, second: Rgb, share: float) -> Rgb:
    """`first` with `share` of `second`."""
    return tuple(int(round(a + (b - a) * share)) for a, b in zip(first, second, strict=True))


# --- outlines ------------------------------------------------------------------------------------

_HALF_TURN = np.linspace(math.pi / 2, 3 * math.pi / 2, 9)
_CAPSULE_ANGLES = np.concatenate((_HALF_TURN, _HALF_TURN + math.pi))
_TURN = np.linspace(0, 2 * math.pi, 16, endpoint=False)

CIRCLE = np.stack((np.cos(_TURN), np.sin(_TURN)), axis=1)
"""16 points [16, 2] of the unit circle."""


def capsule(
    start: np.ndarray, end: np.ndarray, start_radius: float, end_radius: float
) -> np.ndarray:
    """Outline [18, 2] of a limb: two half circles and what lies between them."""
    axis = math.atan2(end[1] - start[1], end[0] - start[0])
    angles = _CAPSULE_ANGLES + axis
    outline = np.empty((18, 2))
    outline[:, 0] = np.cos(angles)
    outline[:, 1] = np.sin(angles)
    outline[:9] *= start_radius
    outline[9:] *= end_radius
    outline[:9] += start[:2]
    outline[9:] += end[:2]
    return outline


def disc(centre: np.ndarray, radius: float, squeeze: float = 1.0) -> np.ndarray:
    """Outline [16, 2] of a circle, or of an ellipse whose height is `squeeze` times its width."""
    return centre[:2] + CIRCLE * (radius, radius * squeeze)


def hull(*points: np.ndarray) -> np.ndarray:
    """Convex hull [n, 2] float32 of all the points."""
    stacked = np.concatenate([p[:, :2] for p in points]).astype(np.float32)
    return cv2.convexHull(stacked)[:, 0]


def toward_centre(corners: np.ndarray, share: float) -> np.ndarray:
    """Corners whose distance to their mean is multiplied by `share`."""
    centre = corners.mean(axis=0)
    return centre + (corners - centre) * share
