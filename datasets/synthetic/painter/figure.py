"""A posed person at a place of the image: what all parts of the painter know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.synthetic.body import Body
from datasets.synthetic.labels import person_label
from datasets.synthetic.people import Appearance, Pose, Rgb
from datasets.synthetic.shapes import Capsule, Outline, Shape, shade

_OUTLINE_SHADE = 0.55


@dataclass(frozen=True)
class Part:
    """Shapes that are drawn together.

    Attributes:
        depth: towards the viewer, in pixels; parts are drawn from the lowest to the highest.
        shapes: in the order of drawing.
    """

    depth: float
    shapes: list[Shape]


class Figure:
    """A posed body with its looks, in pixels.

    Args:
        body: the body in the camera frame.
        appearance, pose: what the person looks like and does.
        scale: pixels per standing height of the person.
        foot: (x, y) pixel of the ground below the pelvis.
        index: of the person in the scene, from 0; decides the labels.

    Attributes:
        points: joint name -> [3] (x, y, towards the viewer) in pixels; see `Body.points`.
        radii: body part -> half thickness in pixels; see `Body.radii`.
        edge: width of the dark outline in pixels.
    """

    def __init__(
        self,
        body: Body,
        appearance: Appearance,
        pose: Pose,
        scale: float,
        foot: tuple[float, float],
        index: int,
    ) -> None:
        self.body, self.appearance, self.pose = body, appearance, pose
        self.scale, self.index = scale, index
        self.origin = np.array((foot[0], foot[1], 0.0))
        points = np.array(list(body.points.values())) * scale + self.origin
        self.points = dict(zip(body.points, points, strict=True))
        self.radii = {name: r * scale for name, r in body.radii.items()}
        self.edge = max(0.6, 0.009 * scale)

    @property
    def stripe_step(self) -> float:
        """Pixels from a stripe to the gap beside it."""
        return max(1.8, 0.03 * self.scale)

    def label(self, part: int) -> int:
        """Label of a part of this person; see `datasets/synthetic/labels.py`."""
        return person_label(self.index, part)

    def outlined(self, outline: Outline, grown: Outline, rgb: Rgb, part: int) -> list[Shape]:
        """A shape with a dark outline, which belongs to the part as well.

        Args:
            outline: of the coloured shape.
            grown: of the shape with its dark outline.
            rgb: the colour.
            part: of the person.
        """
        dark = Shape(grown, shade(rgb, _OUTLINE_SHADE), self.label(part))
        return [dark, Shape(outline, rgb, None)]

    def limb(
        self,
        start: np.ndarray,
        end: np.ndarray,
        start_radius: float,
        end_radius: float,
        rgb: Rgb,
        part: int,
    ) -> list[Shape]:
        """A segment of a limb with its outline, from point to point in pixels."""
        edge = self.edge
        return self.outlined(
            Capsule(start, end, start_radius, end_radius),
            Capsule(start, end, start_radius + edge, end_radius + edge),
            rgb,
            part,
        )

    def on_head(self, directions: np.ndarray, grow: float = 1.0) -> np.ndarray:
        """Directions [n, 3] of the head frame -> pixels and depth [n, 3] on its surface.

        Args:
            directions: (left, up, front) of the head, unit vectors for points on its surface.
            grow: of the head's radii.
        """
        radii = np.array(self.body.head_radii) * (self.scale * grow)
        return (directions * radii) @ self.body.head_axes + self.points["head"]

    def level_axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Left and front [3] of the pelvis, which stays upright when the trunk leans."""
        across = self.points["left_hip"] - self.points["right_hip"]
        left = across / np.linalg.norm(across)
        front = np.array((-left[2], 0.0, left[0]))  # up x left
        return left, front / max(float(np.linalg.norm(front)), 1e-6)
