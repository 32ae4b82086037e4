"""Keypoint definitions: the only home of keypoint names, flip pairs, sigmas and limbs."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from util.errors import UserError


@dataclass(frozen=True)
class Skeleton:
    """What the project knows about a set of keypoints.

    Attributes:
        names: one name per keypoint, in annotation order.
        flip_pairs: index pairs that trade places under a horizontal flip.
        sigmas: per-keypoint constants of the object keypoint similarity (OKS).
        limbs: index pairs joined by a line in drawings.
        head_pair: the two keypoints whose distance is the head size of PCKh; None: there are none.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    limbs: tuple[tuple[int, int], ...]
    head_pair: tuple[int, int] | None

    @property
    def num_keypoints(self) -> int:
        """Number of keypoints, K."""
        return len(self.names)

    @property
    def flip_permutation(self) -> tuple[int, ...]:
        """For every keypoint, the index it takes its coordinates from after a horizontal flip."""
        permutation = list(range(self.num_keypoints))
        for left, right in self.flip_pairs:
            permutation[left], permutation[right] = right, left
        return tuple(permutation)


COCO = Skeleton(
    names=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    sigmas=(
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ),
    limbs=(
        (15, 13),
        (13, 11),
        (16, 14),
        (14, 12),
        (11, 12),
        (5, 11),
        (6, 12),
        (5, 6),
        (5, 7),
        (6, 8),
        (7, 9),
        (8, 10),
        (1, 2),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (4, 6),
    ),
    head_pair=(3, 4),
)

# The 14 points of CrowdPose, sigmas of its authors' evaluation.
CROWDPOSE = Skeleton(
    names=(
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
        "head",
        "neck",
    ),
    flip_pairs=((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)),
    sigmas=(
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
        0.079,
        0.079,
    ),
    limbs=(
        (10, 8),
        (8, 6),
        (11, 9),
        (9, 7),
        (6, 7),
        (0, 6),
        (1, 7),
        (0, 1),
        (0, 2),
        (1, 3),
        (2, 4),
        (3, 5),
        (12, 13),
        (13, 0),
        (13, 1),
    ),
    head_pair=None,
)

SKELETONS = {"coco": COCO, "crowdpose": CROWDPOSE}


def get_skeleton(name: str) -> Skeleton:
    """A keypoint definition by its name.

    Raises:
        UserError: unknown name.
    """
    if name not in SKELETONS:
        close = difflib.get_close_matches(str(name), SKELETONS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise UserError(f"Unknown skeleton '{name}'; expected one of {', '.join(SKELETONS)}.{hint}")
    return SKELETONS[name]
