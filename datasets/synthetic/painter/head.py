"""Paints the head: hair, face and hat; and says where nose, eyes and ears are."""

from __future__ import annotations

import math

import numpy as np

from datasets.synthetic.labels import HAIR, HAT, HEAD
from datasets.synthetic.painter.figure import Figure, Part
from datasets.synthetic.people import Item
from datasets.synthetic.shapes import (
    CIRCLE,
    Shape,
    blend,
    capsule,
    disc,
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


# Places on the head, (left, up, front).
_NOSE = _unit(0.0, -0.16, 1.0)
_LEFT_EYE, _RIGHT_EYE = _unit(0.38, 0.1, 0.92), _unit(-0.38, 0.1, 0.92)
_LEFT_EAR, _RIGHT_EAR = _unit(1.0, -0.05, -0.08), _unit(-1.0, -0.05, -0.08)
_MOUTH = np.stack((_unit(0.26, -0.52, 0.8), _unit(0.0, -0.62, 0.8), _unit(-0.26, -0.52, 0.8)))
_KEYPOINTS = {
    "nose": _NOSE,
    "left_eye": _LEFT_EYE,
    "right_eye": _RIGHT_EYE,
    "left_ear": _LEFT_EAR,
    "right_ear": _RIGHT_EAR,
}


def head_points(figure: Figure) -> dict[str, tuple[np.ndarray, float]]:
    """Nose, eyes and ears: name -> (pixel [2], how far its surface turns to the viewer).

    The second value is the z of the surface's normal: 1 is frontal, below 0 is on the far side.
    """
    directions = np.stack(list(_KEYPOINTS.values()))
    on_head = figure.on_head(directions)
    towards = directions @ figure.body.head_axes[:, 2]
    return {name: (on_head[i, :2], float(towards[i])) for i, name in enumerate(_KEYPOINTS)}


def head_parts(figure: Figure) -> list[Part]:
    """Neck, hair, ears, face and hat."""
    look, edge = figure.appearance, figure.edge
    head, neck = figure.points["head"], figure.points["neck"]
    front = figure.body.head_axes[2]
    parts = [_mane(figure)] if look.long_hair else []

    shapes = figure.limb(neck, head, figure.radii["neck"], figure.radii["neck"], look.skin, HEAD)
    bald = look.hair_colour is None
    volume = 1.0 if bald else 1.06
    height = np.array(figure.body.head_radii)[1] * figure.scale
    silhouette = hull(figure.on_head(_SPHERE, volume))
    grown = hull(figure.on_head(_SPHERE, volume * (1 + edge / height)))
    brim = _brim(figure, look.hat) if look.hat is not None else []
    brim_is_near = front[2] > -0.1
    if not brim_is_near:
        shapes += brim
    scalp = look.skin if bald else look.hair
    shapes += figure.outlined(silhouette, grown, scalp, HEAD if bald else HAIR)
    shapes += _ears(figure)
    if not bald:
        face = _cap(figure, np.array((0.0, -0.5, 0.86)), 68)
        if face is not None:
            shapes.append(Shape(face, look.skin, figure.label(HEAD)))
    shapes += _features(figure)
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


def _ears(figure: Figure) -> list[Shape]:
    shapes: list[Shape] = []
    for ear in (_LEFT_EAR, _RIGHT_EAR):
        if ear @ figure.body.head_axes[:, 2] > -0.5:
            centre = figure.on_head(ear[None])[0]
            size = 0.021 * figure.scale
            shapes += figure.outlined(
                disc(centre, size, 1.3),
                disc(centre, size + figure.edge * 0.8, 1.3),
                shade(figure.appearance.skin, 0.94),
                HEAD,
            )
    return shapes


def _features(figure: Figure) -> list[Shape]:
    """Eyes, nose, mouth, beard and glasses, as far as they turn to the viewer."""
    look, scale = figure.appearance, figure.scale
    axes = figure.body.head_axes
    skin_label = figure.label(HEAD)
    shapes: list[Shape] = []
    if look.beard:
        beard = _cap(figure, np.array((0.0, -0.8, 0.6)), 44)
        if beard is not None:
            shapes.append(Shape(beard, look.hair, skin_label))
    eye_radius = max(1.0, 0.02 * scale)
    for direction in (_LEFT_EYE, _RIGHT_EYE):
        towards = float(direction @ axes[:, 2])
        if towards < 0.05:
            continue
        centre = figure.on_head(direction[None])[0]
        if look.glasses:
            shapes.append(Shape(disc(centre, eye_radius * 1.75), (30, 30, 34), None))
        shapes.append(Shape(disc(centre, eye_radius * 1.15), (250, 250, 250), None))
        shapes.append(Shape(disc(centre, eye_radius * 0.68), (28, 24, 30), None))
    if float(_NOSE @ axes[:, 2]) > 0.0:
        tip = figure.on_head(_NOSE[None], 1.06)[0]
        bridge = figure.on_head(np.array(((0.0, 0.12, 0.99),)))[0]
        radius = max(0.7, 0.012 * scale)
        nose = capsule(bridge, tip, radius * 0.6, radius)
        shapes.append(Shape(nose, shade(look.skin, 0.72), skin_label))
    if float(_MOUTH[1] @ axes[:, 2]) > 0.1:
        corners = figure.on_head(_MOUTH)
        radius = max(0.45, 0.007 * scale)
        for start, end in ((0, 1), (1, 2)):
            lips = capsule(corners[start], corners[end], radius, radius)
            shapes.append(Shape(lips, (150, 40, 46), None))
    return shapes


def _brim(figure: Figure, hat: Item) -> list[Shape]:
    if hat.kind == "cap":
        angles = np.linspace(-math.pi / 3.2, math.pi / 3.2, 9)
        inner = np.stack((np.sin(angles), np.full(9, 0.42), np.cos(angles) * 0.98), axis=1)
        outer = inner * (1.0, 0.9, 1.65)
        corners = hull(figure.on_head(inner), figure.on_head(outer))
    elif hat.kind == "brimmed hat":
        rim = np.stack((CIRCLE[:, 0] * 1.7, np.full(16, 0.42), CIRCLE[:, 1] * 1.7), axis=1)
        corners = hull(figure.on_head(rim))
    else:
        return []
    return [
        Shape(corners, shade(hat.rgb, 0.72), figure.label(HAT)),
        Shape(toward_centre(corners, 0.88), shade(hat.rgb, 0.92), None),
    ]


def _hat(figure: Figure, hat: Item) -> list[Shape]:
    """The hat without its brim."""
    degrees = {"cap": 68, "beanie": 74, "brimmed hat": 66}[hat.kind]
    dome = _cap(figure, np.array((0.0, 1.0, -0.18)), degrees, 1.13)
    if dome is None:
        return []
    shapes = figure.outlined(toward_centre(dome, 0.93), dome, hat.rgb, HAT)
    if hat.kind == "beanie":
        tip = figure.on_head(np.array(((0.0, 1.3, -0.15),)))[0]
        size = 0.028 * figure.scale
        pale = blend(hat.rgb, (255, 255, 255), 0.55)
        shapes += figure.outlined(disc(tip, size), disc(tip, size + figure.edge), pale, HAT)
    return shapes


def _cap(figure: Figure, axis: np.ndarray, degrees: float, grow: float = 1.0) -> np.ndarray | None:
    """Outline [n, 2] of the visible part of a round cap on the head, None where all is hidden.

    Args:
        figure: whose head.
        axis: [3] centre of the cap in the head frame.
        degrees: angle between axis and rim, at most 90.
        grow: of the head's radii.
    """
    head_axes = figure.body.head_axes
    axis = axis / np.linalg.norm(axis)
    helper = np.array((1.0, 0.0, 0.0)) if abs(axis[0]) < 0.8 else np.array((0.0, 1.0, 0.0))
    first = np.cross(axis, helper)
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    angle = math.radians(degrees)
    rim = math.cos(angle) * axis + math.sin(angle) * (
        CIRCLE[:, :1] * first + CIRCLE[:, 1:] * second
    )
    towards = rim @ head_axes
    hidden = towards[:, 2] < 0
    if hidden.all():
        return None
    # The cap ends at the head's silhouette: where the rim runs on the far side, or, if even the
    # middle of the cap is there, outside of the visible rim.
    if axis @ head_axes[:, 2] >= 0:
        outside = towards.copy()
        flat = towards[hidden, :2]
        outside[hidden, :2] = flat / np.maximum(np.linalg.norm(flat, axis=1)[:, None], 1e-6)
        outside[hidden, 2] = 0
    else:
        near = towards[~hidden]
        flat = near[:, :2] / np.maximum(np.linalg.norm(near[:, :2], axis=1)[:, None], 1e-6)
        outside = np.concatenate((near, np.column_stack((flat, np.zeros(len(flat))))))
    return hull(figure.on_head(outside @ head_axes.T, grow))
