"""Multi-scale deformable attention as a formula: the pure PyTorch implementation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def ms_deform_attn_pytorch(
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sample every level bilinearly around the given locations and sum with the weights.

    Args:
        value: [B, S, M, D]; the levels' pixels one after the other, row by row.
        spatial_shapes: [L, 2] int64 (height, width) of each level; their areas add up to S.
        sampling_locations: [B, Q, M, L, P, 2] (x, y); [0, 1] spans a level from border to border.
            What lies outside samples zeros.
        attention_weights: [B, Q, M, L, P].

    Returns:
        [B, Q, M * D].
    """
    batch, _, heads, channels = value.shape
    _, queries, _, levels, points, _ = sampling_locations.shape
    shapes = [(int(h), int(w)) for h, w in spatial_shapes.tolist()]
    grids = 2 * sampling_locations - 1
    sampled = []
    for level, level_value in enumerate(value.split([h * w for h, w in shapes], dim=1)):
        height, width = shapes[level]
        picture = level_value.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)  # [B * M, Q, P, 2]
        sampled.append(
            F.grid_sample(picture, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        )
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    output = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1)  # [B * M, D, Q]
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
