"""Multi-scale deformable attention: one function, several implementations."""

from __future__ import annotations

from torch import Tensor

from models.uniphd.ops.functional import ms_deform_attn_pytorch


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """[B, Q, M * D]; arguments as in `ms_deform_attn_pytorch`."""
    return ms_deform_attn_pytorch(value, spatial_shapes, sampling_locations, attention_weights)
