"""The three sine encodings: of maps, of words and of decoder reference points."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _sine(coordinates: Tensor, num_features: int, temperature: float) -> Tensor:
    """[...] radians → [..., num_features], sine and cosine interleaved (Vaswani et al. 2017)."""
    index = torch.arange(num_features, device=coordinates.device)
    exponent = 2 * torch.div(index, 2, rounding_mode="floor") / num_features
    angles = coordinates[..., None] / temperature**exponent
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)


def _normalized_count(valid: Tensor, dim: int) -> Tensor:
    """Running count of valid positions along `dim`, scaled so that the last one is 2π."""
    count = valid.cumsum(dim, dtype=torch.float32)
    last = count.narrow(dim, count.shape[dim] - 1, 1)
    return count / (last + 1e-6) * (2 * math.pi)


def encode_map(padding_mask: Tensor, dim: int, temperature: float = 20.0) -> Tensor:
    """Position encoding of a map: y features before x features.

    Args:
        padding_mask: [B, H, W] bool, True in the padding.
        dim: number of features D, half of them per axis.

    Returns:
        [B, D, H, W].
    """
    valid = ~padding_mask
    y = _sine(_normalized_count(valid, 1), dim // 2, temperature)
    x = _sine(_normalized_count(valid, 2), dim // 2, temperature)
    return torch.cat([y, x], dim=-1).permute(0, 3, 1, 2)


def encode_words(padding_mask: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Position encoding of a sentence.

    Args:
        padding_mask: [B, T] bool, True where a token is padding.
        dim: number of features D.

    Returns:
        [B, T, D].
    """
    return _sine(_normalized_count(~padding_mask, 1), dim, temperature)


def encode_points(points: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Position encoding of decoder reference points: y features before x features.

    Args:
        points: [..., 2] (x, y) in [0, 1].
        dim: number of features D, half of them per axis.

    Returns:
        [..., D].
    """
    radians = points * (2 * math.pi)
    x = _sine(radians[..., 0], dim // 2, temperature)
    y = _sine(radians[..., 1], dim // 2, temperature)
    return torch.cat([y, x], dim=-1)


def encode_boxes(boxes: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    """Position encoding of boxes: the features of y, x, width and height.

    Args:
        boxes: [..., 4] (cx, cy, width, height) in [0, 1].
        dim: number of features D of a point, half of them per axis.

    Returns:
        [..., 2 D].
    """
    centers, sizes = boxes.split(2, dim=-1)
    features = _sine(sizes * (2 * math.pi), dim // 2, temperature).flatten(-2)
    return torch.cat([encode_points(centers, dim, temperature), features], dim=-1)
