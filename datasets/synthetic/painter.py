"""Draws the synthetic data set: people, what stands around them, and the light.

Everything is drawn twice, with the same polygons: anti-aliased in colour, and hard-edged into a
label map that says for every pixel which part of which person is to be seen there.  Masks, boxes
and the visibility of keypoints are read from the labels, so they agree with the pixels.

Pixel coordinates of this module are OpenCV's: (x, y) with whole numbers at pixel centres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from datasets.synthetic.people import COLOURS, Appearance, Body, Item, Pose, Rgb, pick, vary_colour

# Parts of a person in the label map: a pixel of person i (from 0) holds 16 * (i + 1) + part.
# What belongs to nobody is 0.
HEAD, HAIR, HAT, TRUNK, PELVIS = 1, 2, 3, 4, 5
LEFT_UPPER_ARM, LEFT_FOREARM, RIGHT_UPPER_ARM, RIGHT_FOREARM = 6, 7, 8, 9
LEFT_THIGH, LEFT_SHIN, RIGHT_THIGH, RIGHT_SHIN = 10, 11, 12, 13
THING = 14  # what the person holds; no part of the mask
PARTS_PER_PERSON = 16

PARTS_OF_KEYPOINT: dict[str, tuple[int, ...]] = {
    "nose": (HEAD,),
    "left_eye": (HEAD,),
    "right_eye": (HEAD,),
    "left_ear": (HEAD, HAIR),
    "right_ear": (HEAD, HAIR),
    "left_shoulder": (TRUNK, LEFT_UPPER_ARM),
    "right_shoulder": (TRUNK, RIGHT_UPPER_ARM),
    "left_elbow": (LEFT_UPPER_ARM, LEFT_FOREARM),
    "right_elbow": (RIGHT_UPPER_ARM, RIGHT_FOREARM),
    "left_wrist": (LEFT_FOREARM,),
    "right_wrist": (RIGHT_FOREARM,),
    "left_hip": (TRUNK, PELVIS, LEFT_THIGH, RIGHT_THIGH),
    "right_hip": (TRUNK, PELVIS, RIGHT_THIGH, LEFT_THIGH),
    "left_knee": (LEFT_THIGH, LEFT_SHIN, PELVIS),
    "right_knee": (RIGHT_THIGH, RIGHT_SHIN, PELVIS),
    "left_ankle": (LEFT_SHIN,),
    "right_ankle": (RIGHT_SHIN,),
}
"""The own parts under which a keypoint counts as visible: a hip under trousers is, a hip behind
the person's own arm is not."""

_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates
_FIXED = 1 << _SHIFT


def _fixed(points: np.ndarray) -> np.ndarray:
    return np.rint(points * _FIXED).astype(np.int32)


def _shade(rgb: Rgb, gain: float) -> Rgb:
    return tuple(int(min(255.0, c * gain)) for c in rgb)


def _blend(first: Rgb, second: Rgb, share: float) -> Rgb:
    """`first` with `share` of `second`."""
    return tuple(int(round(a + (b - a) * share)) for a, b in zip(first, second, strict=True))


@dataclass
class Shape:
    """A convex polygon: corners [n, 2] in pixels, colour, and its label (None: colour only)."""

    corners: np.ndarray
    rgb: Rgb
    label: int | None


def draw_shapes(canvas: np.ndarray, labels: np.ndarray, shapes: Sequence[Shape]) -> None:
    """Draws shapes in order, onto the image [h, w, 3] and the label map [h, w], in place."""
    for shape in shapes:
        corners = _fixed(shape.corners)
        cv2.fillConvexPoly(canvas, corners, shape.rgb, cv2.LINE_AA, _SHIFT)
        if shape.label is not None:
            cv2.fillConvexPoly(labels, corners, shape.label, cv2.LINE_8, _SHIFT)


# --- convex outlines -----------------------------------------------------------------------------

_HALF_TURN = np.linspace(math.pi / 2, 3 * math.pi / 2, 9)
_CAPSULE_ANGLES = np.concatenate((_HALF_TURN, _HALF_TURN + math.pi))
_TURN = np.linspace(0, 2 * math.pi, 16, endpoint=False)
_CIRCLE = np.stack((np.cos(_TURN), np.sin(_TURN)), axis=1)


def _capsule(start: np.ndarray, end: np.ndarray, start_radius: float, end_radius: float):
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


def _disc(centre: np.ndarray, radius: float, squeeze: float = 1.0) -> np.ndarray:
    return centre[:2] + _CIRCLE * (radius, radius * squeeze)


def _hull(*points: np.ndarray) -> np.ndarray:
    stacked = np.concatenate([p[:, :2] for p in points]).astype(np.float32)
    return cv2.convexHull(stacked)[:, 0]


# Points spread evenly over a sphere (Fibonacci), for the silhouette of the head.
_INDEX = np.arange(64) + 0.5
_POLAR = np.arccos(1 - 2 * _INDEX / 64)
_AZIMUTH = math.pi * (1 + math.sqrt(5)) * _INDEX
_SPHERE = np.stack(
    (np.cos(_AZIMUTH) * np.sin(_POLAR), np.cos(_POLAR), np.sin(_AZIMUTH) * np.sin(_POLAR)), axis=1
)


# --- a person ------------------------------------------------------------------------------------


