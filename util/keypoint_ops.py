"""Keypoints: similarity, and the logit arithmetic of iterative refinement."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_sigmoid(x: Tensor, eps: float = 1e-3) -> Tensor:
    """Logit of values clamped to [eps, 1 - eps]: log(max(x, eps) / max(1 - x, eps))."""
    x = x.clamp(min=0, max=1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def object_keypoint_similarity(
    keypoints: Tensor, targets: Tensor, visible: Tensor, area: Tensor, sigmas: Tensor
) -> Tensor:
    """OKS of COCO: mean over visible keypoints of exp(-d² / (2 · area · (2σ)²)).

    Args:
        keypoints: [..., K, 2] predicted (x, y).
        targets: [..., K, 2] in the same units; leading dimensions broadcast.
        visible: [..., K] 1 where the keypoint counts.
        area: [...] area of the person in squared units.
        sigmas: [K].

    Returns:
        [...] in [0, 1]; 0 where nothing is visible.
    """
    squared_distance = (keypoints - targets).square().sum(-1)
    variances = (2 * sigmas).square()
    scale = 2 * area[..., None] * variances
    similarity = torch.exp(-squared_distance / scale.clamp(min=torch.finfo(scale.dtype).eps))
    return (similarity * visible).sum(-1) / visible.sum(-1).clamp(min=1e-6)
