"""Paints what a person sits on, kicks or holds."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from datasets.synthetic.labels import THING
from datasets.synthetic.painter.figure import Figure, Part
from datasets.synthetic.people import Item, Rgb
from datasets.synthetic.shapes import Capsule, Disc, Shape, blend, hull, shade, toward_centre

_SQUARE = ((-1, -1), (1, -1), (1, 1), (-1, 1))
_WOOD: Rgb = (92, 66, 44)
_WHITE: Rgb = (255, 255, 255)


def seat_part(figure: Figure, rgb: Rgb) -> Part:
    """A block under the pelvis of a sitting person; it belongs to nobody."""
    left, front = figure.level_axes()
    scale, pelvis = figure.scale, figure.points["pelvis"]
    up = np.array((0.0, -1.0, 0.0)) * scale
    wide, deep = 0.19 * scale, 0.13 * scale
    top = pelvis - up * 0.06 - front * (0.05 * scale)
    corners = np.stack([top + left * (a * wide) + front * (b * deep) for a, b in _SQUARE])
    ground = float(figure.origin[1]) - float(top[1])
    below = corners + np.array((0.0, max(0.02 * scale, ground), 0.0))
    whole = hull(np.stack((corners, below)))
    shapes = [
        Shape(whole, shade(rgb, 0.5), 0),
        Shape(toward_centre(whole, 0.94), shade(rgb, 0.8), 0),
        Shape(hull(corners), rgb, 0),
    ]
    return Part(float(top[2]) - 0.06 * scale, shapes)


def kicked_ball_part(figure: Figure) -> Part:
    """A ball before the higher foot; it belongs to nobody."""
    toes = [figure.points["left_toe"], figure.points["right_toe"]]
    toe = min(toes, key=lambda point: point[1])  # the higher foot
    _, front = figure.level_axes()
    centre = toe + front * (0.1 * figure.scale) + np.array((0.0, 0.03 * figure.scale, 0.0))
    size = 0.06 * figure.scale
    shapes = [
        Shape(Disc(centre, size + figure.edge), (40, 40, 40), 0),
        Shape(Disc(centre, size), (244, 244, 240), 0),
        Shape(Disc(centre, size * 0.42), (50, 50, 56), 0),
    ]
    return Part(float(centre[2]), shapes)


def held_thing_part(figure: Figure, thing: Item) -> Part:
    """What the person holds in the hand of `Pose.active_side`."""
    side = "left" if figure.pose.active_side == 1 else "right"
    hand = _Hand(figure, figure.points[f"{side}_hand"])
    wrist, elbow = figure.points[f"{side}_wrist"], figure.points[f"{side}_elbow"]
    # Just behind the arm that holds it.
    depth = float((elbow[2] + wrist[2]) / 2) + 0.019 * figure.scale
    return Part(depth, _PAINTERS[thing.kind](hand, thing.rgb))


class _Hand:
    """A hand, the places around it, and the sizes of what it holds, in pixels."""

    def __init__(self, figure: Figure, hand: np.ndarray) -> None:
        self.place = hand
        self.scale, self.edge = figure.scale, figure.edge
        self.label = figure.label(THING)
        self.line = max(0.6, 0.007 * figure.scale)
        self._outwards = 1.0 if hand[0] >= figure.points["chest"][0] else -1.0

    def at(self, x: float, y: float) -> np.ndarray:
        """A point [3] beside the hand: x outwards, y upwards, in heights of the person."""
        hand, scale = self.place, self.scale
        return np.array((hand[0] + self._outwards * x * scale, hand[1] - y * scale, hand[2]))

    def corners(self, points: tuple[tuple[float, float], ...]) -> np.ndarray:
        """Such points, [n, 2]."""
        return np.stack([self.at(x, y)[:2] for x, y in points])

    def shape(self, corners: np.ndarray, rgb: Rgb) -> Shape:
        return Shape(corners, rgb, self.label)


def _dark(rgb: Rgb) -> Rgb:
    return shade(rgb, 0.55)


def _balloon(hand: _Hand, rgb: Rgb) -> list[Shape]:
    scale = hand.scale
    string = Capsule(hand.place, hand.at(0.02, 0.28), hand.line * 0.7, hand.line * 0.7)
    centre = hand.at(0.02, 0.38)
    return [
        hand.shape(string, _WOOD),
        hand.shape(Disc(centre, 0.1 * scale + hand.edge, 1.15), _dark(rgb)),
        hand.shape(Disc(centre, 0.1 * scale, 1.15), rgb),
        hand.shape(Disc(hand.at(0.05, 0.42), 0.022 * scale, 1.3), blend(rgb, _WHITE, 0.6)),
    ]


def _umbrella(hand: _Hand, rgb: Rgb) -> list[Shape]:
    angles = np.linspace(0, math.pi, 15)
    dome = np.stack((np.cos(angles) * 0.27, np.sin(angles) * 0.19), axis=1)
    top = hand.at(-0.05, 0.33)[:2]
    rib = dome * (0.35, 1.0)
    return [
        hand.shape(Capsule(hand.place, hand.at(-0.04, 0.5), hand.line, hand.line), _WOOD),
        hand.shape(top + dome * (hand.scale + 2 * hand.edge) * (1, -1), _dark(rgb)),
        hand.shape(top + dome * hand.scale * (1, -1), rgb),
        hand.shape(top + rib * hand.scale * (1, -1), blend(rgb, _WHITE, 0.3)),
    ]


def _bag(hand: _Hand, rgb: Rgb) -> list[Shape]:
    corners = hand.corners(((-0.07, -0.06), (0.07, -0.06), (0.085, -0.2), (-0.085, -0.2)))
    grown = toward_centre(corners, 1.0 + hand.edge / (0.07 * hand.scale))
    return [
        hand.shape(Capsule(hand.place, hand.at(0, -0.07), hand.line, hand.line), _dark(rgb)),
        hand.shape(grown, _dark(rgb)),
        hand.shape(corners, rgb),
    ]


def _flag(hand: _Hand, rgb: Rgb) -> list[Shape]:
    pole = Capsule(hand.at(0, -0.08), hand.at(0.03, 0.42), hand.line, hand.line)
    cloth = hand.corners(((0.03, 0.42), (0.25, 0.39), (0.25, 0.25), (0.02, 0.24)))
    grown = toward_centre(cloth, 1.0 + hand.edge / (0.09 * hand.scale))
    return [hand.shape(pole, _WOOD), hand.shape(grown, _dark(rgb)), hand.shape(cloth, rgb)]


def _ball(hand: _Hand, rgb: Rgb) -> list[Shape]:
    centre = hand.at(0.02, 0.045)
    return [
        hand.shape(Disc(centre, 0.072 * hand.scale + hand.edge), _dark(rgb)),
        hand.shape(Disc(centre, 0.072 * hand.scale), rgb),
        hand.shape(Disc(hand.at(0.04, 0.07), 0.018 * hand.scale), blend(rgb, _WHITE, 0.6)),
    ]


_PAINTERS: dict[str, Callable[[_Hand, Rgb], list[Shape]]] = {
    "balloon": _balloon,
    "umbrella": _umbrella,
    "bag": _bag,
    "flag": _flag,
    "ball": _ball,
}