class PersonPainter:
    """Turns a posed body with its looks into shapes and keypoints.

    Args:
        body: the body in the camera frame.
        appearance, pose: what the person looks like and does.
        scale: pixels per standing height of the person.
        foot: (x, y) pixel of the ground below the pelvis.
        index: of the person in the scene, from 0; decides the labels.
        seat_rgb: colour of the seat under a sitting person.
    """

    def __init__(
        self,
        body: Body,
        appearance: Appearance,
        pose: Pose,
        scale: float,
        foot: tuple[float, float],
        index: int,
        seat_rgb: Rgb,
    ) -> None:
        self.appearance, self.pose, self.scale, self.index = appearance, pose, scale, index
        self.seat_rgb = seat_rgb
        self.body = body
        self.origin = np.array((foot[0], foot[1], 0.0))
        self.points = {name: p * scale + self.origin for name, p in body.points.items()}
        self.radii = {name: r * scale for name, r in body.radii.items()}
        self.edge = max(0.6, 0.009 * scale)
        self._parts: list[tuple[float, list[Shape]]] = []

    def shapes(self) -> list[Shape]:
        """All shapes of the person and of what the person sits on and holds, far to near."""
        self._parts = []
        self._add_legs()
        self._add_trunk()
        self._add_head()
        self._add_arms()
        if self.pose.action == "sitting":
            self._add_seat()
        if self.pose.action == "kicking":
            self._add_kicked_ball()
        if self.appearance.thing is not None:
            self._add_thing(self.appearance.thing)
        self._parts.sort(key=lambda part: part[0])
        return [shape for _, shapes in self._parts for shape in shapes]

    def head_points(self) -> dict[str, tuple[np.ndarray, float]]:
        """Nose, eyes and ears: name -> (pixel [2], how far its surface turns to the viewer).

        The second value is the z of the surface's normal: 1 is frontal, below 0 is on the far side.
        """
        places = {
            "nose": _NOSE,
            "left_eye": _LEFT_EYE,
            "right_eye": _RIGHT_EYE,
            "left_ear": _LEFT_EAR,
            "right_ear": _RIGHT_EAR,
        }
        on_head = self._on_head(np.stack(list(places.values())))
        towards = np.stack(list(places.values())) @ self.body.head_axes[:, 2]
        return {name: (on_head[i, :2], float(towards[i])) for i, name in enumerate(places)}

    # --- helpers -----

    def _label(self, part: int) -> int:
        return PARTS_PER_PERSON * (self.index + 1) + part

    def _outlined(self, outline: np.ndarray, grown: np.ndarray, rgb: Rgb, part: int) -> list[Shape]:
        return [Shape(grown, _shade(rgb, 0.55), self._label(part)), Shape(outline, rgb, None)]

    def _limb(self, start, end, start_radius, end_radius, rgb: Rgb, part: int) -> list[Shape]:
        edge = self.edge
        return self._outlined(
            _capsule(start, end, start_radius, end_radius),
            _capsule(start, end, start_radius + edge, end_radius + edge),
            rgb,
            part,
        )

    def _ring(self, centre: np.ndarray, wide: float, deep: float) -> np.ndarray:
        """A horizontal ring [16, 3] around the trunk."""
        left, _, front = self.body.trunk_axes
        return centre + _CIRCLE[:, :1] * (left * wide) + _CIRCLE[:, 1:] * (front * deep)

    def _on_head(self, directions: np.ndarray, grow: float = 1.0) -> np.ndarray:
        """Directions [n, 3] of the head frame -> pixels and depth [n, 3] on its surface."""
        radii = np.array(self.body.head_radii) * (self.scale * grow)
        return (directions * radii) @ self.body.head_axes + self.points["head"]

    def _head_cap(self, axis: np.ndarray, degrees: float, grow: float = 1.0) -> np.ndarray | None:
        """Outline of the visible part of a round cap on the head, None where all is hidden.

        Args:
            axis: [3] centre of the cap in the head frame.
            degrees: angle between axis and rim, at most 90.
            grow: of the head's radii.
        """
        axis = axis / np.linalg.norm(axis)
        helper = np.array((1.0, 0.0, 0.0)) if abs(axis[0]) < 0.8 else np.array((0.0, 1.0, 0.0))
        first = np.cross(axis, helper)
        first /= np.linalg.norm(first)
        second = np.cross(axis, first)
        angle = math.radians(degrees)
        rim = math.cos(angle) * axis + math.sin(angle) * (
            _CIRCLE[:, :1] * first + _CIRCLE[:, 1:] * second
        )
        towards = rim @ self.body.head_axes
        hidden = towards[:, 2] < 0
        if hidden.all():
            return None
        # The cap ends at the head's silhouette: where the rim runs on the far side, or, if even the
        # middle of the cap is there, outside of the visible rim.
        if axis @ self.body.head_axes[:, 2] >= 0:
            outside = towards.copy()
            flat = towards[hidden, :2]
            outside[hidden, :2] = flat / np.maximum(np.linalg.norm(flat, axis=1)[:, None], 1e-6)
            outside[hidden, 2] = 0
        else:
            near = towards[~hidden]
            flat = near[:, :2] / np.maximum(np.linalg.norm(near[:, :2], axis=1)[:, None], 1e-6)
            outside = np.concatenate((near, np.column_stack((flat, np.zeros(len(flat))))))
        return _hull(self._on_head(outside @ self.body.head_axes.T, grow))

    # --- parts -----

    def _add_legs(self) -> None:
        look, r = self.appearance, self.radii
        bottom = look.bottom
        for name, thigh, shin in (
            ("left", LEFT_THIGH, LEFT_SHIN),
            ("right", RIGHT_THIGH, RIGHT_SHIN),
        ):
            hip, knee = self.points[f"{name}_hip"], self.points[f"{name}_knee"]
            ankle = self.points[f"{name}_ankle"]
            heel, toe = self.points[f"{name}_heel"], self.points[f"{name}_toe"]
            long = bottom is not None and bottom.kind == "trousers"
            cloth = bottom.rgb if long else look.skin
            slim = 1.0 if long else 0.85
            shapes = self._limb(heel, toe, r["foot"], r["foot"] * 0.9, look.shoes, shin)
            lower = self._limb(knee, ankle, r["knee"] * slim, r["ankle"] * slim, cloth, shin)
            upper = self._limb(hip, knee, r["thigh"] * slim, r["knee"] * slim, cloth, thigh)
            if bottom is not None and bottom.kind == "shorts":
                hem = hip + (knee - hip) * 0.72
                upper += self._limb(hip, hem, r["thigh"], r["thigh"] * 0.98, bottom.rgb, thigh)
            if long:
                upper += self._bands(bottom, hip, knee, r["thigh"], r["knee"])
                lower += self._bands(bottom, knee, ankle, r["knee"], r["ankle"])
            # A knee that points to the viewer lies before the shin, one that points away behind it.
            shapes += upper + lower if ankle[2] >= knee[2] else lower + upper
            self._parts.append(((knee[2] + ankle[2]) / 2 - 0.02 * self.scale, shapes))

    def _bands(self, item: Item, start, end, start_radius, end_radius) -> list[Shape]:
        """Stripes across a limb, none where the item is not striped."""
        if item.pattern != "striped":
            return []
        axis = end[:2] - start[:2]
        length = float(np.hypot(*axis))
        step = self._stripe_step()
        if length < step:
            return []
        across = np.array((-axis[1], axis[0])) / length
        bands = []
        for offset in np.arange(step * 0.5, length - 0.3 * step, 2 * step):
            low, high = offset / length, min(1.0, (offset + 0.85 * step) / length)
            wide_low = start_radius + (end_radius - start_radius) * low
            wide_high = start_radius + (end_radius - start_radius) * high
            near, far = start[:2] + axis * low, start[:2] + axis * high
            corners = np.stack(
                (
                    near + across * wide_low,
                    near - across * wide_low,
                    far - across * wide_high,
                    far + across * wide_high,
                )
            )
            bands.append(Shape(corners, item.second_rgb, None))
        return bands

    def _stripe_step(self) -> float:
        return max(1.8, 0.03 * self.scale)

    def _add_trunk(self) -> None:
        look, r, up = self.appearance, self.radii, self.body.trunk_axes[1]
        pelvis, chest = self.points["pelvis"], self.points["chest"]
        length = float(np.linalg.norm(chest - pelvis))
        edge = self.edge

        def ring_at(share: float, grow: float = 0.0) -> np.ndarray:
            """Ring at a height between the pelvis (0) and the shoulders (1)."""
            wide = np.interp(
                share,
                (-0.15, 0.0, 0.42, 0.85, 1.0, 1.12),
                (
                    r["hip_wide"] * 0.9,
                    r["hip_wide"],
                    r["waist_wide"],
                    r["chest_wide"],
                    r["chest_wide"],
                    r["chest_wide"] * 0.45,
                ),
            )
            deep = np.interp(
                share,
                (0.0, 0.42, 0.9, 1.12),
                (r["hip_deep"], r["waist_deep"], r["chest_deep"], r["chest_deep"] * 0.6),
            )
            return self._ring(pelvis + up * (share * length), wide + grow, deep + grow)

        def block(stations: Sequence[float], rgb: Rgb, part: int) -> list[Shape]:
            pairs = list(zip(stations[:-1], stations[1:], strict=True))
            dark = [
                Shape(_hull(ring_at(a, edge), ring_at(b, edge)), _shade(rgb, 0.55), label)
                for (a, b), label in zip(pairs, [self._label(part)] * len(pairs), strict=True)
            ]
            return dark + [Shape(_hull(ring_at(a), ring_at(b)), rgb, None) for a, b in pairs]

        depth = float((pelvis[2] + chest[2]) / 2)
        top = look.top
        skirt = top if top.kind == "dress" else look.bottom
        if skirt is not None and skirt.kind in ("skirt", "dress"):
            shapes = self._skirt(skirt, ring_at)
            knees = max(self.points["left_knee"][2], self.points["right_knee"][2])
            self._parts.append((max(depth, knees) - 0.01 * self.scale, shapes))
        else:
            self._parts.append(
                (depth - 0.005 * self.scale, block((-0.15, 0.0, 0.3), skirt.rgb, PELVIS))
            )

        low = 0.02 if top.kind == "jacket" else 0.1
        shapes = block((low, 0.42, 0.9, 1.12), top.rgb, TRUNK)
        if top.pattern == "striped":
            step = self._stripe_step() / max(length, 1e-6)
            across = np.array((-up[1], up[0]))
            for share in np.arange(low + 0.6 * step, 1.0, 2 * step):
                ends = []
                for ring in (ring_at(share), ring_at(min(1.02, share + 0.85 * step))):
                    sideways = ring[:, :2] @ across
                    ends += [ring[sideways.argmin(), :2], ring[sideways.argmax(), :2]]
                band = np.stack((ends[0], ends[1], ends[3], ends[2]))
                shapes.append(Shape(band, top.second_rgb, None))
        elif top.pattern == "dotted":
            shapes += self._dots(top, ring_at, (0.18, 0.42, 0.66, 0.9))
        if top.kind == "jacket":
            shapes += self._jacket_front(ring_at)
        self._parts.append((depth, shapes))

    def _skirt(self, item: Item, ring_at) -> list[Shape]:
        r = self.radii
        reach = 0.95 if item.kind == "skirt" else 1.1
        hem, hem_grown = [], []
        for name in ("left", "right"):
            hip, knee = self.points[f"{name}_hip"], self.points[f"{name}_knee"]
            end = hip + (knee - hip) * reach
            hem.append(_disc(end, r["thigh"] * 1.35))
            hem_grown.append(_disc(end, r["thigh"] * 1.35 + self.edge))
        waist = 0.3
        shapes = self._outlined(
            _hull(ring_at(0.0), ring_at(waist), *hem),
            _hull(ring_at(0.0, self.edge), ring_at(waist, self.edge), *hem_grown),
            item.rgb,
            PELVIS,
        )
        if item.pattern == "dotted" and item.kind == "dress":
            shapes += self._dots(item, ring_at, (0.0,))
        return shapes

    def _dots(self, item: Item, ring_at, shares: Sequence[float]) -> list[Shape]:
        left, _, front = self.body.trunk_axes
        normals = _CIRCLE[:, :1] * left + _CIRCLE[:, 1:] * front
        radius = max(0.9, 0.017 * self.scale)
        dots = []
        for row, share in enumerate(shares):
            ring = ring_at(share)
            for k in range(row % 2, 16, 2):
                if normals[k, 2] > 0.3:
                    dots.append(Shape(_disc(ring[k], radius), item.second_rgb, None))
        return dots

    def _jacket_front(self, ring_at) -> list[Shape]:
        """The open front with the shirt below it, where it can be seen."""
        front = self.body.trunk_axes[2]
        if front[2] < 0.15:
            return []
        light = sum(self.appearance.top.rgb) < 480
        rgb = (235, 235, 230) if light else (60, 60, 66)
        # Ring point 4 is the middle of the front; its neighbours lie 22.5 degrees beside it.
        rows = [ring_at(share)[3:6] for share in (0.06, 0.42, 0.9, 1.08)]
        shapes = []
        for lower, upper in zip(rows[:-1], rows[1:], strict=True):
            middle_low, middle_high = lower[1], upper[1]
            corners = np.stack(
                (
                    middle_low + (lower[0] - middle_low) * 0.55,
                    middle_low + (lower[2] - middle_low) * 0.55,
                    middle_high + (upper[2] - middle_high) * 0.7,
                    middle_high + (upper[0] - middle_high) * 0.7,
                )
            )
            shapes.append(Shape(_hull(corners), rgb, None))
        return shapes

    def _add_arms(self) -> None:
        look, r = self.appearance, self.radii
        top = look.top
        long = top.kind in ("sweater", "jacket")
        trunk_depth = float((self.points["pelvis"][2] + self.points["chest"][2]) / 2)
        for name, upper_part, fore_part in (
            ("left", LEFT_UPPER_ARM, LEFT_FOREARM),
            ("right", RIGHT_UPPER_ARM, RIGHT_FOREARM),
        ):
            shoulder, elbow = self.points[f"{name}_shoulder"], self.points[f"{name}_elbow"]
            wrist, hand = self.points[f"{name}_wrist"], self.points[f"{name}_hand"]
            cloth = top.rgb if long else look.skin
            slim = 1.0 if long else 0.85
            upper = self._limb(
                shoulder, elbow, r["upper_arm"] * slim, r["elbow"] * slim, cloth, upper_part
            )
            if long:
                upper += self._bands(top, shoulder, elbow, r["upper_arm"], r["elbow"])
            else:
                hem = shoulder + (elbow - shoulder) * 0.58
                radius = r["upper_arm"] * 1.12
                upper += self._limb(shoulder, hem, radius, radius, top.rgb, upper_part)
                upper += self._bands(top, shoulder, hem, radius, radius)
            fore = self._limb(wrist, hand, r["hand"] * 0.75, r["hand"] * 0.9, look.skin, fore_part)
            fore += self._limb(elbow, wrist, r["elbow"] * slim, r["wrist"] * slim, cloth, fore_part)
            if long:
                fore += self._bands(top, elbow, wrist, r["elbow"], r["wrist"])
            depth = float((elbow[2] + wrist[2]) / 2)
            # An arm at the side is drawn over the trunk unless it is clearly behind it.
            key = depth + 0.05 * self.scale
            if abs(key - trunk_depth) < 0.02 * self.scale:
                key = trunk_depth + 0.02 * self.scale
            self._parts.append((key, upper + fore))

    def _add_head(self) -> None:
        look, edge = self.appearance, self.edge
        head, neck = self.points["head"], self.points["neck"]
        axes = self.body.head_axes
        left, up, front = axes
        radii = np.array(self.body.head_radii) * self.scale
        key = float(head[2]) + 0.06 * self.scale

        shapes = self._limb(neck, head, self.radii["neck"], self.radii["neck"], look.skin, HEAD)
        bald = look.hair_colour is None
        scalp = look.skin if bald else look.hair
        scalp_part = HEAD if bald else HAIR
        volume = 1.0 if bald else 1.06

        if look.long_hair:
            # Hair falls behind the neck: before the trunk where the person faces away.
            upper = head - front * (0.35 * radii[2]) + up * (0.1 * radii[1])
            lower = head - front * (0.7 * radii[2]) - up * (1.45 * radii[1])
            mane = self._limb(upper, lower, radii[0] * 1.2, radii[0] * 1.12, look.hair, HAIR)
            # Just before the trunk's own depth where it is behind, just after where it is in front.
            self._parts.append((float(lower[2]), mane))

        silhouette = _hull(self._on_head(_SPHERE, volume))
        grown = _hull(self._on_head(_SPHERE, volume * (1 + edge / radii[1])))
        brim = self._brim(look.hat) if look.hat is not None else []
        brim_is_near = front[2] > -0.1
        if not brim_is_near:
            shapes += brim
        shapes += self._outlined(silhouette, grown, scalp, scalp_part)

        for ear in (_LEFT_EAR, _RIGHT_EAR):
            if ear @ axes[:, 2] > -0.5:
                centre = self._on_head(ear[None])[0]
                size = 0.021 * self.scale
                shapes += self._outlined(
                    _disc(centre, size, 1.3),
                    _disc(centre, size + edge * 0.8, 1.3),
                    _shade(look.skin, 0.94),
                    HEAD,
                )
        if not bald:
            face = self._head_cap(np.array((0.0, -0.5, 0.86)), 68)
            if face is not None:
                shapes.append(Shape(face, look.skin, self._label(HEAD)))
        shapes += self._features()
        if look.hat is not None:
            shapes += self._hat(look.hat)
            if brim_is_near:
                shapes += brim
        self._parts.append((key, shapes))

    def _features(self) -> list[Shape]:
        """Eyes, nose, mouth, beard and glasses, as far as they turn to the viewer."""
        look, scale = self.appearance, self.scale
        axes = self.body.head_axes
        skin_label = self._label(HEAD)
        shapes: list[Shape] = []
        if look.beard:
            beard = self._head_cap(np.array((0.0, -0.8, 0.6)), 44)
            if beard is not None:
                shapes.append(Shape(beard, look.hair, skin_label))
        eye_radius = max(1.0, 0.02 * scale)
        for direction in (_LEFT_EYE, _RIGHT_EYE):
            towards = float(direction @ axes[:, 2])
            if towards < 0.05:
                continue
            centre = self._on_head(direction[None])[0]
            if look.glasses:
                shapes.append(Shape(_disc(centre, eye_radius * 1.75), (30, 30, 34), None))
            shapes.append(Shape(_disc(centre, eye_radius * 1.15), (250, 250, 250), None))
            shapes.append(Shape(_disc(centre, eye_radius * 0.68), (28, 24, 30), None))
        if float(_NOSE @ axes[:, 2]) > 0.0:
            tip = self._on_head(_NOSE[None], 1.06)[0]
            bridge = self._on_head(np.array(((0.0, 0.12, 0.99),)))[0]
            radius = max(0.7, 0.012 * scale)
            shapes.append(
                Shape(
                    _capsule(bridge, tip, radius * 0.6, radius), _shade(look.skin, 0.72), skin_label
                )
            )
        if float(_MOUTH[1] @ axes[:, 2]) > 0.1:
            corners = self._on_head(_MOUTH)
            radius = max(0.45, 0.007 * scale)
            for start, end in ((0, 1), (1, 2)):
                shapes.append(
                    Shape(
                        _capsule(corners[start], corners[end], radius, radius), (150, 40, 46), None
                    )
                )
        return shapes

    def _brim(self, hat: Item) -> list[Shape]:
        if hat.kind == "cap":
            angles = np.linspace(-math.pi / 3.2, math.pi / 3.2, 9)
            inner = np.stack((np.sin(angles), np.full(9, 0.42), np.cos(angles) * 0.98), axis=1)
            outer = inner * (1.0, 0.9, 1.65)
            corners = _hull(self._on_head(inner), self._on_head(outer))
        elif hat.kind == "brimmed hat":
            rim = np.stack((_CIRCLE[:, 0] * 1.7, np.full(16, 0.42), _CIRCLE[:, 1] * 1.7), axis=1)
            corners = _hull(self._on_head(rim))
        else:
            return []
        label = self._label(HAT)
        return [
            Shape(corners, _shade(hat.rgb, 0.72), label),
            Shape(_toward_centre(corners, 0.88), _shade(hat.rgb, 0.92), None),
        ]

    def _hat(self, hat: Item) -> list[Shape]:
        degrees = {"cap": 68, "beanie": 74, "brimmed hat": 66}[hat.kind]
        axis = np.array((0.0, 1.0, -0.18))
        dome = self._head_cap(axis, degrees, 1.13)
        if dome is None:
            return []
        shapes = self._outlined(_toward_centre(dome, 0.93), dome, hat.rgb, HAT)
        if hat.kind == "beanie":
            tip = self._on_head(np.array(((0.0, 1.3, -0.15),)))[0]
            size = 0.028 * self.scale
            pale = _blend(hat.rgb, (255, 255, 255), 0.55)
            shapes += self._outlined(_disc(tip, size), _disc(tip, size + self.edge), pale, HAT)
        return shapes

    def _add_seat(self) -> None:
        """A block under the pelvis of a sitting person; it belongs to nobody."""
        left, _, front = _level_axes(self.body)
        pelvis = self.points["pelvis"]
        up = np.array((0.0, -1.0, 0.0)) * self.scale
        wide, deep = 0.19 * self.scale, 0.13 * self.scale
        top = pelvis - up * 0.06 - front * (0.05 * self.scale)
        corners = np.stack([top + left * (a * wide) + front * (b * deep) for a, b in _SQUARE])
        ground = float(self.origin[1]) - float(top[1])
        below = corners + np.array((0.0, max(0.02 * self.scale, ground), 0.0))
        rgb = self.seat_rgb
        shapes = [
            Shape(_hull(corners, below), _shade(rgb, 0.5), 0),
            Shape(_toward_centre(_hull(corners, below), 0.94), _shade(rgb, 0.8), 0),
            Shape(_hull(corners), rgb, 0),
        ]
        self._parts.append((float(top[2]) - 0.06 * self.scale, shapes))

    def _add_kicked_ball(self) -> None:
        toes = [self.points["left_toe"], self.points["right_toe"]]
        toe = min(toes, key=lambda point: point[1])  # the higher foot
        front = _level_axes(self.body)[2]
        centre = toe + front * (0.1 * self.scale) + np.array((0.0, 0.03 * self.scale, 0.0))
        size = 0.06 * self.scale
        shapes = [
            Shape(_disc(centre, size + self.edge), (40, 40, 40), 0),
            Shape(_disc(centre, size), (244, 244, 240), 0),
            Shape(_disc(centre, size * 0.42), (50, 50, 56), 0),
        ]
        self._parts.append((float(centre[2]), shapes))

    def _add_thing(self, thing: Item) -> None:
        name = "left" if self.pose.active_side == 1 else "right"
        hand = self.points[f"{name}_hand"]
        scale, edge = self.scale, self.edge
        dark = _shade(thing.rgb, 0.55)
        outwards = 1.0 if hand[0] >= self.points["chest"][0] else -1.0

        def at(x: float, y: float) -> np.ndarray:
            """A point beside the hand: x outwards, y upwards, in heights of the person."""
            return np.array((hand[0] + outwards * x * scale, hand[1] - y * scale, hand[2]))

        line = max(0.6, 0.007 * scale)
        wood = (92, 66, 44)
        label = self._label(THING)
        shapes: list[Shape] = []
        if thing.kind == "balloon":
            shapes.append(
                Shape(_capsule(hand, at(0.02, 0.28), line * 0.7, line * 0.7), wood, label)
            )
            centre = at(0.02, 0.38)
            shapes.append(Shape(_disc(centre, 0.1 * scale + edge, 1.15), dark, label))
            shapes.append(Shape(_disc(centre, 0.1 * scale, 1.15), thing.rgb, label))
            shine = _blend(thing.rgb, (255, 255, 255), 0.6)
            shapes.append(Shape(_disc(at(0.05, 0.42), 0.022 * scale, 1.3), shine, label))
        elif thing.kind == "umbrella":
            shapes.append(Shape(_capsule(hand, at(-0.04, 0.5), line, line), wood, label))
            angles = np.linspace(0, math.pi, 15)
            dome = np.stack((np.cos(angles) * 0.27, np.sin(angles) * 0.19), axis=1)
            top = at(-0.05, 0.33)[:2]
            shapes.append(Shape(top + dome * (scale + 2 * edge) * (1, -1), dark, label))
            shapes.append(Shape(top + dome * scale * (1, -1), thing.rgb, label))
            rib = dome * (0.35, 1.0)
            pale = _blend(thing.rgb, (255, 255, 255), 0.3)
            shapes.append(Shape(top + rib * scale * (1, -1), pale, label))
        elif thing.kind == "bag":
            shapes.append(Shape(_capsule(hand, at(0, -0.07), line, line), dark, label))
            box = np.array(((-0.07, -0.06), (0.07, -0.06), (0.085, -0.2), (-0.085, -0.2)))
            corners = np.stack([at(x, y)[:2] for x, y in box])
            shapes.append(Shape(_toward_centre(corners, 1.0 + edge / (0.07 * scale)), dark, label))
            shapes.append(Shape(corners, thing.rgb, label))
        elif thing.kind == "flag":
            shapes.append(Shape(_capsule(at(0, -0.08), at(0.03, 0.42), line, line), wood, label))
            cloth = np.array(((0.03, 0.42), (0.25, 0.39), (0.25, 0.25), (0.02, 0.24)))
            corners = np.stack([at(x, y)[:2] for x, y in cloth])
            shapes.append(Shape(_toward_centre(corners, 1.0 + edge / (0.09 * scale)), dark, label))
            shapes.append(Shape(corners, thing.rgb, label))
        elif thing.kind == "ball":
            centre = at(0.02, 0.045)
            shapes.append(Shape(_disc(centre, 0.072 * scale + edge), dark, label))
            shapes.append(Shape(_disc(centre, 0.072 * scale), thing.rgb, label))
            shine = _blend(thing.rgb, (255, 255, 255), 0.6)
            shapes.append(Shape(_disc(at(0.04, 0.07), 0.018 * scale), shine, label))
        else:
            raise ValueError(f"unknown thing {thing.kind!r}")
        wrist = self.points[f"{name}_wrist"]
        elbow = self.points[f"{name}_elbow"]
        # Just behind the arm that holds it.
        self._parts.append((float((elbow[2] + wrist[2]) / 2) + 0.019 * scale, shapes))


