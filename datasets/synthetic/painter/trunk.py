"""Paints the trunk: tops, jackets, skirts, and the pelvis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.synthetic.labels import PELVIS, TRUNK
from datasets.synthetic.painter.figure import Figure, Part
from datasets.synthetic.people import Item, Rgb
from datasets.synthetic.shapes import CIRCLE, Shape, disc, hull, shade


def trunk_parts(figure: Figure) -> list[Part]:
    """The pelvis, bare or in a skirt, and the trunk with the top."""
    trunk = _Trunk(figure)
    points, top = figure.points, figure.appearance.top
    depth = float((points["pelvis"][2] + points["chest"][2]) / 2)
    bottom = top if top.kind == "dress" else figure.appearance.bottom
    if bottom.kind in ("skirt", "dress"):
        knees = max(points["left_knee"][2], points["right_knee"][2])
        pelvis = Part(max(depth, knees) - 0.01 * figure.scale, trunk.skirt(bottom))
    else:
        shapes = trunk.block((-0.15, 0.0, 0.3), bottom.rgb, PELVIS)
        pelvis = Part(depth - 0.005 * figure.scale, shapes)

    low = 0.02 if top.kind == "jacket" else 0.1
    shapes = trunk.block((low, 0.42, 0.9, 1.12), top.rgb, TRUNK)
    if top.pattern == "striped":
        shapes += trunk.stripes(top, low)
    elif top.pattern == "dotted":
        shapes += trunk.dots(top, (0.18, 0.42, 0.66, 0.9))
    if top.kind == "jacket":
        shapes += trunk.jacket_front()
    return [pelvis, Part(depth, shapes)]


class _Trunk:
    """The trunk as a stack of rings; heights are shares, 0 at the pelvis, 1 at the shoulders."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.pelvis, chest = figure.points["pelvis"], figure.points["chest"]
        self.up = figure.body.trunk_axes[1]
        self.length = float(np.linalg.norm(chest - self.pelvis))
        r = figure.radii
        self.wide_stations = (-0.15, 0.0, 0.42, 0.85, 1.0, 1.12)
        self.wide = (
            r["hip_wide"] * 0.9,
            r["hip_wide"],
            r["waist_wide"],
            r["chest_wide"],
            r["chest_wide"],
            r["chest_wide"] * 0.45,
        )
        self.deep_stations = (0.0, 0.42, 0.9, 1.12)
        self.deep = (r["hip_deep"], r["waist_deep"], r["chest_deep"], r["chest_deep"] * 0.6)

    def ring_at(self, share: float, grow: float = 0.0) -> np.ndarray:
        """Ring [16, 3] in pixels at a height, its radii larger by `grow` pixels."""
        wide = np.interp(share, self.wide_stations, self.wide)
        deep = np.interp(share, self.deep_stations, self.deep)
        centre = self.pelvis + self.up * (share * self.length)
        return self.figure.ring(centre, wide + grow, deep + grow)

    def block(self, stations: Sequence[float], rgb: Rgb, part: int) -> list[Shape]:
        """The trunk between the heights, with a dark outline."""
        edge, label = self.figure.edge, self.figure.label(part)
        pairs = list(zip(stations[:-1], stations[1:], strict=True))
        dark = [
            Shape(hull(self.ring_at(a, edge), self.ring_at(b, edge)), shade(rgb, 0.55), label)
            for a, b in pairs
        ]
        return dark + [Shape(hull(self.ring_at(a), self.ring_at(b)), rgb, None) for a, b in pairs]

    def skirt(self, item: Item) -> list[Shape]:
        """A skirt, or the lower half of a dress."""
        figure, points = self.figure, self.figure.points
        radius = figure.radii["thigh"] * 1.35
        reach = 0.95 if item.kind == "skirt" else 1.1
        hem, hem_grown = [], []
        for side in ("left", "right"):
            hip, knee = points[f"{side}_hip"], points[f"{side}_knee"]
            end = hip + (knee - hip) * reach
            hem.append(disc(end, radius))
            hem_grown.append(disc(end, radius + figure.edge))
        waist = 0.3
        shapes = figure.outlined(
            hull(self.ring_at(0.0), self.ring_at(waist), *hem),
            hull(self.ring_at(0.0, figure.edge), self.ring_at(waist, figure.edge), *hem_grown),
            item.rgb,
            PELVIS,
        )
        if item.pattern == "dotted" and item.kind == "dress":
            shapes += self.dots(item, (0.0,))
        return shapes

    def stripes(self, item: Item, low: float) -> list[Shape]:
        """Stripes across the trunk, from the height `low` upwards."""
        step = self.figure.stripe_step / max(self.length, 1e-6)
        across = np.array((-self.up[1], self.up[0]))
        shapes = []
        for share in np.arange(low + 0.6 * step, 1.0, 2 * step):
            ends = []
            for ring in (self.ring_at(share), self.ring_at(min(1.02, share + 0.85 * step))):
                sideways = ring[:, :2] @ across
                ends += [ring[sideways.argmin(), :2], ring[sideways.argmax(), :2]]
            band = np.stack((ends[0], ends[1], ends[3], ends[2]))
            shapes.append(Shape(band, item.second_rgb, None))
        return shapes

    def dots(self, item: Item, shares: Sequence[float]) -> list[Shape]:
        """Dots on the rings at some heights, where they turn to the viewer."""
        left, _, front = self.figure.body.trunk_axes
        normals = CIRCLE[:, :1] * left + CIRCLE[:, 1:] * front
        radius = max(0.9, 0.017 * self.figure.scale)
        shapes = []
        for row, share in enumerate(shares):
            ring = self.ring_at(share)
            for k in range(row % 2, 16, 2):
                if normals[k, 2] > 0.3:
                    shapes.append(Shape(disc(ring[k], radius), item.second_rgb, None))
        return shapes

    def jacket_front(self) -> list[Shape]:
        """The open front with the shirt below it, where it can be seen."""
        if self.figure.body.trunk_axes[2][2] < 0.15:
            return []
        dark_jacket = sum(self.figure.appearance.top.rgb) < 480
        rgb = (235, 235, 230) if dark_jacket else (60, 60, 66)
        # Ring point 4 is the middle of the front; its neighbours lie 22.5 degrees beside it.
        rows = [self.ring_at(share)[3:6] for share in (0.06, 0.42, 0.9, 1.08)]
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
            shapes.append(Shape(hull(corners), rgb, None))
        return shapes
