"""Multi-scale deformable attention: the function, its implementations and how one is chosen."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from models.uniphd.ops import extension

logger = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "UNIPHD_MS_DEFORM_ATTN"
CHOICES = ("auto", "compiled", "pytorch")


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sample every level bilinearly around the given locations and sum with the weights.

    Runs the compiled kernels of the tensors' device, or the pure PyTorch formula where they can't
    be built; the environment variable `UNIPHD_MS_DEFORM_ATTN` (auto, compiled, pytorch) forces a
    choice.  Positions, weights and sums are computed in float32 (float64 for a float64 value).

    Args:
        value: [B, S, M, D] of M heads with D channels; the levels' pixels one level after the
            other, row by row.
        spatial_shapes: [L, 2] int64 (height, width) of each level; their areas add up to S.
        level_start_index: [L] int64, the first pixel of each level in `value`.
        sampling_locations: [B, Q, M, L, P, 2] (x, y); [0, 1] spans a level from border to border.
            What lies outside, and NaN, samples zeros.
        attention_weights: [B, Q, M, L, P].

    Returns:
        [B, Q, M * D] of value's type.

    Raises:
        ValueError: ranks, sizes or types don't fit together.
        RuntimeError: `UNIPHD_MS_DEFORM_ATTN=compiled`, and the kernels can't be built.
    """
    if _is_compiled(value.device.type):
        return torch.ops.uniphd.ms_deform_attn(
            value, spatial_shapes, level_start_index, sampling_locations, attention_weights
        )
    return ms_deform_attn_pytorch(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )


@torch.compiler.assume_constant_result  # the tracer of torch.compile sees only the answer
def _is_compiled(device_type: str) -> bool:
    return _choose(device_type, os.environ.get(ENVIRONMENT_VARIABLE, "auto"))


@cache
def _choose(device_type: str, choice: str) -> bool:
    """Whether the compiled operator runs on this kind of device; builds it and logs the answer."""
    if choice not in CHOICES:
        raise ValueError(
            f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(CHOICES)}; got {choice!r}."
        )
    if choice == "pytorch":
        logger.info("Multi-scale deformable attention (%s): pure PyTorch, as asked.", device_type)
        return False
    try:
        # A meta tensor needs only the operator's declaration, which the library "cpu" holds.
        extension.load("cuda" if device_type == "cuda" else "cpu")
    except (RuntimeError, OSError, ImportError) as error:
        message = (
            f"Multi-scale deformable attention ({device_type}): pure PyTorch, which is many times "
            "slower than the compiled kernels. To build them, install a C++ compiler"
            f"{', the CUDA toolkit' if device_type == 'cuda' else ''} and `pip install ninja`, "
            f"then run `pip install ./models/uniphd/ops`. The reason: {error}"
        )
        if choice == "compiled":
            raise RuntimeError(message) from error
        logger.warning(message)
        return False
    logger.info("Multi-scale deformable attention (%s): compiled kernels.", device_type)
    return True


def ms_deform_attn_pytorch(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """The formula in pure PyTorch; as `ms_deform_attn`."""
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
