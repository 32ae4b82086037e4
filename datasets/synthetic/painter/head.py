"""Paints the head: hair, face and hat; and says where nose, eyes and ears are."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from datasets.synthetic.labels import HAIR, HAT, HEAD
from datasets.synthetic.painter.figure import Figure, Part
from datasets.synthetic.people import Item
from datasets.synthetic.shapes import (
    CIRCLE,
    Capsule,
    Disc,
    Shape,
    blend,
    hull,
    shade,
    toward_centre,
)

# Points spread evenly over a sphere (Fibonacci), for the silhouette of the head.
_INDEX = np.arange(64) + 0.5
_POLAR = np.arccos(1 - 2 * _INDEX / 64)
_AZIMUTH = math.pi * (1 + math.sqrt(5)) * _INDEX
_SPHERE = np.stack(
    (np.cos(_AZIMUTH) * np.sin(_POLAR), np.cos(_POLAR), np.sin(_AZIMUTH) * np.sin(_POLAR)), axis=1
)


def _unit(left: float, up: float, front: float) -> np.ndarray:
    vector = np.array((left, up, front), dtype=float)
    return vector / np.linalg.norm(vector)


class _Cap(NamedTuple):
    """A round cap on the head: its centre [3] and its rim [16, 3], (left, up, front)."""

    axis: np.ndarray
    rim: np.ndarray


def _cap(left: float, up: float, front: float, degrees: float) -> _Cap:
    """The cap around a direction; `degrees` between its centre and its rim, at most 90."""
    axis = _unit(left, up, front)
    helper = np.array((1.0, 0.0, 0.0)) if abs(axis[0]) < 0.8 else np.array((0.0, 1.0, 0.0))
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    angle = math.radians(degrees)
    around = CIRCLE[:, :1] * first + CIRCLE[:, 1:] * second
    return _Cap(axis, math.cos(angle) * axis + math.sin(angle) * around)


# Places on the head, (left, up, front).
_KEYPOINTS = {
    "nose": _unit(0.0, -0.16, 1.0),
    "left_eye": _unit(0.38, 0.1, 0.92),
    "right_eye": _unit(-0.38, 0.1, 0.92),
    "left_ear": _unit(1.0, -0.05, -0.08),
    "right_ear": _unit(-1.0, -0.05, -0.08),
}
_KEYPOINT_DIRECTIONS = np.stack(list(_KEYPOINTS.values()))
_MOUTH = (_unit(0.26, -0.52, 0.8), _unit(0.0, -0.62, 0.8), _unit(-0.26, -0.52, 0.8))
_NOSE_BRIDGE, _NOSE_TIP = np.array((0.0, 0.12, 0.99)), _KEYPOINTS["nose"] * 1.06
_FEATURES = np.stack((_NOSE_BRIDGE, _NOSE_TIP, *_MOUTH))
_FACE, _BEARD = _cap(0.0, -0.5, 0.86, 68), _cap(0.0, -0.8, 0.6, 44)
_DOMES = {
    kind: _cap(0.0, 1.0, -0.18, degrees)
    for kind, degrees in (("cap", 68), ("beanie", 74), ("brimmed hat", 66))
}
_ACROSS = np.array((1.0, 1.0, 0.0))  # of the camera's axes
_TIP_OF_BEANIE = np.array(((0.0, 1.3, -0.15),))


def _cap_brim() -> np.ndarray:
    """Inner and outer edge [18, 3] of the brim of a cap."""
    angles = np.linspace(-math.pi / 3.2, math.pi / 3.2, 9)
    inner = np.stack((np.sin(angles), np.full(9, 0.42), np.cos(angles) * 0.98), axis=1)
    return np.concatenate((inner, inner * (1.0, 0.9, 1.65)))


_BRIMS = {
    "cap": _cap_brim(),
    "brimmed hat": np.stack((CIRCLE[:, 0] * 1.7, np.full(16, 0.42), CIRCLE[:, 1] * 1.7), axis=1),
}


def head_points(figure: Figure) -> dict[str, tuple[np.ndarray, float]]:
    """Nose, eyes and ears: name -> (pixel and depth [3], how far its surface turns to the viewer).

    The second value is the z of the surface's normal: 1 is frontal, below 0 is on the far side.
    """
    on_head = figure.on_head(_KEYPOINT_DIRECTIONS)
    towards = (_KEYPOINT_DIRECTIONS @ figure.body.head_axes[:, 2]).tolist()
    return dict(zip(_KEYPOINTS, zip(on_head, towards, strict=True), strict=True))


def head_parts(figure: Figure) -> list[Part]:
    """Neck, hair, ears, face and hat."""
    look, edge = figure.appearance, figure.edge
    head, neck = figure.points["head"], figure.points["neck"]
    front = figure.body.head_axes[2]
    parts = [_mane(figure)] if look.long_hair else []

    shapes = figure.limb(neck, head, figure.radii["neck"], figure.radii["neck"], look.skin, HEAD)
    bald = look.hair_colour is None
    volume = 1.0 if bald else 1.06
    height = figure.body.head_radii[1] * figure.scale
    silhouette = hull(figure.on_head(_SPHERE, volume))
    grown = hull(figure.on_head(_SPHERE, volume * (1 + edge / height)))
    brim = _brim(figure, look.hat) if look.hat is not None else []
    brim_is_near = front[2] > -0.1
    if not brim_is_near:
        shapes += brim
    scalp = look.skin if bald else look.hair
    shapes += figure.outlined(silhouette, grown, scalp, HEAD if bald else HAIR)
    keypoints = head_points(figure)
    shapes += _ears(figure, keypoints)
    if not bald:
        face = _seen(figure, _FACE)
        if face is not None:
            shapes.append(Shape(face, look.skin, figure.label(HEAD)))
    shapes += _features(figure, keypoints)
    if look.hat is not None:
        shapes += _hat(figure, look.hat)
        if brim_is_near:
            shapes += brim
    return [*parts, Part(float(head[2]) + 0.06 * figure.scale, shapes)]


def _mane(figure: Figure) -> Part:
    """Long hair, which falls behind the neck: before the trunk where the person faces away."""
    _, up, front = figure.body.head_axes
    head, radii = figure.points["head"], np.array(figure.body.head_radii) * figure.scale
    upper = head - front * (0.35 * radii[2]) + up * (0.1 * radii[1])
    lower = head - front * (0.7 * radii[2]) - up * (1.45 * radii[1])
    hair = figure.appearance.hair
    shapes = figure.limb(upper, lower, radii[0] * 1.2, radii[0] * 1.12, hair, HAIR)
    # Just before the trunk's own depth where it is behind, just after where it is in front.
    return Part(float(lower[2]), shapes)


def _ears(figure: Figure, keypoints: dict[str, tuple[np.ndarray, float]]) -> list[Shape]:
    shapes: list[Shape] = []
    for name in ("left_ear", "right_ear"):
        centre, towards = keypoints[name]
        if towards > -0.5:
            size = 0.021 * figure.scale
            shapes += figure.outlined(
                Disc(centre, size, 1.3),
                Disc(centre, size + figure.edge * 0.8, 1.3),
                shade(figure.appearance.skin, 0.94),
                HEAD,
            )
    return shapes


def _features(figure: Figure, keypoints: dict[str, tuple[np.ndarray, float]]) -> list[Shape]:
    """Eyes, nose, mouth, beard and glasses, as far as they turn to the viewer."""
    look, scale = figure.appearance, figure.scale
    skin_label = figure.label(HEAD)
    shapes: list[Shape] = []
    if look.beard:
        beard = _seen(figure, _BEARD)
        if beard is not None:
            shapes.append(Shape(beard, look.hair, skin_label))
    eye_radius = max(1.0, 0.02 * scale)
    for name in ("left_eye", "right_eye"):
        centre, towards = keypoints[name]
        if towards < 0.05:
            continue
        if look.glasses:
            shapes.append(Shape(Disc(centre, eye_radius * 1.75), (30, 30, 34), None))
        shapes.append(Shape(Disc(centre, eye_radius * 1.15), (250, 250, 250), None))
        shapes.append(Shape(Disc(centre, eye_radius * 0.68), (28, 24, 30), None))
    bridge, tip, *mouth = figure.on_head(_FEATURES)
    if keypoints["nose"][1] > 0.0:
        radius = max(0.7, 0.012 * scale)
        nose = Capsule(bridge, tip, radius * 0.6, radius)
        shapes.append(Shape(nose, shade(look.skin, 0.72), skin_label))
    if float(_MOUTH[1] @ figure.body.head_axes[:, 2]) > 0.1:
        radius = max(0.45, 0.007 * scale)
        for start, end in zip(mouth[:-1], mouth[1:], strict=True):
            shapes.append(Shape(Capsule(start, end, radius, radius), (150, 40, 46), None))
    return shapes


def _brim(figure: Figure, hat: Item) -> list[Shape]:
    if hat.kind not in _BRIMS:
        return []
    corners = hull(figure.on_head(_BRIMS[hat.kind]))
    return [
        Shape(corners, shade(hat.rgb, 0.72), figure.label(HAT)),
        Shape(toward_centre(corners, 0.88), shade(hat.rgb, 0.92), None),
    ]


def _hat(figure: Figure, hat: Item) -> list[Shape]:
    """The hat without its brim."""
    dome = _seen(figure, _DOMES[hat.kind], 1.13)
    if dome is None:
        return []
    shapes = figure.outlined(toward_centre(dome, 0.93), dome, hat.rgb, HAT)
    if hat.kind == "beanie":
        tip = figure.on_head(_TIP_OF_BEANIE)[0]
        size = 0.028 * figure.scale
        pale = blend(hat.rgb, (255, 255, 255), 0.55)
        shapes += figure.outlined(Disc(tip, size), Disc(tip, size + figure.edge), pale, HAT)
    return shapes


def _seen(figure: Figure, cap: _Cap, grow: float = 1.0) -> np.ndarray | None:
    """Outline [n, 2] of the visible part of a cap on the head, None where all is hidden.

    Args:
        figure: whose head.
        cap: in the head frame.
        grow: of the head's radii.
    """
    head_axes = figure.body.head_axes
    towards = cap.rim @ head_axes
    hidden = towards[:, 2] < 0
    num_hidden = np.count_nonzero(hidden)
    if num_hidden == len(hidden):
        return None
    if num_hidden == 0:
        return hull(figure.on_head(cap.rim, grow))
    # The cap ends at the head's silhouette: where the rim runs on the far side, or, if even the
    # middle of the cap is there, outside of the visible rim.
    silhouette = towards * _ACROSS
    silhouette /= np.maximum(np.hypot(towards[:, 0], towards[:, 1]), 1e-6)[:, None]
    if cap.axis @ head_axes[:, 2] >= 0:
        outside = np.where(hidden[:, None], silhouette, towards)
    else:
        outside = np.concatenate((towards[~hidden], silhouette[~hidden]))
    return hull(figure.on_head(outside @ head_axes.T, grow))
