"""Random arguments of multi-scale deformable attention, for tests and benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor

# The model's, for an image of 480 x 640 pixels.
LEVELS = [(60, 80), (30, 40), (15, 20), (8, 10)]
QUERIES = {"encoder": sum(height * width for height, width in LEVELS), "decoder": 20 * 18}
HEADS, POINTS, CHANNELS = 8, 4, 32


def model_inputs(shape: str, batch: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Arguments of `ms_deform_attn` as the model's "encoder" or "decoder" has them."""
    return random_inputs(batch, LEVELS, QUERIES[shape], HEADS, POINTS, CHANNELS, dtype, device)


def random_inputs(
    batch: int,
    shapes: list[tuple[int, int]],
    queries: int,
    heads: int,
    points: int,
    channels: int,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
) -> list[Tensor]:
    """Arguments of `ms_deform_attn` for tests and benchmarks, the same ones for the same seed.

    Values are normal; the points of a query lie within a few pixels of a random place, some of
    them outside of the map, and at least 1e-3 pixels away from where the formula has a kink;
    positions and weights are float32, or float64 like the values.
    """
    generator = torch.Generator().manual_seed(seed)
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    sizes = torch.tensor(shapes, dtype=torch.int64).view(-1, 2)
    areas = sizes.prod(1)
    samples = (batch, queries, heads, len(shapes), points)
    value = torch.randn(batch, int(areas.sum()), heads, channels, generator=generator)
    centres = torch.rand(batch, queries, 1, 1, 1, 2, generator=generator)
    pixels = centres * sizes.flip(1)[:, None] + 2 * torch.randn(*samples, 2, generator=generator)
    kinks = (pixels - 0.5).round() + 0.5  # pixel centres
    distance = pixels - kinks
    pixels = torch.where(distance.abs() < 1e-3, kinks + 2e-3, pixels)
    locations = pixels / sizes.flip(1)[:, None]
    weights = torch.randn(batch, queries, heads, len(shapes) * points, generator=generator)
    weights = weights.softmax(-1).view(samples)
    inputs = [value.to(dtype), sizes, areas.cumsum(0) - areas]
    inputs += [locations.to(precise), weights.to(precise)]
    return [tensor.to(device) for tensor in inputs]
