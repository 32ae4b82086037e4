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
    check_inputs(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    batch, _, heads, channels = value.shape
    _, queries, _, levels, points, _ = sampling_locations.shape
    shapes = [(height, width) for height, width in spatial_shapes.tolist()]
    precise = torch.float64 if value.dtype == torch.float64 else torch.float32
    if queries * levels * points == 0 or value.numel() == 0:
        # Nothing to sample, but a gradient of zeros for everybody.
        nothing = value.sum() + sampling_locations.sum() + attention_weights.sum()
        return value.new_zeros(batch, queries, heads * channels) + (0 * nothing).to(value.dtype)
    # Wherever a coordinate lies beyond [-3, 3], the point lies outside of maps of any size.
    grids = (2 * sampling_locations.to(precise) - 1).nan_to_num(nan=-3.0).clamp(-3.0, 3.0)
    sampled = []
    areas = [height * width for height, width in shapes]
    for level, level_value in enumerate(value.to(precise).split(areas, dim=1)):
        height, width = shapes[level]
        image = level_value.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)  # [B * M, Q, P, 2]
        sampled.append(
            F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        )
    weights = attention_weights.to(precise).transpose(1, 2)
    weights = weights.reshape(batch * heads, 1, queries, levels * points)
    output = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1)  # [B * M, D, Q]
    output = output.view(batch, heads * channels, queries).transpose(1, 2)
    return output.to(value.dtype).contiguous()


def check_inputs(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> None:
    """Refuse arguments of `ms_deform_attn` that don't fit together.

    The compiled operators check the same themselves (csrc/checks.h).

    Raises:
        ValueError: wrong ranks, sizes, types or devices, or levels that don't add up to S.
    """
    tensors = {
        "value": (value, "BSMD"),
        "spatial_shapes": (spatial_shapes, "L2"),
        "level_start_index": (level_start_index, "L"),
        "sampling_locations": (sampling_locations, "BQMLP2"),
        "attention_weights": (attention_weights, "BQMLP"),
    }
    sizes = {"2": 2}
    for tensor, layout in tensors.values():
        fits = tensor.dim() == len(layout) and all(
            sizes.setdefault(letter, size) == size
            for letter, size in zip(layout, tensor.shape, strict=True)
        )
        if not fits:
            described = ", ".join(
                f"{name} [{', '.join(layout)}] = {list(tensor.shape)}"
                for name, (tensor, layout) in tensors.items()
            )
            raise ValueError(f"ms_deform_attn: the sizes do not fit together: {described}.")
    devices = {tensor.device for tensor, _ in tensors.values()}
    if len(devices) > 1:
        raise ValueError(
            f"ms_deform_attn: all tensors must be on one device; got {sorted(map(str, devices))}."
        )
    if not value.is_floating_point():
        raise ValueError(f"ms_deform_attn: value must be of a floating type; got {value.dtype}.")
    precise = torch.float64 if value.dtype == torch.float64 else torch.float32
    for tensor in (sampling_locations, attention_weights):
        if not tensor.is_floating_point() or torch.promote_types(tensor.dtype, precise) != precise:
            raise ValueError(
                "ms_deform_attn: sampling_locations and attention_weights must be of "
                f"{precise} or a shorter floating type for a value of {value.dtype}; got "
                f"{tensor.dtype}."
            )
    for name in ("spatial_shapes", "level_start_index"):
        if tensors[name][0].dtype != torch.int64:
            raise ValueError(f"ms_deform_attn: {name} must be int64; got {tensors[name][0].dtype}.")
    end = 0
    shapes, starts = spatial_shapes.tolist(), level_start_index.tolist()
    for level, ((height, width), start) in enumerate(zip(shapes, starts, strict=True)):
        if height < 1 or width < 1:
            raise ValueError(
                f"ms_deform_attn: level {level} of spatial_shapes has height {height} and width "
                f"{width}; both must be at least 1."
            )
        if start != end:
            raise ValueError(
                f"ms_deform_attn: level_start_index[{level}] is {start}, but the levels before it "
                f"in spatial_shapes have {end} pixels."
            )
        end += height * width
    if end != value.shape[1]:
        raise ValueError(
            f"ms_deform_attn: the levels in spatial_shapes have {end} pixels together, but value "
            f"has S = {value.shape[1]}."
        )
