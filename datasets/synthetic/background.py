"""What stands behind and before the people of a synthetic image.

Painted in place onto a canvas [h, w, 3] uint8 RGB; coordinates are (x, y) in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from datasets.synthetic.people import COLOURS, Rgb, pick, vary_colour
from datasets.synthetic.shapes import SHIFT, Disc, Shape, blend, fixed, shade, toward_centre

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
        grain += canvas
        canvas = np.clip(grain, 0, 255, out=grain).astype(np.uint8)
    return canvas


def _gradient(rows: int, width: int, top: Rgb, bottom: Rgb) -> np.ndarray:
    """From the first row's colour to the last one's: [rows, width, 3] uint8."""
    share = np.linspace(0, 1, rows)[:, None]
    column = (np.array(top) * (1 - share) + np.array(bottom) * share).astype(np.uint8)
    # Merging channels is ten times as fast as repeating pixels of three bytes.
    return cv2.merge([np.repeat(column[:, i : i + 1], width, axis=1) for i in range(3)])


def _ground(
    generator: np.random.Generator, canvas: np.ndarray, horizon: int, options: Sequence[Rgb]
) -> None:
    rgb = vary_colour(generator, pick(generator, options), 1.0)
    height, width = canvas.shape[:2]
    canvas[horizon:] = _gradient(height - horizon, width, shade(rgb, 0.88), shade(rgb, 1.06))


def _box(canvas: np.ndarray, x0: float, y0: float, x1: float, y1: float, rgb: Rgb) -> None:
    cv2.rectangle(canvas, (int(x0), int(y0)), (int(x1), int(y1)), rgb, -1)


def _paint_plain(
    generator: np.random.Generator, canvas: np.ndarray, horizon: int, difficulty: float
) -> None:
    top = vary_colour(generator, pick(generator, _WALLS), 1.0)
    canvas[:] = _gradient(*canvas.shape[:2], shade(top, 1.05), shade(top, 0.9))
    if generator.random() < 0.6:
        _ground(generator, canvas, horizon, _FLOORS)


def _clutter(generator: np.random.Generator, difficulty: float, low: int, high: int) -> int:
    """How many things to paint."""
    return int(round(low + (high - low) * difficulty * generator.random()))


def _paint_outdoors(
    generator: np.random.Generator, canvas: np.ndarray, horizon: int, difficulty: float
) -> None:
    height, width = canvas.shape[:2]
    top, bottom = pick(generator, _SKIES)
    canvas[:horizon] = _gradient(horizon, width, top, bottom)
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
            cv2.fillConvexPoly(canvas, fixed(tip), leaves, cv2.LINE_AA, SHIFT)
        else:
            for _ in range(3):
                dx, dy = generator.uniform(-0.2, 0.2, 2) * size
                centre = (int(x + dx), int(foot - 0.75 * size + dy))
                cv2.circle(canvas, centre, int(0.27 * size), leaves, -1, cv2.LINE_AA)


def _paint_room(
    generator: np.random.Generator, canvas: np.ndarray, horizon: int, difficulty: float
) -> None:
    height, width = canvas.shape[:2]
    wall = vary_colour(generator, pick(generator, _WALLS), 1.0)
    _box(canvas, 0, 0, width, horizon - 1, wall)
    if generator.random() < 0.4 * difficulty:  # wallpaper
        paper = shade(wall, 0.93)
        step = max(4, int(generator.uniform(0.03, 0.08) * width))
        for x in range(0, width, 2 * step):
            _box(canvas, x, 0, x + step - 1, horizon, paper)
    _ground(generator, canvas, horizon, _FLOORS)
    _box(canvas, 0, horizon - max(1, height // 60), width, horizon, shade(wall, 0.75))
    for _ in range(_clutter(generator, difficulty, 1, 5)):
        kind = int(generator.integers(4))
        x, w = generator.uniform(0, width), generator.uniform(0.1, 0.25) * width
        rgb = vary_colour(generator, pick(generator, list(COLOURS.values())), 1.0)
        rgb = blend(rgb, wall, 0.65 - 0.4 * difficulty)
        if kind == 0:  # window
            y, h = generator.uniform(0.05, 0.3) * horizon, generator.uniform(0.3, 0.5) * horizon
            _box(canvas, x, y, x + w, y + h, (244, 244, 240))
            _box(canvas, x + 2, y + 2, x + w - 2, y + h - 2, (176, 208, 232))
            _box(canvas, x + w / 2 - 1, y, x + w / 2 + 1, y + h, (244, 244, 240))
        elif kind == 1:  # something framed
            y, h = generator.uniform(0.1, 0.4) * horizon, generator.uniform(0.15, 0.35) * horizon
            _box(canvas, x, y, x + w, y + h, shade(rgb, 0.5))
            _box(canvas, x + 2, y + 2, x + w - 2, y + h - 2, blend(rgb, (255, 255, 255), 0.5))
            centre = (int(x + w / 2), int(y + h / 2))
            cv2.circle(canvas, centre, int(0.2 * min(w, h)), rgb, -1, cv2.LINE_AA)
        elif kind == 2:  # shelf or cupboard
            h = generator.uniform(0.4, 0.9) * horizon
            y = horizon + 0.04 * height - h
            wood = blend((140, 100, 66), rgb, 0.3)
            _box(canvas, x, y, x + w, y + h, wood)
            for row in range(1, 4):
                _box(canvas, x, y + row * h / 4, x + w, y + row * h / 4 + 1, shade(wood, 0.6))
        else:  # plant or lamp
            foot = horizon + 0.05 * height
            _box(canvas, x - 0.1 * w, foot - 0.9 * w, x + 0.1 * w, foot, (120, 90, 70))
            centre = (int(x), int(foot - 1.2 * w))
            cv2.circle(canvas, centre, int(0.45 * w), rgb, -1, cv2.LINE_AA)


def _paint_street(
    generator: np.random.Generator, canvas: np.ndarray, horizon: int, difficulty: float
) -> None:
    height, width = canvas.shape[:2]
    top, bottom = pick(generator, _SKIES)
    canvas[:horizon] = _gradient(horizon, width, top, bottom)
    x = -generator.uniform(0, 0.2) * width
    while x < width:
        w, h = generator.uniform(0.15, 0.35) * width, generator.uniform(0.4, 1.0) * horizon
        rgb = vary_colour(generator, pick(generator, list(COLOURS.values())), 1.0)
        rgb = blend(rgb, (186, 178, 170), 0.85 - 0.35 * difficulty)
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


def _paint_abstract(
    generator: np.random.Generator, canvas: np.ndarray, horizon: int, difficulty: float
) -> None:
    height, width = canvas.shape[:2]
    first = vary_colour(generator, pick(generator, _WALLS), 1.0)
    second = vary_colour(generator, pick(generator, _GROUNDS), 1.0)
    canvas[:] = _gradient(height, width, first, second)
    for _ in range(_clutter(generator, difficulty, 3, 16)):
        rgb = vary_colour(generator, pick(generator, list(COLOURS.values())), 1.0)
        rgb = blend(rgb, first, 0.7 - 0.4 * difficulty)
        centre = generator.uniform(0, 1, 2) * (width, height)
        size = generator.uniform(0.03, 0.16) * height
        kind = int(generator.integers(3))
        if kind == 0:
            cv2.circle(canvas, (int(centre[0]), int(centre[1])), int(size), rgb, -1, cv2.LINE_AA)
        elif kind == 1:
            corners = centre + generator.uniform(-1.5, 1.5, (3, 2)) * size
            cv2.fillConvexPoly(canvas, fixed(corners), rgb, cv2.LINE_AA, SHIFT)
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
        return [Shape(corners, shade(grey, 0.6), 0), Shape(toward_centre(corners, 0.7), grey, 0)]
    if kind == 1:  # bush
        green = vary_colour(generator, (70, 112, 66), 1.0)
        size = generator.uniform(0.08, 0.13) * height
        shapes = []
        for dx, dy in generator.uniform(-1, 1, (5, 2)):
            centre = np.array((x + dx * 1.4 * size, height + (dy * 0.4 - 0.2) * size, 0.0))
            leaves = shade(green, float(1.0 + 0.15 * dy))
            shapes.append(Shape(Disc(centre, size), leaves, 0))
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
            shapes.append(Shape(corners * (wide, high) + (x + leg * wide, y), shade(rgb, 0.7), 0))
        return shapes
    corners = np.array(((-1, -1), (1, -1), (1, 0.2), (-1, 0.2))) * (0.7 * wide, high) + (x, height)
    return [Shape(corners, shade(rgb, 0.6), 0), Shape(toward_centre(corners, 0.9), rgb, 0)]
