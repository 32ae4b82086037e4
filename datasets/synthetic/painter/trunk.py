"""Paints the trunk: tops, jackets, skirts, and the pelvis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from datasets.synthetic.labels import PELVIS, TRUNK
from datasets.synthetic.painter.figure import Figure, Part
from datasets.synthetic.people import Item, Rgb
from datasets.synthetic.shapes import CIRCLE, Disc, Shape, disc_corners, hull, shade

# Heights of what is drawn around pelvis and trunk; the trunk begins below these, see `trunk_parts`.
_PELVIS, _TRUNK = (-0.15, 0.0, 0.3), (0.42, 0.9, 1.12)
# Heights at which the radii are known.
_WIDE_STATIONS = np.array((-0.15, 0.0, 0.42, 0.85, 1.0, 1.12))
_DEEP_STATIONS = np.array((0.0, 0.42, 0.9, 1.12))


def trunk_parts(figure: Figure) -> list[Part]:
    """The pelvis, bare or in a skirt, and the trunk with the top."""
    points, top = figure.points, figure.appearance.top
    low = 0.02 if top.kind == "jacket" else 0.1
    trunk = _Trunk(figure)
    # With a dark edge and without: around the pelvis, and around the trunk.
    rings = trunk.rings((*_PELVIS, low, *_TRUNK), (figure.edge, 0.0))[..., :2].astype(np.float32)
    around_pelvis, around_trunk = rings[:, : len(_PELVIS)], rings[:, len(_PELVIS) :]
    depth = float((points["pelvis"][2] + points["chest"][2]) / 2)
    bottom = top if top.kind == "dress" else figure.appearance.bottom
    if bottom.kind in ("skirt", "dress"):
        knees = max(points["left_knee"][2], points["right_knee"][2])
        pelvis = Part(
            max(depth, knees) - 0.01 * figure.scale, trunk.skirt(bottom, around_pelvis[:, 1:])
        )
    else:
        shapes = _block(figure, around_pelvis, bottom.rgb, PELVIS)
        pelvis = Part(depth - 0.005 * figure.scale, shapes)

    shapes = _block(figure, around_trunk, top.rgb, TRUNK)
    if top.pattern == "striped":
        shapes += trunk.stripes(top, low)
    elif top.pattern == "dotted":
        shapes += trunk.dots(top, (0.18, 0.42, 0.66, 0.9))
    if top.kind == "jacket":
        shapes += trunk.jacket_front()
    return [pelvis, Part(depth, shapes)]


def _block(figure: Figure, rings: np.ndarray, rgb: Rgb, part: int) -> list[Shape]:
    """What lies between rings [2, n, 16, 2] with and without a dark edge, one above the other."""
    label, dark = figure.label(part), shade(rgb, 0.55)
    grown, own = ([hull(of_one[i : i + 2]) for i in range(len(of_one) - 1)] for of_one in rings)
    return [
        *(Shape(outline, dark, label) for outline in grown),
        *(Shape(outline, rgb, None) for outline in own),
    ]


class _Trunk:
    """The trunk as a stack of rings; heights are shares, 0 at the pelvis, 1 at the shoulders."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure
        self.pelvis, chest = figure.points["pelvis"], figure.points["chest"]
        self.up = figure.body.trunk_axes[1]
        self.length = float(np.linalg.norm(chest - self.pelvis))
        r = figure.radii
        self.wide = (
            r["hip_wide"] * 0.9,
            r["hip_wide"],
            r["waist_wide"],
            r["chest_wide"],
            r["chest_wide"],
            r["chest_wide"] * 0.45,
        )
        self.deep = (r["hip_deep"], r["waist_deep"], r["chest_deep"], r["chest_deep"] * 0.6)

    def rings(self, shares: Sequence[float], grow: Sequence[float] = (0.0,)) -> np.ndarray:
        """Rings [g, n, 16, 3] in pixels at n heights, square to the trunk.

        Args:
            shares: the heights.
            grow: g lengths in pixels by which the radii are larger.
        """
        more = np.array(grow)[:, None, None, None]
        wide = np.interp(shares, _WIDE_STATIONS, self.wide)[:, None, None] + more
        deep = np.interp(shares, _DEEP_STATIONS, self.deep)[:, None, None] + more
        centres = self.pelvis + self.up * (np.asarray(shares) * self.length)[:, None]
        left, _, front = self.figure.body.trunk_axes
        return centres[:, None] + CIRCLE[:, :1] * (left * wide) + CIRCLE[:, 1:] * (front * deep)

    def skirt(self, item: Item, waists: np.ndarray) -> list[Shape]:
        """A skirt, or the lower half of a dress, with a dark edge.

        Args:
            item: what it is.
            waists: the two rings [2, 2, 16, 2] at its top, with the edge and without.
        """
        figure, points = self.figure, self.figure.points
        radius = figure.radii["thigh"] * 1.35
        reach = 0.95 if item.kind == "skirt" else 1.1
        ends = []
        for side in ("left", "right"):
            hip, knee = points[f"{side}_hip"], points[f"{side}_knee"]
            ends.append(hip + (knee - hip) * reach)
        hems = disc_corners(
            [Disc(end, radius + edge) for edge in (figure.edge, 0.0) for end in ends]
        )
        grown, outline = np.concatenate((waists, hems.reshape(waists.shape)), axis=1)
        shapes = figure.outlined(hull(outline), hull(grown), item.rgb, PELVIS)
        if item.pattern == "dotted" and item.kind == "dress":
            shapes += self.dots(item, (0.0,))
        return shapes

    def stripes(self, item: Item, low: float) -> list[Shape]:
        """Stripes across the trunk, from the height `low` upwards."""
        step = self.figure.stripe_step / max(self.length, 1e-6)
        across = np.array((-self.up[1], self.up[0]))
        starts = np.arange(low + 0.6 * step, 1.0, 2 * step)
        sides = []
        for shares in (starts, np.minimum(1.02, starts + 0.85 * step)):
            rings = self.rings(shares)[0, ..., :2]
            sideways, every = rings @ across, np.arange(len(rings))
            sides += [rings[every, sideways.argmin(1)], rings[every, sideways.argmax(1)]]
        bands = np.stack((sides[0], sides[1], sides[3], sides[2]), axis=1)
        return [Shape(band, item.second_rgb, None) for band in bands]

    def dots(self, item: Item, shares: Sequence[float]) -> list[Shape]:
        """Dots on the rings at some heights, where they turn to the viewer."""
        left, _, front = self.figure.body.trunk_axes
        towards = CIRCLE[:, 0] * left[2] + CIRCLE[:, 1] * front[2]
        radius = max(0.9, 0.017 * self.figure.scale)
        return [
            Shape(Disc(ring[k], radius), item.second_rgb, None)
            for row, ring in enumerate(self.rings(shares)[0])
            for k in range(row % 2, 16, 2)
            if towards[k] > 0.3
        ]

    def jacket_front(self) -> list[Shape]:
        """The open front with the shirt below it, where it can be seen."""
        if self.figure.body.trunk_axes[2][2] < 0.15:
            return []
        dark_jacket = sum(self.figure.appearance.top.rgb) < 480
        rgb = (235, 235, 230) if dark_jacket else (60, 60, 66)
        # Ring point 4 is the middle of the front; its neighbours lie 22.5 degrees beside it.
        rows = self.rings((0.06, 0.42, 0.9, 1.08))[0]
        middle, beside = rows[:, 4:5], rows[:, 3:6:2]
        lower = middle + (beside - middle) * 0.55
        upper = middle + (beside - middle) * 0.7
        corners = np.concatenate((lower[:-1], upper[1:, ::-1]), axis=1)
        return [Shape(hull(four), rgb, None) for four in corners]