_SQUARE = ((-1, -1), (1, -1), (1, 1), (-1, 1))


def _unit(*values: float) -> np.ndarray:
    vector = np.array(values, dtype=float)
    return vector / np.linalg.norm(vector)


# Places on the head, (left, up, front).
_NOSE = _unit(0.0, -0.16, 1.0)
_LEFT_EYE, _RIGHT_EYE = _unit(0.38, 0.1, 0.92), _unit(-0.38, 0.1, 0.92)
_LEFT_EAR, _RIGHT_EAR = _unit(1.0, -0.05, -0.08), _unit(-1.0, -0.05, -0.08)
_MOUTH = np.stack((_unit(0.26, -0.52, 0.8), _unit(0.0, -0.62, 0.8), _unit(-0.26, -0.52, 0.8)))


def _level_axes(body: Body) -> np.ndarray:
    """Left, up and front of the pelvis, which stays upright when the trunk leans."""
    left = body.trunk_axes[0]
    across = body.points["left_hip"] - body.points["right_hip"]
    left = across / np.linalg.norm(across)
    up = np.array((0.0, -1.0, 0.0))
    front = np.cross(up, left)
    return np.stack((left, up, front / max(float(np.linalg.norm(front)), 1e-6)))


def _toward_centre(corners: np.ndarray, share: float) -> np.ndarray:
    centre = corners.mean(axis=0)
    return centre + (corners - centre) * share


