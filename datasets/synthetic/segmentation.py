"""Masks in COCO's two forms: run lengths and polygons."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

_SIMPLIFY = 0.75  # how far a polygon may leave the mask's outline, in half pixels


def mask_to_rle(mask: np.ndarray) -> dict[str, Any]:
    """Mask [h, w] bool -> COCO run-length code, not compressed."""
    flat = mask.ravel(order="F").astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    ends = np.concatenate(([0], changes, [flat.size]))
    counts = np.diff(ends).tolist()
    if flat[0]:  # runs start with background
        counts.insert(0, 0)
    return {"size": list(mask.shape), "counts": counts}


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Mask [h, w] bool -> polygons [x0, y0, x1, y1, ...] in pixels that draw the same mask.

    COCO's polygons have no holes: a part with a hole is cut in two through it.  Outlines run a
    quarter of a pixel inside of the mask's edge, around the centres of its pixels, and leave out
    corners of less than half a pixel.
    """
    polygons: list[list[float]] = []
    pending = [(mask.astype(np.uint8), 0)]
    while pending:
        part, left = pending.pop()
        doubled = np.repeat(np.repeat(part, 2, axis=0), 2, axis=1)
        outlines, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for i, outline in enumerate(outlines):
            hole = int(hierarchy[0, i, 2]) if hierarchy[0, i, 3] < 0 else -2
            if hole == -2:  # the outline of a hole
                continue
            if hole < 0:
                simple = cv2.approxPolyDP(outline, _SIMPLIFY, True)
                outline = simple if len(simple) > 3 else outline
                points = (outline[:, 0] + 0.5) / 2 + (left, 0)
                polygons.append(points.ravel().tolist())
                continue
            only = np.zeros_like(doubled)
            cv2.drawContours(only, outlines, i, 1, -1)
            only = (only & doubled)[::2, ::2]
            cut = int(outlines[hole][:, 0, 0].mean() / 2)
            cut = min(max(cut, 1), part.shape[1] - 1)
            pending.append((only[:, :cut], left))
            pending.append((only[:, cut:], left + cut))
    return polygons
