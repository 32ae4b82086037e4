"""Masks in COCO's two forms, run lengths and polygons; both decode to exactly the same mask.

Polygons are extents; see the frames of `datasets/synthetic/__init__.py`.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

# Pixels by which a polygon may leave the edges of the mask's pixels.  COCO fills polygons by the
# centres of pixels, which are at least 0.35 away from them.
_SIMPLIFY = 0.3


def mask_to_rle(mask: np.ndarray) -> dict[str, Any]:
    """Mask [h, w] bool -> COCO run-length code, not compressed."""
    left, _, width, _ = cv2.boundingRect(mask.view(np.uint8))
    rows = mask.shape[0]
    flat = np.zeros(rows * width + 2, dtype=bool)  # the mask's columns, background around them
    flat[1:-1] = mask.T[left : left + width].ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + left * rows
    counts = np.diff(np.concatenate(([0], changes, [mask.size]))).tolist()
    if counts[-1] == 0:  # the mask ends in the last pixel
        counts.pop()
    return {"size": list(mask.shape), "counts": counts}


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Mask [h, w] bool -> polygons [x0, y0, x1, y1, ...] in pixels that decode to the same mask.

    COCO's polygons have no holes: a part with a hole is cut in two through it.  Outlines run along
    the edges of pixels and leave out corners as far as no pixel's centre changes sides.
    """
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    polygons: list[list[float]] = []
    pending = [(mask[top : top + height, left : left + width].astype(np.uint8), left)]
    while pending:
        part, left = pending.pop()
        # Pixel i of the part is at 2 i + 1, its edges are at 2 i and 2 i + 2.
        grid = np.zeros((2 * part.shape[0] + 1, 2 * part.shape[1] + 1), dtype=np.uint8)
        grid[1::2, 1::2] = part
        grid = cv2.dilate(grid, np.ones((3, 3), dtype=np.uint8))
        outlines, hierarchy = cv2.findContours(grid, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        for i, outline in enumerate(outlines):
            if hierarchy[0, i, 3] >= 0:  # the outline of a hole
                continue
            hole = int(hierarchy[0, i, 2])
            if hole < 0:
                corners = cv2.approxPolyDP(outline, 2 * _SIMPLIFY, True)[:, 0]
                polygons.append((corners / 2 + (left, top)).ravel().tolist())
                continue
            only = np.zeros_like(grid)
            cv2.drawContours(only, outlines, i, 1, -1)
            only = only[1::2, 1::2] & part
            cut = int(outlines[hole][:, 0, 0].mean() / 2)
            cut = min(max(cut, 1), part.shape[1] - 1)
            pending.append((only[:, :cut], left))
            pending.append((only[:, cut:], left + cut))
    return polygons
