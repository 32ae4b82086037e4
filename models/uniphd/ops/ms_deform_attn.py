"""The multi-scale deformable attention layer (Deformable DETR, Eq. 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.performance.linear import Linear
from models.uniphd.ops.functional import ms_deform_attn


class MSDeformAttn(nn.Module):
    """Every query samples a few points of every feature level around its reference point.

    Args:
        embed_dim: width D of queries and values.
        num_levels: number of feature levels L.
        num_heads: attention heads M; must divide `embed_dim`.
        num_points: samples P per head and level.

    Raises:
        ValueError: `embed_dim` is not divisible by `num_heads`.
    """

    def __init__(
        self, embed_dim: int = 256, num_levels: int = 4, num_heads: int = 8, num_points: int = 4
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(
                f"embed_dim must be a multiple of num_heads; got {embed_dim} and {num_heads}."
            )
        self.num_levels = num_levels
        self.num_heads = num_heads
        self.num_points = num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = Linear(embed_dim, samples * 2)
        self.attention_weights = Linear(embed_dim, samples)
        self.value_proj = Linear(embed_dim, embed_dim)
        self.output_proj = Linear(embed_dim, embed_dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Offsets start on rays around the reference, one direction a head, p pixels far."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1, self.num_points + 1)
        offsets = directions[:, None, None, :] * distances[None, None, :, None]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(
                offsets.expand(-1, self.num_levels, -1, -1).reshape(-1)
            )
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        padding_mask: Tensor | None = None,
        reference_sizes: Tensor | None = None,
    ) -> Tensor:
        """Attend.

        Args:
            query: [B, Q, D].
            reference_points: [B, Q, L, 2] (x, y) in [0, 1] of the padded map of each level.
            value: [B, S, D], the levels' tokens one after the other.
            spatial_shapes: [L, 2] (height, width).
            level_start_index: [L] first token of each level.
            padding_mask: [B, S] bool, True where tokens are padding and count as zero.
            reference_sizes: [B, Q, L, 2] (width, height) in [0, 1] of boxes around the reference
                points: offsets are then in half boxes / P, not in pixels of their level.

        Returns:
            [B, Q, D].
        """
        batch, queries, _ = query.shape
        value = self.value_proj(value)
        if padding_mask is not None:
            value = value.masked_fill(padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.num_heads, -1))
        layout = (batch, queries, self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).view(batch, queries, self.num_heads, -1)
        weights = self.attention_weights(query).view(batch, queries, self.num_heads, -1)
        weights = weights.softmax(-1).view(layout)
        # Positions keep the references' type: in autocast's bfloat16, places on a wide map would be
        # blurred by pixels.  Long rows: all levels, points and axes of a head in one.
        span = (self.num_levels, self.num_points, 2)
        references = reference_points[:, :, :, None].expand(batch, queries, *span)
        if reference_sizes is None:  # the unit of the offsets is a pixel of their level
            unit = spatial_shapes.flip(-1).to(reference_points.dtype).reciprocal()
            unit = unit[:, None].expand(span).reshape(-1)
        else:
            unit = reference_sizes[:, :, :, None] * (0.5 / self.num_points)
            unit = unit.expand(batch, queries, *span).reshape(batch, queries, 1, -1)
        locations = torch.addcmul(
            references.reshape(batch, queries, 1, -1), offsets.to(reference_points.dtype), unit
        ).view(*layout, 2)
        output = ms_deform_attn(value, spatial_shapes, level_start_index, locations, weights)
        return self.output_proj(output)
