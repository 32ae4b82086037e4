"""Reads from the finished label map what can be seen of everybody."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from datasets.skeleton import COCO
from datasets.synthetic import labels
from datasets.synthetic.painter import Figure, head_points
from datasets.synthetic.people import ScenePerson
from datasets.synthetic.staging import Draft

KEYPOINT_DECIMALS = 2
"""Of keypoints in an annotation."""


def count_pixels(label_map: np.ndarray, index: int) -> int:
    """Pixels of the map [h, w] that show person `index`."""
    low = labels.person_label(index, 0)
    return cv2.countNonZero(cv2.inRange(label_map, low + 1, low + labels.THING - 1))


def read_people(
    drafts: Sequence[Draft],
    figures: Sequence[Figure],
    label_map: np.ndarray,
    full_pixels: Sequence[int],
) -> list[ScenePerson]:
    """What can be seen of everybody.

    Args:
        drafts, figures: the people, in the order of their labels.
        label_map: [h, w] uint8, see `datasets/synthetic/labels.py`.
        full_pixels: of everybody, before anybody and anything stood in front.
    """
    size = labels.PARTS_PER_PERSON
    counts = np.bincount(label_map.ravel(), minlength=size * (len(drafts) + 1)).reshape(-1, size)
    people = []
    for i, (draft, figure) in enumerate(zip(drafts, figures, strict=True)):
        low = labels.person_label(i, 0)
        mask = label_map - np.uint8(low + 1) < labels.THING - 1  # labels below wrap round to 255
        area = int(counts[i + 1, 1 : labels.THING].sum())
        x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
        people.append(
            ScenePerson(
                index=i,
                appearance=draft.appearance,
                pose=draft.pose,
                scale=draft.scale,
                foot=draft.foot,
                keypoints=read_keypoints(figure, label_map),
                mask=mask,
                box=(x, y, w, h),
                area=area,
                visible_fraction=area / max(full_pixels[i], 1),
                part_pixels=counts[i + 1],
            )
        )
    return people


def read_keypoints(figure: Figure, label_map: np.ndarray) -> np.ndarray:
    """Keypoints [17, 3] of a person; see `ScenePerson`.

    What is visible is decided where the annotation puts the keypoint, with its two decimals.
    """
    height, width = label_map.shape
    on_head = head_points(figure)
    keypoints = np.zeros((COCO.num_keypoints, 3), dtype=np.float32)
    for k, name in enumerate(COCO.names):
        point, towards = on_head[name] if name in on_head else (figure.points[name], 1.0)
        is_ear = name.endswith("ear")
        # Ears stick out and can be guessed at; the face of a turned head cannot.
        if towards < (-0.85 if is_ear else -0.25):
            continue
        x, y = point[:2].tolist()
        if not (0 <= round(x) < width and 0 <= round(y) < height):
            continue
        # As they will be read again: float32, and the annotation's decimals.
        inside = np.array((min(max(x, 0.0), width - 1), min(max(y, 0.0), height - 1)), np.float32)
        x, y = (round(value, KEYPOINT_DECIMALS) for value in inside.tolist())
        part = label_map.item(round(y), round(x)) - figure.label(0)  # pixel i has coordinate i
        shown = part in labels.PARTS_OF_KEYPOINT[name] and towards >= (-0.5 if is_ear else 0.0)
        keypoints[k] = x, y, 2 if shown else 1
    return keypoints
