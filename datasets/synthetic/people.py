"""Who the people of the synthetic data set are: looks and poses.

Nothing is drawn here.  `draw_appearance` and `draw_pose` decide what a person looks like and does.
`ScenePerson` is what can be seen of the person in a finished image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (208, 36, 40),
    "orange": (243, 132, 30),
    "yellow": (246, 214, 48),
    "green": (46, 152, 66),
    "blue": (40, 86, 204),
    "purple": (122, 54, 166),
    "pink": (246, 138, 184),
    "brown": (118, 72, 40),
    "black": (36, 36, 40),
    "white": (240, 240, 238),
}
"""The ten colours of clothes and things."""

HAIR_COLOURS: dict[str, Rgb] = {
    "black": (30, 26, 24),
    "brown": (92, 56, 30),
    "blond": (226, 188, 104),
    "red": (176, 78, 30),
    "gray": (160, 160, 162),
}

SKINS: tuple[Rgb, ...] = (
    (250, 218, 192),
    (240, 196, 162),
    (218, 168, 128),
    (182, 130, 92),
    (140, 94, 64),
    (98, 66, 46),
)

MEN, WOMEN, BOYS, GIRLS = "man", "woman", "boy", "girl"
ACTIONS = (
    "standing",
    "walking",
    "running",
    "sitting",
    "kicking",
    "bending",
    "crouching",
    "jumping",
)
ARMS = ("down", "waving", "raised", "hips", "pointing", "holding")
TOPS = ("t-shirt", "sweater", "jacket")
BOTTOMS = ("trousers", "shorts", "skirt")
HATS = ("cap", "beanie", "brimmed hat")
THINGS = ("balloon", "umbrella", "bag", "ball", "flag")
PATTERNS = ("plain", "striped", "dotted")

ARMS_OF_ACTION: dict[str, tuple[str, ...]] = {
    "standing": ARMS,
    "walking": ("down", "waving", "holding", "pointing"),
    "running": ("down",),
    "sitting": ("down", "waving", "raised", "pointing", "holding"),
    "kicking": ("down",),
    "bending": ("down",),
    "crouching": ("down", "waving", "raised"),
    "jumping": ("raised", "down"),
}
"""Which arms go with which action; "down" means that the action itself moves the arms."""

T = TypeVar("T")


def pick(generator: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(generator.integers(len(options)))]


@dataclass(frozen=True)
class Item:
    """A piece of clothing or a thing in the hand.

    Attributes:
        kind: one of TOPS, "dress", BOTTOMS, HATS or THINGS.
        colour: name of its (main) colour, a key of COLOURS.
        rgb: the colour as drawn, varied around the named one.
        pattern: one of PATTERNS.
        second_colour: name of the colour of stripes or dots, None where it is plain.
        second_rgb: that colour.
    """

    kind: str
    colour: str
    rgb: Rgb
    pattern: str = "plain"
    second_colour: str | None = None
    second_rgb: Rgb = (255, 255, 255)

    def shows(self, colour: str) -> bool:
        """Whether somebody might call it an item of this colour."""
        return colour in (self.colour, self.second_colour)


@dataclass(frozen=True)
class Appearance:
    """What a person looks like.

    Attributes:
        kind: "man", "woman", "boy" or "girl"; women and girls have long hair, men and boys short
            hair or none.
        build: "slim", "average" or "stout".
        skin: RGB.
        hair_colour: a key of HAIR_COLOURS, or None for a bald man.
        hair: RGB of the hair.
        beard: whether a man has one.
        glasses: whether the person wears glasses.
        top: t-shirt, sweater, jacket or dress.
        bottom: trousers, shorts or skirt; None under a dress.
        hat: cap, beanie or brimmed hat, or None.
        shoes: RGB.
        thing: what the person holds, or None.
    """

    kind: str
    build: str
    skin: Rgb
    hair_colour: str | None
    hair: Rgb
    beard: bool
    glasses: bool
    top: Item
    bottom: Item | None
    hat: Item | None
    shoes: Rgb
    thing: Item | None

    @property
    def is_child(self) -> bool:
        return self.kind in (BOYS, GIRLS)

    @property
    def long_hair(self) -> bool:
        return self.kind in (WOMEN, GIRLS)


@dataclass(frozen=True)
class Limb:
    """Directions of a limb's two segments in the body frame, degrees.

    `out` turns from straight down to the side away from the body, `forward` from straight down to
    the front: (0, 0) hangs, (90, 0) points to the side, (180, 0) up, (0, 90) to the front.
    """

    out: float
    forward: float
    lower_out: float
    lower_forward: float


@dataclass(frozen=True)
class Pose:
    """What a person does.

    Attributes:
        action: one of ACTIONS.
        arms: one of ARMS.
        yaw: degrees; 0 faces the viewer, 90 the viewer's right, 180 away, 270 the viewer's left.
        lean, roll: forward and sideways inclination of the trunk, degrees.
        head_turn, head_nod: of the head against the trunk, degrees; positive to the person's left
            and downwards.
        left_arm, right_arm, left_leg, right_leg: the limbs.
        lift: height of the feet over the ground, in heights of the person.
        active_side: +1 where the arm that waves, points or holds is the person's left, else -1.
    """

    action: str
    arms: str
    yaw: float
    lean: float
    roll: float
    head_turn: float
    head_nod: float
    left_arm: Limb
    right_arm: Limb
    left_leg: Limb
    right_leg: Limb
    lift: float
    active_side: int

    @property
    def facing(self) -> str:
        """Where the person faces, for the viewer: "viewer", "right", "away" or "left"."""
        return ("viewer", "right", "away", "left")[int(((self.yaw + 45) % 360) // 90)]


# --- looks ---------------------------------------------------------------------------------------


def vary_colour(generator: np.random.Generator, rgb: Rgb, amount: float) -> Rgb:
    """A colour near the given one: brightness varies by up to 22 %, each channel by 14 levels."""
    gain = 1.0 + amount * generator.uniform(-0.22, 0.14)
    red, green, blue = generator.uniform(-14, 14, 3).tolist()
    return (
        int(min(255, max(0, rgb[0] * gain + amount * red))),
        int(min(255, max(0, rgb[1] * gain + amount * green))),
        int(min(255, max(0, rgb[2] * gain + amount * blue))),
    )


def _draw_item(
    generator: np.random.Generator, kind: str, colours: Sequence[str], variation: float
) -> Item:
    colour = pick(generator, colours)
    return Item(kind, colour, vary_colour(generator, COLOURS[colour], variation))


def draw_appearance(
    generator: np.random.Generator,
    difficulty: float,
    others: Sequence[Appearance],
    thing_kind: str | None,
) -> Appearance:
    """Looks of a new person of a scene.

    Args:
        generator: source of randomness.
        difficulty: in [0, 1]; more children, hats, patterns, colour variation and, above all,
            people who share a colour with somebody else of the scene.
        others: the people already there.  With difficulty 0 nobody repeats a colour of a top.
        thing_kind: what the person holds, one of THINGS, or None.
    """
    variation = 0.3 + 0.7 * difficulty
    child = generator.random() < 0.15 * difficulty
    female = generator.random() < 0.5
    kind = (GIRLS if child else WOMEN) if female else (BOYS if child else MEN)
    build = ("slim", "average", "average", "stout")[int(generator.integers(4))]

    colours = list(COLOURS)
    taken = [person.top.colour for person in others]
    if others and generator.random() < 0.45 * difficulty:
        top_colours = taken
    else:
        top_colours = [colour for colour in colours if colour not in taken] or colours
    dress = female and generator.random() < 0.22
    top = _draw_item(generator, "dress" if dress else pick(generator, TOPS), top_colours, variation)
    draw = generator.random()
    if draw < 0.12 + 0.23 * difficulty:
        pattern = "striped" if draw < 0.08 + 0.15 * difficulty else "dotted"
        second = "white" if top.colour not in ("white", "yellow", "pink") else "black"
        if generator.random() < 0.3:
            second = {"white": "blue", "yellow": "green", "pink": "purple"}.get(top.colour, second)
        top = Item(top.kind, top.colour, top.rgb, pattern, second, COLOURS[second])

    bottom = None
    if not dress:
        kinds = BOTTOMS if female else BOTTOMS[:2]
        bottom_colours = [colour for colour in colours if colour != top.colour]
        if others and generator.random() < 0.3 * difficulty:
            worn = [o.bottom.colour for o in others if o.bottom and o.bottom.colour != top.colour]
            bottom_colours = worn or bottom_colours
        bottom = _draw_item(generator, pick(generator, kinds), bottom_colours, variation)

    hat = None
    if generator.random() < 0.2 + 0.15 * difficulty:
        hat = _draw_item(generator, pick(generator, HATS), colours, variation)

    bald = kind == MEN and generator.random() < 0.12
    hair_colour = None if bald else pick(generator, list(HAIR_COLOURS))
    hair = vary_colour(generator, HAIR_COLOURS[hair_colour or "black"], 0.6 * variation)
    return Appearance(
        kind=kind,
        build=build,
        skin=vary_colour(generator, pick(generator, SKINS), 0.5),
        hair_colour=hair_colour,
        hair=hair,
        beard=kind == MEN and generator.random() < 0.2,
        glasses=bool(generator.random() < 0.15),
        top=top,
        bottom=bottom,
        hat=hat,
        shoes=vary_colour(generator, pick(generator, list(COLOURS.values())), 1.0),
        thing=None if thing_kind is None else _draw_item(generator, thing_kind, colours, variation),
    )


# --- poses ---------------------------------------------------------------------------------------


def draw_pose(generator: np.random.Generator, difficulty: float) -> tuple[Pose, str | None]:
    """A pose and the kind of thing in the hand (None without one).

    With difficulty 0 most people stand, walk, sit, wave or raise their arms and face the viewer,
    turned by at most 20 degrees; with 1 all actions are about equally likely and every third
    person faces away or sideways.
    """
    easy = ("standing", "standing", "walking", "sitting")
    action = pick(generator, ACTIONS if generator.random() < 0.25 + 0.5 * difficulty else easy)
    arms = pick(generator, ARMS_OF_ACTION[action])
    thing = pick(generator, THINGS) if arms == "holding" else None

    spread = 0.5 + 0.5 * difficulty

    def jitter(amount: float) -> float:
        return min(2.0, max(-2.0, generator.standard_normal())) * amount * spread

    side = 1 if generator.random() < 0.5 else -1
    legs, lean, lift = _draw_legs(action, side, jitter)
    limbs = _draw_arms(action, arms, thing, side, jitter)
    return (
        Pose(
            action=action,
            arms=arms,
            yaw=_draw_yaw(generator, action, arms, difficulty),
            lean=lean,
            roll=jitter(3.0),
            head_turn=jitter(12.0),
            head_nod=jitter(5.0) + (0.25 * lean if action != "bending" else 15.0),
            left_arm=limbs[1],
            right_arm=limbs[-1],
            left_leg=legs[1],
            right_leg=legs[-1],
            lift=lift,
            active_side=side,
        ),
        thing,
    )


def _draw_yaw(generator: np.random.Generator, action: str, arms: str, difficulty: float) -> float:
    turned = 20 + 15 * difficulty
    draw = generator.random()
    sideways = {"walking": 0.55, "running": 0.75, "kicking": 0.5, "bending": 0.75}.get(action, 0.12)
    sideways *= 0.4 + 0.6 * difficulty
    if arms in ("waving", "pointing", "raised", "hips"):
        sideways = 0.0  # seen from the side, these arms cannot be told apart
    away = 0.04 + 0.2 * difficulty
    if draw < sideways:
        centre = 90.0 if generator.random() < 0.5 else 270.0
        return centre + generator.uniform(-28, 28)
    if draw < sideways + away * (1 - sideways):
        return 180.0 + generator.uniform(-turned, turned)
    return generator.uniform(-turned, turned) % 360


def _leg(out: float, forward: float, knee: float) -> Limb:
    """A leg whose knee bends backwards only, by `knee` degrees within [2, 145]."""
    knee = min(145.0, max(2.0, knee))
    return Limb(out, forward, out, forward - knee)


def _draw_legs(
    action: str, side: int, jitter: Callable[[float], float]
) -> tuple[dict[int, Limb], float, float]:
    """Legs by side (+1 left), lean of the trunk in degrees and lift over the ground in heights."""
    lean, lift = jitter(3.0), 0.0
    if action == "walking":
        stride = 26 + jitter(5.0)
        legs = {
            side: _leg(2, stride, 10 + jitter(4)),
            -side: _leg(2, -stride * 0.8, 18 + jitter(8)),
        }
        lean += 4
    elif action == "running":
        legs = {
            side: _leg(2, 58 + jitter(8), 70 + jitter(12)),
            -side: _leg(2, -22 + jitter(6), 55 + jitter(15)),
        }
        lean += 14
    elif action == "sitting":
        legs = {s: _leg(8 + jitter(5), 84 + jitter(5), 84 + jitter(10)) for s in (1, -1)}
    elif action == "kicking":
        legs = {side: _leg(6, 62 + jitter(10), 14 + jitter(8)), -side: _leg(4, -6 + jitter(3), 10)}
        lean -= 10
    elif action == "bending":
        legs = {s: _leg(5 + jitter(3), 4 + jitter(4), 8 + jitter(4)) for s in (1, -1)}
        lean = 72 + jitter(10)
    elif action == "crouching":
        legs = {s: _leg(18 + jitter(6), 96 + jitter(6), 130 + jitter(8)) for s in (1, -1)}
        lean = 18 + jitter(6)
    elif action == "jumping":
        legs = {s: _leg(16 + jitter(8), 22 + jitter(14), 55 + jitter(18)) for s in (1, -1)}
        lift = 0.13 + jitter(0.03)
    else:
        legs = {s: _leg(5 + jitter(3), jitter(4), 4 + abs(jitter(4))) for s in (1, -1)}
    return legs, lean, lift


def _draw_arms(
    action: str, arms: str, thing: str | None, side: int, jitter: Callable[[float], float]
) -> dict[int, Limb]:
    """Arms by side (+1 left)."""

    def hanging() -> Limb:
        return Limb(12 + jitter(5), 2 + jitter(8), 7 + jitter(5), 16 + jitter(10))

    limbs = {s: hanging() for s in (1, -1)}
    if action == "walking":
        limbs = {s: Limb(9, -side * s * 24 + jitter(6), 6, -side * s * 22 + 22) for s in (1, -1)}
    elif action == "running":
        limbs = {s: Limb(10, -side * s * 42 + jitter(8), 4, -side * s * 38 + 84) for s in (1, -1)}
    elif action == "sitting":
        limbs = {s: Limb(14 + jitter(4), 18 + jitter(8), -4, 62 + jitter(10)) for s in (1, -1)}
    elif action == "kicking":
        limbs = {s: Limb(42 + jitter(10), -side * s * 18, 48 + jitter(14), 8) for s in (1, -1)}
    elif action == "bending":
        limbs = {s: Limb(6 + jitter(4), 14 + jitter(8), 3, 10 + jitter(6)) for s in (1, -1)}
    elif action == "crouching":
        limbs = {s: Limb(14 + jitter(5), 40 + jitter(8), 2, 62 + jitter(10)) for s in (1, -1)}
    elif action == "jumping" and arms == "down":
        limbs = {s: Limb(62 + jitter(10), 5, 82 + jitter(12), 10) for s in (1, -1)}

    if arms == "raised":
        limbs = {
            s: Limb(142 + jitter(10), 5 + jitter(5), 166 + jitter(9), 5 + jitter(6))
            for s in (1, -1)
        }
    elif arms == "waving":
        limbs[side] = Limb(88 + jitter(11), 8 + jitter(6), 164 + jitter(9), 10 + jitter(8))
    elif arms == "hips":
        limbs = {s: Limb(48 + jitter(5), -10 + jitter(4), -50 + jitter(6), 14) for s in (1, -1)}
    elif arms == "pointing":
        limbs[side] = Limb(86 + jitter(9), 6 + jitter(5), 90 + jitter(6), 6 + jitter(4))
    elif thing == "balloon":
        limbs[side] = Limb(34 + jitter(8), 14, 84 + jitter(14), 40 + jitter(10))
    elif thing == "umbrella":
        limbs[side] = Limb(22 + jitter(5), 16, 24 + jitter(6), 122 + jitter(8))
    elif thing == "flag":
        limbs[side] = Limb(104 + jitter(10), 8, 150 + jitter(8), 10)
    elif thing == "ball":
        limbs[side] = Limb(18 + jitter(5), 14 + jitter(5), 26 + jitter(8), 78 + jitter(8))
    elif thing == "bag":
        limbs[side] = Limb(14 + jitter(4), jitter(5), 10 + jitter(4), 8)
    return limbs


# --- a person of a finished image --------------------------------------------------------------


@dataclass
class ScenePerson:
    """A person as seen in a finished image.

    Points and extents are in the frames of `datasets/synthetic/__init__.py`.

    Attributes:
        index: of the person in the scene, from 0, from far to near.
        appearance, pose: what the person looks like and does.
        scale: standing height in pixels.
        foot: point (x, y) of the ground below the pelvis; the larger y, the nearer.
        keypoints: [17, 3] float32: point x, y, visibility 0 (outside of the image or on the
            far side of the head; x = y = 0), 1 (hidden) or 2 (visible).
        mask: [h, w] bool, what can be seen of the person.
        box: extent (x, y, width, height) of the mask.
        area: pixels of the mask.
        visible_fraction: area / pixels of the person if nobody and nothing stood in front.
        part_pixels: 16 numbers of visible pixels, by part; see datasets/synthetic/labels.py.
    """

    index: int
    appearance: Appearance
    pose: Pose
    scale: float
    foot: tuple[float, float]
    keypoints: np.ndarray
    mask: np.ndarray
    box: tuple[float, float, float, float]
    area: int
    visible_fraction: float
    part_pixels: list[int]

    @property
    def centre_x(self) -> float:
        """x of the middle of the box, from 0 to the image's width."""
        return self.box[0] + 0.5 * self.box[2]