# --- surroundings --------------------------------------------------------------------------------

_SKIES: tuple[tuple[Rgb, Rgb], ...] = (
    ((150, 196, 236), (222, 236, 246)),
    ((236, 186, 150), (250, 226, 190)),
    ((170, 178, 190), (216, 220, 224)),
    ((96, 120, 170), (196, 190, 210)),
)
_GROUNDS: tuple[Rgb, ...] = ((142, 170, 110), (206, 190, 150), (168, 168, 166), (188, 160, 130))
_WALLS: tuple[Rgb, ...] = (
    (226, 216, 200),
    (200, 212, 216),
    (214, 204, 220),
    (206, 220, 200),
    (232, 224, 190),
    (190, 190, 196),
)
_FLOORS: tuple[Rgb, ...] = ((172, 138, 104), (150, 150, 152), (196, 180, 160), (126, 106, 92))
BACKGROUNDS = ("plain", "outdoors", "room", "street", "abstract")


def draw_background(
    generator: np.random.Generator, height: int, width: int, horizon: float, difficulty: float
) -> np.ndarray:
    """An image [height, width, 3] uint8 without people.

    Args:
        generator: source of randomness.
        horizon: row where the ground begins.
        difficulty: with 0 the background is plain and pale; with 1 it is full of furniture, trees,
            houses or random shapes in strong colours.
    """
    busy = generator.random() < 0.25 + 0.75 * difficulty
    kind = pick(generator, BACKGROUNDS[1:]) if busy else "plain"
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    painter = {
        "plain": _paint_plain,
        "outdoors": _paint_outdoors,
        "room": _paint_room,
        "street": _paint_street,
        "abstract": _paint_abstract,
    }[kind]
    painter(generator, canvas, int(horizon), difficulty)
    if difficulty > 0:
        # Uneven paint: mostly light and dark, a little colour.
        grain = generator.standard_normal((6, 8, 1), dtype=np.float32) * (8 * difficulty)
        grain = grain + generator.standard_normal((6, 8, 3), dtype=np.float32) * (2.5 * difficulty)
        grain = cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)
        canvas = np.clip(canvas + grain, 0, 255).astype(np.uint8)
    return canvas


