"""Deformable multimodal encoder: tokens of all levels attend to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers.mlp import FeedForward
from models.layers.padding import valid_ratios
from models.layers.position_encoding import encode_map
from models.uniphd.ops.ms_deform_attn import MSDeformAttn
from util.nested_tensor import NestedTensor


@dataclass(frozen=True)
class EncoderMemory:
    """Encoded tokens of L levels, S in all, and where they lie.

    Attributes:
        tokens: [B, S, D], level after level, row by row.
        padding_mask: [B, S] bool, True in the padding.
        spatial_shapes: [L, 2] (height, width).
        level_start_index: [L] first token of each level.
        valid_ratios: [B, L, 2] share (width, height) of each level that is not padding.
    """

    tokens: Tensor
    padding_mask: Tensor
    spatial_shapes: Tensor
    level_start_index: Tensor
    valid_ratios: Tensor

    def level_maps(self) -> list[Tensor]:
        """The tokens as maps [B, D, h, w], one per level."""
        shapes = self.spatial_shapes.tolist()
        levels = self.tokens.split([height * width for height, width in shapes], dim=1)
        return [level.mT.unflatten(-1, shape) for level, shape in zip(levels, shapes, strict=True)]


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, both post-norm."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attention = MSDeformAttn(embed_dim, num_levels, num_heads, num_points)
        self.norm = nn.LayerNorm(embed_dim)
        self.feed_forward = FeedForward(embed_dim, feedforward_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        references: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        padding_mask: Tensor,
    ) -> Tensor:
        """[B, S, D] → [B, S, D]; references [B, S, L, 2], the rest as in `EncoderMemory`."""
        attended = self.self_attention(
            tokens + positions, references, tokens, spatial_shapes, level_start_index, padding_mask
        )
        return self.feed_forward(self.norm(tokens + self.dropout(attended)))


class DeformableEncoder(nn.Module):
    """Multi-scale deformable encoder (Deformable DETR, Sec. 4.1).

    Args:
        num_layers: number of layers.
        embed_dim: width D.
        num_heads: attention heads.
        num_levels: feature levels L.
        num_points: samples per head and level.
        feedforward_dim: hidden width of the feed-forward networks.
        dropout: of attention and feed-forward outputs.
        use_checkpointing: recompute activations in the backward pass.
    """

    def __init__(
        self,
        num_layers: int,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_dim: int,
        dropout: float,
        use_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.use_checkpointing = use_checkpointing
        self.level_embedding = nn.Parameter(torch.empty(num_levels, embed_dim).normal_())
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(
                embed_dim, num_heads, num_levels, num_points, feedforward_dim, dropout
            )
            for _ in range(num_layers)
        )

    def forward(self, levels: Sequence[NestedTensor]) -> EncoderMemory:
        """Levels with [B, D, h, w] features → their encoded tokens."""
        device = levels[0].tensors.device
        shapes = [tuple(level.tensors.shape[-2:]) for level in levels]
        areas = [height * width for height, width in shapes]
        starts = [sum(areas[:i]) for i in range(len(areas))]
        spatial_shapes = torch.tensor(shapes, device=device)
        level_start_index = torch.tensor(starts, device=device)
        tokens = torch.cat([level.tensors.flatten(2).mT for level in levels], dim=1)
        positions = torch.cat(
            [
                encode_map(level.mask, self.embed_dim).flatten(2).mT + embedding
                for level, embedding in zip(levels, self.level_embedding, strict=True)
            ],
            dim=1,
        ).to(tokens.dtype)
        padding_mask = torch.cat([level.mask.flatten(1) for level in levels], dim=1)
        ratios = torch.stack([valid_ratios(level.mask) for level in levels], dim=1)
        references = encoder_references(shapes, ratios)
        for layer in self.layers:
            inputs = (
                tokens,
                positions,
                references,
                spatial_shapes,
                level_start_index,
                padding_mask,
            )
            if self.use_checkpointing and self.training:
                tokens = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                tokens = layer(*inputs)
        return EncoderMemory(tokens, padding_mask, spatial_shapes, level_start_index, ratios)


def pixel_centers(height: int, width: int, ratios: Tensor) -> Tensor:
    """Centres of a map's pixels, normalised by the part that is not padding.

    Args:
        ratios: [B, 2] share (width, height) that is not padding.

    Returns:
        [B, height * width, 2] (x, y); [0, 1] is the valid part.
    """
    y, x = torch.meshgrid(
        torch.arange(height, device=ratios.device) + 0.5,
        torch.arange(width, device=ratios.device) + 0.5,
        indexing="ij",
    )
    centers = torch.stack([x.flatten(), y.flatten()], dim=-1)
    return centers / (ratios * ratios.new_tensor([width, height]))[:, None]


def encoder_references(shapes: Sequence[tuple[int, int]], ratios: Tensor) -> Tensor:
    """Reference points of every token in every level.

    Args:
        shapes: (height, width) of the L levels.
        ratios: [B, L, 2] valid ratios.

    Returns:
        [B, S, L, 2] (x, y) in [0, 1] of the padded map of each level.
    """
    own = torch.cat(
        [
            pixel_centers(height, width, ratios[:, level])
            for level, (height, width) in enumerate(shapes)
        ],
        dim=1,
    )
    return own[:, :, None] * ratios[:, None]
