"""Deformable encoder: tokens of all feature levels attend to each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers.mlp import FeedForward
from models.layers.padding import valid_ratios
from models.layers.position_encoding import encode_map
from models.uniphd.ops.ms_deform_attn import MSDeformAttn
from util.nested_tensor import NestedTensor
from util.transfer import to_device


@dataclass(frozen=True)
class LevelLayout:
    """Where the S tokens of L levels lie.

    Attributes:
        shapes: (height, width) of each level as plain numbers: what needs them on the CPU never
            waits for the GPU.
        spatial_shapes: [L, 2] the same as a tensor.
        level_start_index: [L] first token of each level.
        padding_mask: [B, S] bool, True in the padding.
        valid_ratios: [B, L, 2] share (width, height) of each level that is not padding.
    """

    shapes: tuple[tuple[int, int], ...]
    spatial_shapes: Tensor
    level_start_index: Tensor
    padding_mask: Tensor
    valid_ratios: Tensor

    @classmethod
    def of(cls, levels: Sequence[NestedTensor]) -> LevelLayout:
        """The layout of levels with [B, D, h, w] features."""
        device = levels[0].mask.device
        shapes = tuple(tuple(level.mask.shape[-2:]) for level in levels)
        areas = [height * width for height, width in shapes]
        starts = [sum(areas[:i]) for i in range(len(areas))]
        return cls(
            shapes=shapes,
            spatial_shapes=to_device(torch.tensor(shapes), device),
            level_start_index=to_device(torch.tensor(starts), device),
            padding_mask=torch.cat([level.mask.flatten(1) for level in levels], dim=1),
            valid_ratios=torch.stack([valid_ratios(level.mask) for level in levels], dim=1),
        )


@dataclass(frozen=True)
class EncoderMemory:
    """Encoded tokens.

    Attributes:
        tokens: [B, S, D], level after level, row by row.
        layout: of the levels.
    """

    tokens: Tensor
    layout: LevelLayout

    def level_maps(self) -> list[Tensor]:
        """The tokens as maps [B, D, h, w], one per level."""
        shapes = self.layout.shapes
        levels = self.tokens.split([height * width for height, width in shapes], dim=1)
        return [level.mT.unflatten(-1, shape) for level, shape in zip(levels, shapes, strict=True)]


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, both post-norm.

    Args:
        embed_dim: width D.
        num_heads: attention heads.
        num_levels: feature levels L.
        num_points: samples per head and level.
        feedforward_dim: hidden width of the feed-forward network.
        dropout: of attention and feed-forward outputs.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.self_attention = MSDeformAttn(
            embed_dim=embed_dim,
            num_levels=num_levels,
            num_heads=num_heads,
            num_points=num_points,
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.feed_forward = FeedForward(embed_dim, feedforward_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Tensor, positions: Tensor, references: Tensor, layout: LevelLayout
    ) -> Tensor:
        """Refine the tokens.

        Args:
            tokens: [B, S, D].
            positions: [B, S, D].
            references: [B, S, L, 2] (x, y) in [0, 1] of the padded map of each level.
            layout: of the levels.

        Returns:
            [B, S, D].
        """
        attended = self.self_attention(
            tokens + positions,
            references,
            tokens,
            layout.spatial_shapes,
            layout.level_start_index,
            layout.padding_mask,
        )
        return self.feed_forward(self.norm(tokens + self.dropout(attended)))


class DeformableEncoder(nn.Module):
    """Multi-scale deformable encoder (Deformable DETR, Sec. 4.1).

    Args:
        layers: from the first to the last.
        embed_dim: width D.
        num_levels: feature levels L.
        use_checkpointing: recompute activations in the backward pass.
    """

    def __init__(
        self,
        layers: Iterable[DeformableEncoderLayer],
        *,
        embed_dim: int,
        num_levels: int,
        use_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.use_checkpointing = use_checkpointing
        self.level_embedding = nn.Parameter(torch.empty(num_levels, embed_dim).normal_())
        self.layers = nn.ModuleList(layers)

    def forward(self, levels: Sequence[NestedTensor]) -> EncoderMemory:
        """Levels with [B, D, h, w] features → their encoded tokens."""
        layout = LevelLayout.of(levels)
        tokens = torch.cat([level.tensors.flatten(2).mT for level in levels], dim=1)
        positions = torch.cat(
            [
                encode_map(level.mask, self.embed_dim).flatten(2).mT + embedding
                for level, embedding in zip(levels, self.level_embedding, strict=True)
            ],
            dim=1,
        ).to(tokens.dtype)
        references = encoder_references(layout)
        for layer in self.layers:
            if self.use_checkpointing and self.training:
                tokens = checkpoint(
                    layer, tokens, positions, references, layout, use_reentrant=False
                )
            else:
                tokens = layer(tokens, positions, references, layout)
        return EncoderMemory(tokens, layout)


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
    valid_width, valid_height = (ratios[:, 0] * width)[:, None], (ratios[:, 1] * height)[:, None]
    return torch.stack([x.flatten() / valid_width, y.flatten() / valid_height], dim=-1)


def encoder_references(layout: LevelLayout) -> Tensor:
    """Reference points of every token in every level.

    Returns:
        [B, S, L, 2] (x, y) in [0, 1] of the padded map of each level.
    """
    own = torch.cat(
        [
            pixel_centers(height, width, layout.valid_ratios[:, level])
            for level, (height, width) in enumerate(layout.shapes)
        ],
        dim=1,
    )
    return own[:, :, None] * layout.valid_ratios[:, None]
