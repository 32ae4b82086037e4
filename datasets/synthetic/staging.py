"""Decides who is in a scene and where: before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.synthetic.body import Body, build_body
from datasets.synthetic.people import (
    COLOURS,
    Appearance,
    Pose,
    Rgb,
    draw_appearance,
    draw_pose,
    pick,
    vary_colour,
)

_WIDTHS = {"running": 0.52, "kicking": 0.55, "bending": 0.5, "walking": 0.4}
_USUAL_WIDTH = 0.34
# Room that an action takes in the image, in standing heights.

_PLACES = 16  # that are tried for a person


@dataclass(frozen=True)
class Draft:
    """A person before the image is drawn.

    Attributes:
        appearance, pose: what the person looks like and does.
        body: posed, in the camera frame.
        scale: standing height in pixels.
        foot: (x, y) pixels of the ground below the pelvis.
        seat: colour of the seat under a sitting person.
    """

    appearance: Appearance
    pose: Pose
    body: Body
    scale: float
    foot: tuple[float, float]
    seat: Rgb

    @property
    def room(self) -> float:
        """Width in pixels that the person takes."""
        return _room(self.pose, self.scale)


def draft_people(
    generator: np.random.Generator, count: int, height: int, width: int, difficulty: float
) -> list[Draft]:
    """Decides on the people of a scene and their places, from far to near.

    Args:
        generator: source of randomness.
        count: of people.
        height, width: of the image in pixels.
        difficulty: in [0, 1]; the harder, the more people differ in size and distance and hide
            each other.
    """
    # Crowds are smaller, so that people side by side find room.
    largest = min(0.82, (1.0 + 0.35 * difficulty) * width / (0.36 * count * height))
    smallest = min(0.62 - 0.17 * difficulty, largest)
    base = generator.uniform(smallest, largest) * height
    camera_pitch = generator.uniform(4, 14)
    allowed = 0.05 + 0.45 * difficulty * generator.random()

    drafts: list[Draft] = []
    for _ in range(count):
        pose, thing = draw_pose(generator, difficulty)
        look = draw_appearance(generator, difficulty, [d.appearance for d in drafts], thing)
        depth = generator.random() * (0.25 + 0.75 * difficulty)
        scale = base * (1 - 0.35 * depth) * generator.uniform(0.95, 1.05)
        scale *= 0.72 if look.is_child else 1.0
        scale = max(scale, 0.36 * height)
        y = height * (0.965 - 0.2 * depth)
        y = max(y, min(0.965 * height, scale * 1.02))  # heads stay in the image
        room = _room(pose, scale)
        margin = min(0.5 * room * (1 - 0.5 * difficulty * generator.random()), 0.45 * width)
        x = _free_place(generator, drafts, room, (margin, width - margin), allowed)
        drafts.append(
            Draft(
                appearance=look,
                pose=pose,
                body=build_body(look, pose, camera_pitch),
                scale=float(scale),
                foot=(x, float(y)),
                seat=vary_colour(generator, pick(generator, list(COLOURS.values())), 1.0),
            )
        )
    return sorted(drafts, key=lambda draft: draft.foot[1])


def _room(pose: Pose, scale: float) -> float:
    return _WIDTHS.get(pose.action, _USUAL_WIDTH) * scale


def _free_place(
    generator: np.random.Generator,
    drafts: list[Draft],
    room: float,
    between: tuple[float, float],
    allowed: float,
) -> float:
    """A column for a person: the first of some random ones with little overlap, or the least.

    Args:
        generator: source of randomness.
        drafts: the people already there.
        room: width in pixels that the person takes.
        between: lowest and highest column.
        allowed: overlap with somebody that is accepted at once, as a share of the room.
    """
    best, best_overlap = 0.0, np.inf
    for _ in range(_PLACES):
        x = generator.uniform(*between)
        overlap = max(
            (1 - abs(x - other.foot[0]) / (0.5 * (room + other.room)) for other in drafts),
            default=0.0,
        )
        if overlap < best_overlap:
            best, best_overlap = x, overlap
        if overlap <= allowed:
            break
    return float(best)
