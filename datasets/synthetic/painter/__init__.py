"""Draws people: a posed body with its looks becomes shapes, from far to near.

`Figure` knows where the body is in the image; each of the other files knows one part of it.
"""

from __future__ import annotations

from datasets.synthetic.painter.figure import Figure
from datasets.synthetic.painter.head import head_parts, head_points
from datasets.synthetic.painter.limbs import arm_parts, leg_parts
from datasets.synthetic.painter.things import held_thing_part, kicked_ball_part, seat_part
from datasets.synthetic.painter.trunk import trunk_parts
from datasets.synthetic.people import Rgb
from datasets.synthetic.shapes import Shape

__all__ = ["Figure", "head_points", "paint_person"]


def paint_person(figure: Figure, seat_rgb: Rgb) -> list[Shape]:
    """All shapes of a person and of what the person sits on, kicks and holds, far to near.

    Args:
        figure: the person.
        seat_rgb: colour of the seat under a sitting person.
    """
    parts = [
        *leg_parts(figure),
        *trunk_parts(figure),
        *head_parts(figure),
        *arm_parts(figure),
    ]
    if figure.pose.action == "sitting":
        parts.append(seat_part(figure, seat_rgb))
    if figure.pose.action == "kicking":
        parts.append(kicked_ball_part(figure))
    if figure.appearance.thing is not None:
        parts.append(held_thing_part(figure, figure.appearance.thing))
    parts.sort(key=lambda part: part.depth)
    return [shape for part in parts for shape in part.shapes]
