"""Scribbles: on the mask for any shape, reproducible, and along the recipe where it can be told."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from datasets.scribble import draw_scribble, draw_scribbles


def on_mask(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    assert points.shape == (12, 2) and points.dtype == np.float32
    assert np.array_equal(points, np.rint(points))
    return mask[points[:, 1].astype(int), points[:, 0].astype(int)]


def test_square_keeps_away_from_the_border_and_runs_downwards():
    mask = np.zeros((80, 100), dtype=bool)
    mask[10:70, 20:80] = True
    for seed in range(50):
        points = draw_scribble(mask, np.random.default_rng(seed))
        assert on_mask(mask, points).all()
        assert points[:, 0].min() >= 25 and points[:, 0].max() <= 74  # eroded by a square of 10
        assert points[:, 1].min() >= 15 and points[:, 1].max() <= 64
        assert (np.diff(points[:, 1]) >= 0).all()  # ordered control points: never upwards


@pytest.mark.parametrize("shape", ["ring", "legs", "two parts", "thin line", "one pixel", "full"])
def test_every_point_lies_on_hard_masks(shape):
    canvas = np.zeros((120, 90), dtype=np.uint8)
    if shape == "ring":
        cv2.circle(canvas, (45, 60), 40, 1, thickness=6)
    elif shape == "legs":
        cv2.line(canvas, (45, 5), (5, 115), 1, thickness=8)
        cv2.line(canvas, (45, 5), (85, 115), 1, thickness=8)
    elif shape == "two parts":
        cv2.circle(canvas, (15, 15), 12, 1, thickness=-1)
        cv2.circle(canvas, (75, 100), 12, 1, thickness=-1)
    elif shape == "thin line":
        canvas[3:117, 89] = 1  # on the image's border
    elif shape == "one pixel":
        canvas[0, 0] = 1
    else:
        canvas[:] = 1
    mask = canvas > 0
    for seed in range(25):
        assert on_mask(mask, draw_scribble(mask, np.random.default_rng(seed))).all()


def test_same_generator_state_same_scribble_and_scribbles_vary():
    mask = np.zeros((60, 60), dtype=bool)
    mask[5:55, 5:55] = True
    first = draw_scribble(mask, np.random.default_rng(3))
    assert np.array_equal(first, draw_scribble(mask, np.random.default_rng(3)))
    generator = np.random.default_rng(3)
    draws = {draw_scribble(mask, generator).tobytes() for _ in range(10)}
    assert len(draws) == 10


def test_several_at_once_are_the_ones_that_come_one_by_one():
    canvas = np.zeros((90, 70), dtype=np.uint8)
    cv2.circle(canvas, (35, 50), 25, 1, thickness=5)  # curves leave it: points are moved
    generator = np.random.default_rng(4)
    one_by_one = [draw_scribble(canvas > 0, generator) for _ in range(6)]
    assert np.array_equal(one_by_one, draw_scribbles(canvas > 0, np.random.default_rng(4), 6))


def test_accepts_numbers_and_leaves_the_mask_alone():
    mask = np.zeros((30, 30), dtype=np.uint8)
    mask[4:20, 6:25] = 255
    before = mask.copy()
    points = draw_scribble(mask, np.random.default_rng(0))
    assert on_mask(mask > 0, points).all()
    assert np.array_equal(mask, before)


def test_errors():
    with pytest.raises(ValueError, match="at least one pixel"):
        draw_scribble(np.zeros((8, 8), dtype=bool), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"\[1, 8, 8\]"):
        draw_scribble(np.zeros((1, 8, 8), dtype=bool), np.random.default_rng(0))
