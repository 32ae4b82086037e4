"""Light on a synthetic image: shadows, and what a camera makes of the scene."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np


def draw_shadows(
    canvas: np.ndarray,
    feet: Sequence[tuple[float, float]],
    scales: Sequence[float],
    strength: float,
) -> np.ndarray:
    """The image with soft shadows on the ground below people."""
    height, width = canvas.shape[:2]
    shadow = np.zeros((height, width), dtype=np.uint8)
    for (x, y), scale in zip(feet, scales, strict=True):
        axes = (max(1, int(0.17 * scale)), max(1, int(0.045 * scale)))
        cv2.ellipse(shadow, (int(x), int(y)), axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
    gains = 255 - (np.arange(256, dtype=np.uint8) * strength).astype(np.uint8)
    gain = cv2.LUT(cv2.blur(shadow, (5, 5)), gains)
    return cv2.multiply(canvas, cv2.merge((gain, gain, gain)), scale=1 / 255)


def light_and_noise(
    generator: np.random.Generator, canvas: np.ndarray, difficulty: float
) -> np.ndarray:
    """The photograph of the scene: light from one side, a tint, blur and sensor noise.

    With difficulty 0 the image stays as drawn; with 1 brightness varies by up to 35 % over the
    image and 15 % as a whole, channels by 8 %, blur up to a sigma of 0.9 pixels (at a height of
    192) and noise up to a standard deviation of 9 levels.
    """
    if difficulty <= 0:
        return canvas
    height, width = canvas.shape[:2]
    slope = generator.uniform(-0.35, 0.35, 2) * difficulty
    gain = 1.0 + generator.uniform(-0.15, 0.12) * difficulty
    tint = 1.0 + generator.uniform(-0.08, 0.08, 3) * difficulty
    rows = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    # The channels as columns of their own: NumPy is slow over a last axis of three.
    columns = np.repeat(np.linspace(-0.5, 0.5, width, dtype=np.float32), 3)
    image = gain + np.float32(slope[0]) * rows + np.float32(slope[1]) * columns
    np.multiply(canvas.reshape(height, 3 * width), image, out=image)
    image *= np.tile(tint.astype(np.float32), width)
    image = image.reshape(height, width, 3)
    if generator.random() < 0.4 * difficulty:
        sigma = generator.uniform(0.3, 0.9) * height / 192
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    level = generator.uniform(0, 9) * difficulty
    if level > 0.5:
        noise = generator.standard_normal(image.shape, dtype=np.float32)
        noise *= np.float32(level)
        image += noise
    return np.clip(image, 0, 255, out=image).astype(np.uint8)
