"""Paints legs and arms, with what is worn on them."""

from __future__ import annotations

import math

import numpy as np

from datasets.synthetic import labels
from datasets.synthetic.painter.figure import Figure, Part
from datasets.synthetic.people import Item
from datasets.synthetic.shapes import Shape


def leg_parts(figure: Figure) -> list[Part]:
    """Both legs with shoes, trousers or shorts; a skirt belongs to the trunk."""
    return [
        _leg(figure, "left", labels.LEFT_THIGH, labels.LEFT_SHIN),
        _leg(figure, "right", labels.RIGHT_THIGH, labels.RIGHT_SHIN),
    ]


def _leg(figure: Figure, side: str, thigh_part: int, shin_part: int) -> Part:
    look, r, points = figure.appearance, figure.radii, figure.points
    bottom = look.bottom
    hip, knee, ankle = points[f"{side}_hip"], points[f"{side}_knee"], points[f"{side}_ankle"]
    heel, toe = points[f"{side}_heel"], points[f"{side}_toe"]
    long = bottom is not None and bottom.kind == "trousers"
    cloth = bottom.rgb if long else look.skin
    slim = 1.0 if long else 0.85
    shapes = figure.limb(heel, toe, r["foot"], r["foot"] * 0.9, look.shoes, shin_part)
    lower = figure.limb(knee, ankle, r["knee"] * slim, r["ankle"] * slim, cloth, shin_part)
    upper = figure.limb(hip, knee, r["thigh"] * slim, r["knee"] * slim, cloth, thigh_part)
    if bottom is not None and bottom.kind == "shorts":
        hem = hip + (knee - hip) * 0.72
        upper += figure.limb(hip, hem, r["thigh"], r["thigh"] * 0.98, bottom.rgb, thigh_part)
    if long:
        upper += _bands(figure, bottom, hip, knee, r["thigh"], r["knee"])
        lower += _bands(figure, bottom, knee, ankle, r["knee"], r["ankle"])
    # A knee that points to the viewer lies before the shin, one that points away behind it.
    shapes += upper + lower if ankle[2] >= knee[2] else lower + upper
    return Part((knee[2] + ankle[2]) / 2 - 0.02 * figure.scale, shapes)


def arm_parts(figure: Figure) -> list[Part]:
    """Both arms with sleeves and hands."""
    return [
        _arm(figure, "left", labels.LEFT_UPPER_ARM, labels.LEFT_FOREARM),
        _arm(figure, "right", labels.RIGHT_UPPER_ARM, labels.RIGHT_FOREARM),
    ]


def _arm(figure: Figure, side: str, upper_part: int, fore_part: int) -> Part:
    look, r, points = figure.appearance, figure.radii, figure.points
    top = look.top
    long = top.kind in ("sweater", "jacket")
    shoulder, elbow = points[f"{side}_shoulder"], points[f"{side}_elbow"]
    wrist, hand = points[f"{side}_wrist"], points[f"{side}_hand"]
    cloth = top.rgb if long else look.skin
    slim = 1.0 if long else 0.85
    upper = figure.limb(
        shoulder, elbow, r["upper_arm"] * slim, r["elbow"] * slim, cloth, upper_part
    )
    if long:
        upper += _bands(figure, top, shoulder, elbow, r["upper_arm"], r["elbow"])
    else:
        hem = shoulder + (elbow - shoulder) * 0.58
        radius = r["upper_arm"] * 1.12
        upper += figure.limb(shoulder, hem, radius, radius, top.rgb, upper_part)
        upper += _bands(figure, top, shoulder, hem, radius, radius)
    fore = figure.limb(wrist, hand, r["hand"] * 0.75, r["hand"] * 0.9, look.skin, fore_part)
    fore += figure.limb(elbow, wrist, r["elbow"] * slim, r["wrist"] * slim, cloth, fore_part)
    if long:
        fore += _bands(figure, top, elbow, wrist, r["elbow"], r["wrist"])
    # An arm at the side is drawn over the trunk unless it is clearly behind it.
    depth = float((elbow[2] + wrist[2]) / 2) + 0.05 * figure.scale
    trunk_depth = float((points["pelvis"][2] + points["chest"][2]) / 2)
    if abs(depth - trunk_depth) < 0.02 * figure.scale:
        depth = trunk_depth + 0.02 * figure.scale
    return Part(depth, upper + fore)


def _bands(
    figure: Figure,
    item: Item,
    start: np.ndarray,
    end: np.ndarray,
    start_radius: float,
    end_radius: float,
) -> list[Shape]:
    """Stripes across a segment of a limb, none where the item is not striped."""
    if item.pattern != "striped":
        return []
    axis = end[:2] - start[:2]
    length = math.hypot(*axis.tolist())
    step = figure.stripe_step
    if length < step:
        return []
    across = np.array((-axis[1], axis[0])) / length
    # A stripe's corners: two where it begins, on either side of the limb, and two where it ends.
    offsets = np.arange(step * 0.5, length - 0.3 * step, 2 * step)
    low, high = offsets / length, np.minimum(1.0, (offsets + 0.85 * step) / length)
    shares = np.stack((low, low, high, high), axis=1)[..., None]
    sideways = np.array(((1,), (-1,), (-1,), (1,))) * across
    wide = start_radius + (end_radius - start_radius) * shares
    stripes = start[:2] + axis * shares + sideways * wide
    return [Shape(corners, item.second_rgb, None) for corners in stripes]