def _gradient(rows: int, top: Rgb, bottom: Rgb) -> np.ndarray:
    share = np.linspace(0, 1, max(rows, 1))[:, None]
    return (np.array(top) * (1 - share) + np.array(bottom) * share)[:, None].astype(np.uint8)


def _ground(generator, canvas: np.ndarray, horizon: int, options: Sequence[Rgb]) -> None:
    rgb = vary_colour(generator, pick(generator, options), 1.0)
    rows = canvas.shape[0] - horizon
    canvas[horizon:] = _gradient(rows, _shade(rgb, 0.88), _shade(rgb, 1.06))[:rows]


def _box(canvas, x0, y0, x1, y1, rgb) -> None:
    cv2.rectangle(canvas, (int(x0), int(y0)), (int(x1), int(y1)), rgb, -1)


def _paint_plain(generator, canvas, horizon, difficulty) -> None:
    top = vary_colour(generator, pick(generator, _WALLS), 1.0)
    canvas[:] = _gradient(canvas.shape[0], _shade(top, 1.05), _shade(top, 0.9))
    if generator.random() < 0.6:
        _ground(generator, canvas, horizon, _FLOORS)


def _clutter(generator, difficulty, low, high) -> int:
    """How many things to paint."""
    return int(round(low + (high - low) * difficulty * generator.random()))


