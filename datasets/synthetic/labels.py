"""The label map of a scene: which part of which person, or what else, is seen at a pixel.

A pixel of person i (from 0) holds `person_label(i, part)`; what belongs to nobody is 0.
"""

from __future__ import annotations

HEAD, HAIR, HAT, TRUNK, PELVIS = 1, 2, 3, 4, 5
LEFT_UPPER_ARM, LEFT_FOREARM, RIGHT_UPPER_ARM, RIGHT_FOREARM = 6, 7, 8, 9
LEFT_THIGH, LEFT_SHIN, RIGHT_THIGH, RIGHT_SHIN = 10, 11, 12, 13
THING = 14  # what the person holds; no part of the mask
PARTS_PER_PERSON = 16

MAX_PEOPLE = 15 - 1
"""Of a scene: the map has bytes, 16 labels for each person and 16 for nobody."""

PARTS_OF_KEYPOINT: dict[str, tuple[int, ...]] = {
    "nose": (HEAD,),
    "left_eye": (HEAD,),
    "right_eye": (HEAD,),
    "left_ear": (HEAD, HAIR),
    "right_ear": (HEAD, HAIR),
    "left_shoulder": (TRUNK, LEFT_UPPER_ARM),
    "right_shoulder": (TRUNK, RIGHT_UPPER_ARM),
    "left_elbow": (LEFT_UPPER_ARM, LEFT_FOREARM),
    "right_elbow": (RIGHT_UPPER_ARM, RIGHT_FOREARM),
    "left_wrist": (LEFT_FOREARM,),
    "right_wrist": (RIGHT_FOREARM,),
    "left_hip": (TRUNK, PELVIS, LEFT_THIGH, RIGHT_THIGH),
    "right_hip": (TRUNK, PELVIS, RIGHT_THIGH, LEFT_THIGH),
    "left_knee": (LEFT_THIGH, LEFT_SHIN, PELVIS),
    "right_knee": (RIGHT_THIGH, RIGHT_SHIN, PELVIS),
    "left_ankle": (LEFT_SHIN,),
    "right_ankle": (RIGHT_SHIN,),
}
"""The own parts under which a keypoint counts as visible: a hip under trousers is, a hip behind
the person's own arm is not."""


def person_label(index: int, part: int) -> int:
    """Label of a part of person `index`, from 0."""
    return PARTS_PER_PERSON * (index + 1) + part
