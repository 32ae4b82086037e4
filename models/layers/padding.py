"""What part of a padded map is not padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Padding mask [B, H, W] bool at another (height, width), by nearest neighbour."""
    return F.interpolate(mask[None].float(), size=tuple(size))[0].bool()


def valid_ratios(mask: Tensor) -> Tensor:
    """[B, 2] share (width, height) of a padded map [B, H, W] that is not padding."""
    height = (~mask[:, :, 0]).sum(1) / mask.shape[1]
    width = (~mask[:, 0, :]).sum(1) / mask.shape[2]
    return torch.stack([width, height], dim=-1)