def _paint_outdoors(generator, canvas, horizon, difficulty) -> None:
    height, width = canvas.shape[:2]
    top, bottom = pick(generator, _SKIES)
    canvas[:horizon] = _gradient(horizon, top, bottom)[:horizon]
    if generator.random() < 0.5:
        centre = (int(generator.uniform(0, width)), int(generator.uniform(0, 0.6 * horizon)))
        cv2.circle(canvas, centre, int(0.05 * width), (255, 244, 200), -1, cv2.LINE_AA)
    for _ in range(_clutter(generator, difficulty, 1, 4)):  # hills
        centre = (int(generator.uniform(0, width)), horizon)
        axes = (
            int(generator.uniform(0.2, 0.5) * width),
            int(generator.uniform(0.1, 0.5) * horizon),
        )
        rgb = vary_colour(generator, (136, 158, 140), 1.0)
        cv2.ellipse(canvas, centre, axes, 0, 180, 360, rgb, -1, cv2.LINE_AA)
    _ground(generator, canvas, horizon, _GROUNDS)
    for _ in range(_clutter(generator, difficulty, 0, 5)):  # trees
        x = int(generator.uniform(0, width))
        foot = int(horizon + generator.uniform(0, 0.1) * height)
        size = generator.uniform(0.15, 0.45) * height
        trunk = vary_colour(generator, (104, 76, 52), 1.0)
        leaves = vary_colour(generator, (84, 130, 74), 1.0)
        _box(canvas, x - 0.06 * size, foot - 0.5 * size, x + 0.06 * size, foot, trunk)
        if generator.random() < 0.5:
            tip = np.array(((0, -1.3), (0.38, -0.3), (-0.38, -0.3))) * size + (x, foot)
            cv2.fillConvexPoly(canvas, _fixed(tip), leaves, cv2.LINE_AA, _SHIFT)
        else:
            for _ in range(3):
                dx, dy = generator.uniform(-0.2, 0.2, 2) * size
                centre = (int(x + dx), int(foot - 0.75 * size + dy))
                cv2.circle(canvas, centre, int(0.27 * size), leaves, -1, cv2.LINE_AA)


