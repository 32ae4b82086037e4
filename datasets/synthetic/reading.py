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

# Of each keypoint: its name, how far its place turns to the viewer (`head_points`) where it may be
# labelled and where it is visible, and the own parts under which it is.  Ears stick out and can be
# guessed at; the face of a turned head cannot.
_RULES = tuple(
    (
        name,
        *((-0.85, -0.5) if name.endswith("ear") else (-0.25, 0.0)),
        labels.PARTS_OF_KEYPOINT[name],
    )
    for name in COCO.names
)


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
    counts = (
        np.bincount(label_map.ravel(), minlength=size * (len(drafts) + 1))
        .reshape(-1, size)
        .tolist()
    )
    people = []
    for i, (draft, figure) in enumerate(zip(drafts, figures, strict=True)):
        low = labels.person_label(i, 0)
        mask = label_map - np.uint8(low + 1) < labels.THING - 1  # labels below wrap round to 255
        area = sum(counts[i + 1][1 : labels.THING])
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
    places = [on_head.get(name) or (figure.points[name], 1.0) for name, *_ in _RULES]
    points = np.concatenate([point for point, _ in places]).reshape(-1, 3)[:, :2]
    pixels = np.rint(points)
    in_image = ((pixels >= 0) & (pixels < (width, height))).all(axis=1).tolist()
    inside = points.clip(0, (width - 1, height - 1)).astype(np.float32).tolist()
    first = figure.label(0)
    keypoints = np.zeros((COCO.num_keypoints, 3), dtype=np.float32)
    for k, ((_, labelled, visible, parts), (_, towards)) in enumerate(
        zip(_RULES, places, strict=True)
    ):
        if not in_image[k] or towards < labelled:
            continue
        x, y = (round(value, KEYPOINT_DECIMALS) for value in inside[k])
        part = label_map.item(round(y), round(x)) - first  # pixel i has the coordinate i
        keypoints[k] = x, y, 2 if part in parts and towards >= visible else 1
    return keypoints
