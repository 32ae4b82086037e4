"""Boxes: formats and overlaps. Everything else about boxes is torchvision's."""

from __future__ import annotations

import torch
from torch import Tensor


def box_cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[..., 4] (centre x, centre y, width, height) → (left, top, right, bottom), same units."""
    center, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([center - 0.5 * size, center + 0.5 * size], dim=-1)


def generalized_box_iou(boxes: Tensor, targets: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al. 2019) of boxes pair by pair, with broadcasting.

    Unlike `torchvision.ops.generalized_box_iou` it keeps leading dimensions, so that one call
    compares every group of a batch with its sample's person.

    Args:
        boxes: [..., 4] (left, top, right, bottom).
        targets: [..., 4] in the same format; leading dimensions broadcast.

    Returns:
        [...] in [-1, 1].
    """
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    target_areas = (targets[..., 2:] - targets[..., :2]).prod(-1)
    overlap_sides = torch.minimum(boxes[..., 2:], targets[..., 2:]) - torch.maximum(
        boxes[..., :2], targets[..., :2]
    )
    overlap = overlap_sides.clamp(min=0).prod(-1)
    union = areas + target_areas - overlap
    hull_sides = torch.maximum(boxes[..., 2:], targets[..., 2:]) - torch.minimum(
        boxes[..., :2], targets[..., :2]
    )
    hull = hull_sides.clamp(min=0).prod(-1)
    tiny = torch.finfo(boxes.dtype).eps
    return overlap / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)