def _paint_room(generator, canvas, horizon, difficulty) -> None:
    height, width = canvas.shape[:2]
    wall = vary_colour(generator, pick(generator, _WALLS), 1.0)
    canvas[:horizon] = wall
    if generator.random() < 0.4 * difficulty:  # wallpaper
        paper = _shade(wall, 0.93)
        step = max(4, int(generator.uniform(0.03, 0.08) * width))
        for x in range(0, width, 2 * step):
            _box(canvas, x, 0, x + step - 1, horizon, paper)
    _ground(generator, canvas, horizon, _FLOORS)
    _box(canvas, 0, horizon - max(1, height // 60), width, horizon, _shade(wall, 0.75))
    for _ in range(_clutter(generator, difficulty, 1, 5)):
        kind = int(generator.integers(4))
        x, w = generator.uniform(0, width), generator.uniform(0.1, 0.25) * width
        rgb = vary_colour(generator, pick(generator, list(COLOURS.values())), 1.0)
        rgb = _blend(rgb, wall, 0.65 - 0.4 * difficulty)
        if kind == 0:  # window
            y, h = generator.uniform(0.05, 0.3) * horizon, generator.uniform(0.3, 0.5) * horizon
            _box(canvas, x, y, x + w, y + h, (244, 244, 240))
            _box(canvas, x + 2, y + 2, x + w - 2, y + h - 2, (176, 208, 232))
            _box(canvas, x + w / 2 - 1, y, x + w / 2 + 1, y + h, (244, 244, 240))
        elif kind == 1:  # image
            y, h = generator.uniform(0.1, 0.4) * horizon, generator.uniform(0.15, 0.35) * horizon
            _box(canvas, x, y, x + w, y + h, _shade(rgb, 0.5))
            _box(canvas, x + 2, y + 2, x + w - 2, y + h - 2, _blend(rgb, (255, 255, 255), 0.5))
            centre = (int(x + w / 2), int(y + h / 2))
            cv2.circle(canvas, centre, int(0.2 * min(w, h)), rgb, -1, cv2.LINE_AA)
        elif kind == 2:  # shelf or cupboard
            h = generator.uniform(0.4, 0.9) * horizon
            y = horizon + 0.04 * height - h
            wood = _blend((140, 100, 66), rgb, 0.3)
            _box(canvas, x, y, x + w, y + h, wood)
            for row in range(1, 4):
                _box(canvas, x, y + row * h / 4, x + w, y + row * h / 4 + 1, _shade(wood, 0.6))
        else:  # plant or lamp
            foot = horizon + 0.05 * height
            _box(canvas, x - 0.1 * w, foot - 0.9 * w, x + 0.1 * w, foot, (120, 90, 70))
            centre = (int(x), int(foot - 1.2 * w))
            cv2.circle(canvas, centre, int(0.45 * w), rgb, -1, cv2.LINE_AA)


def _paint_street(generator, canvas, horizon, difficulty) -> None:
    height, width = canvas.shape[:2]
    top, bottom = pick(generator, _SKIES)
    canvas[:horizon] = _gradient(horizon, top, bottom)[:horizon]
    x = -generator.uniform(0, 0.2) * width
    while x < width:
        w, h = generator.uniform(0.15, 0.35) * width, generator.uniform(0.4, 1.0) * horizon
        rgb = vary_colour(generator, pick(generator, list(COLOURS.values())), 1.0)
        rgb = _blend(rgb, (186, 178, 170), 0.85 - 0.35 * difficulty)
        _box(canvas, x, horizon - h, x + w, horizon, rgb)
        pane = (70, 84, 104) if generator.random() < 0.6 else (250, 236, 170)
        size = max(3.0, 0.045 * height)
        for wy in np.arange(horizon - h + size, horizon - 1.5 * size, 2.2 * size):
            for wx in np.arange(x + 0.7 * size, x + w - size, 1.9 * size):
                _box(canvas, wx, wy, wx + size * 0.8, wy + size, pane)
        x += w + generator.uniform(-0.02, 0.08) * width
    _ground(generator, canvas, horizon, ((150, 150, 152), (176, 170, 160), (120, 122, 128)))
    if generator.random() < 0.7:
        y = horizon + 0.35 * (height - horizon)
        for x in np.arange(0, width, 0.16 * width):
            _box(canvas, x, y, x + 0.08 * width, y + max(1, height // 70), (230, 228, 214))


def _paint_abstract(generator, canvas, horizon, difficulty) -> None:
    height, width = canvas.shape[:2]
    first = vary_colour(generator, pick(generator, _WALLS), 1.0)
    second = vary_colour(generator, pick(generator, _GROUNDS), 1.0)
    canvas[:] = _gradient(height, first, second)
    for _ in range(_clutter(generator, difficulty, 3, 16)):
        rgb = vary_colour(generator, pick(generator, list(COLOURS.values())), 1.0)
        rgb = _blend(rgb, first, 0.7 - 0.4 * difficulty)
        centre = generator.uniform(0, 1, 2) * (width, height)
        size = generator.uniform(0.03, 0.16) * height
        kind = int(generator.integers(3))
        if kind == 0:
            cv2.circle(canvas, (int(centre[0]), int(centre[1])), int(size), rgb, -1, cv2.LINE_AA)
        elif kind == 1:
            corners = centre + generator.uniform(-1.5, 1.5, (3, 2)) * size
            cv2.fillConvexPoly(canvas, _fixed(corners), rgb, cv2.LINE_AA, _SHIFT)
        else:
            ends = np.rint(centre + generator.uniform(-2.5, 2.5, (2, 2)) * size).astype(int)
            thickness = max(1, int(0.25 * size))
            cv2.line(canvas, tuple(ends[0]), tuple(ends[1]), rgb, thickness, cv2.LINE_AA)


def occluder_shapes(generator: np.random.Generator, height: int, width: int) -> list[Shape]:
    """Something that stands in front of people: a pole, a bush, a table or a box."""
    kind = int(generator.integers(4))
    x = generator.uniform(0.05, 0.95) * width
    rgb = vary_colour(generator, (130, 104, 80), 1.0)
    if kind == 0:  # pole
        wide = generator.uniform(0.012, 0.025) * width
        corners = np.array(((x - wide, -2), (x + wide, -2), (x + wide, height), (x - wide, height)))
        grey = vary_colour(generator, (120, 124, 130), 1.0)
        return [Shape(corners, _shade(grey, 0.6), 0), Shape(_toward_centre(corners, 0.7), grey, 0)]
    if kind == 1:  # bush
        green = vary_colour(generator, (70, 112, 66), 1.0)
        size = generator.uniform(0.08, 0.13) * height
        shapes = []
        for dx, dy in generator.uniform(-1, 1, (5, 2)):
            centre = np.array((x + dx * 1.4 * size, height + (dy * 0.4 - 0.2) * size))
            shade = _shade(green, float(1.0 + 0.15 * dy))
            shapes.append(Shape(_disc(centre, size), shade, 0))
        return shapes
    wide = generator.uniform(0.1, 0.2) * width
    high = generator.uniform(0.12, 0.22) * height
    if kind == 2:  # table
        y = height - high
        top = np.array(
            (
                (x - wide, y),
                (x + wide, y),
                (x + 1.1 * wide, y + 0.2 * high),
                (x - 1.1 * wide, y + 0.2 * high),
            )
        )
        shapes = [Shape(top, rgb, 0)]
        for leg in (-0.95, 0.95):
            corners = np.array(((-0.06, 0.2), (0.06, 0.2), (0.06, 1.1), (-0.06, 1.1)))
            shapes.append(Shape(corners * (wide, high) + (x + leg * wide, y), _shade(rgb, 0.7), 0))
        return shapes
    corners = np.array(((-1, -1), (1, -1), (1, 0.2), (-1, 0.2))) * (0.7 * wide, high) + (x, height)
    return [Shape(corners, _shade(rgb, 0.6), 0), Shape(_toward_centre(corners, 0.9), rgb, 0)]


# --- light ---------------------------------------------------------------------------------------


def draw_shadows(
    canvas: np.ndarray,
    feet: Sequence[tuple[float, float]],
    scales: Sequence[float],
    strength: float,
) -> np.ndarray:
    """The image with soft shadows on the ground below people."""
    height, width = canvas.shape[:2]
    shadow = np.zeros((height, width), dtype=np.uint8)
    for (x, y), scale in zip(feet, scales, strict=True):
        axes = (max(1, int(0.17 * scale)), max(1, int(0.045 * scale)))
        cv2.ellipse(shadow, (int(x), int(y)), axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
    shadow = cv2.blur(shadow, (5, 5))
    gain = 255 - (shadow * strength).astype(np.uint8)
    return cv2.multiply(canvas, cv2.merge((gain, gain, gain)), scale=1 / 255)


def light_and_noise(
    generator: np.random.Generator, canvas: np.ndarray, difficulty: float
) -> np.ndarray:
    """The photograph of the scene: light from one side, a tint, blur and sensor noise.

    With difficulty 0 the image stays as drawn; with 1 brightness varies by up to 35 % over the
    image and 15 % as a whole, channels by 8 %, blur up to a sigma of 0.9 pixels (at a height of
    192) and noise up to a standard deviation of 9 levels.
    """
    if difficulty <= 0:
        return canvas
    height, width = canvas.shape[:2]
    slope = generator.uniform(-0.35, 0.35, 2) * difficulty
    gain = 1.0 + generator.uniform(-0.15, 0.12) * difficulty
    tint = 1.0 + generator.uniform(-0.08, 0.08, 3) * difficulty
    rows = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    columns = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    light = (gain + np.float32(slope[0]) * rows + np.float32(slope[1]) * columns).astype(np.float32)
    image = canvas * light[:, :, None] * tint.astype(np.float32)
    if generator.random() < 0.4 * difficulty:
        sigma = generator.uniform(0.3, 0.9) * height / 192
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    level = generator.uniform(0, 9) * difficulty
    if level > 0.5:
        image += generator.standard_normal(image.shape, dtype=np.float32) * np.float32(level)
    return np.clip(image, 0, 255).astype(np.uint8)
