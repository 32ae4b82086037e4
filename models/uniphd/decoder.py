"""Pose-centric hierarchical decoder over group pose queries (Eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.attention import multi_head_attention
from models.layers.encoder import EncoderMemory
from models.layers.mlp import MLP, FeedForward
from models.layers.position_encoding import encode_points
from models.uniphd.ops.ms_deform_attn import MSDeformAttn
from models.uniphd.query_init import GroupQueries
from util.keypoint_ops import inverse_sigmoid

WITHIN_TYPES = ("graph", "self")


@dataclass(frozen=True)
class DecoderOutput:
    """What one decoder layer hands to the heads.

    Attributes:
        instance_queries: [B, n, D].
        keypoint_queries: [B, n, K, D].
        references: [B, n, K, 2] (x, y) in [0, 1]: the keypoints as they entered the layer, with
            the gradient of the layer before.
        keypoint_offsets: [B, n, K, 2] this layer's correction, in logits.
    """

    instance_queries: Tensor
    keypoint_queries: Tensor
    references: Tensor
    keypoint_offsets: Tensor


class GraphAttention(nn.Module):
    """Attention inside a group, its logits biased by the soft adjacency A of Eq. 4.

    Args:
        embed_dim: width D.
        num_heads: attention heads.
        num_nodes: K + 1, the instance query first.
        learned_adjacency: False for plain self-attention (Table 8).
    """

    def __init__(
        self, embed_dim: int, num_heads: int, num_nodes: int, learned_adjacency: bool
    ) -> None:
        super().__init__()
        self.attention = multi_head_attention(embed_dim, num_heads)
        self.adjacency = (
            nn.Parameter(torch.full((num_heads, num_nodes, num_nodes), 1e-8))
            if learned_adjacency
            else None
        )

    def forward(self, nodes: Tensor) -> Tensor:
        """[G, K + 1, D] → [G, K + 1, D] for G groups of nodes."""
        groups, count, _ = nodes.shape
        bias = None
        if self.adjacency is not None:
            bias = self.adjacency.to(nodes.dtype).expand(groups, -1, -1, -1)
            bias = bias.reshape(-1, count, count)
        return self.attention(nodes, nodes, nodes, attn_mask=bias, need_weights=False)[0]


class PoseCentricDecoderLayer(nn.Module):
    """Across groups, into the image, and within each group.

    Args:
        embed_dim: width D.
        num_heads: attention heads.
        num_levels: feature levels L.
        num_points: samples per head and level.
        feedforward_dim: hidden width of both feed-forward networks.
        num_keypoints: K.
        dropout: of attention and feed-forward outputs.
        within_type: "graph" for the learned adjacency, "self" for plain self-attention.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_dim: int,
        num_keypoints: int,
        dropout: float,
        within_type: Literal["graph", "self"],
    ) -> None:
        super().__init__()
        self.across_attention = multi_head_attention(embed_dim, num_heads)
        self.across_norm = nn.LayerNorm(embed_dim)
        self.cross_attention = MSDeformAttn(embed_dim, num_levels, num_heads, num_points)
        self.cross_norm = nn.LayerNorm(embed_dim)
        self.cross_feed_forward = FeedForward(embed_dim, feedforward_dim, dropout)
        self.within_attention = GraphAttention(
            embed_dim, num_heads, num_keypoints + 1, learned_adjacency=within_type == "graph"
        )
        self.within_norm = nn.LayerNorm(embed_dim)
        self.within_feed_forward = FeedForward(embed_dim, feedforward_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Tensor, positions: Tensor, references: Tensor, memory: EncoderMemory
    ) -> Tensor:
        """Refine the queries.

        Args:
            queries: [B, n, K + 1, D], the instance query first.
            positions: [B, n, K + 1, D], zero for the instance query. Added twice, and both times
                they stay in the residual stream.
            references: [B, n, K + 1, L, 2] (x, y) in [0, 1] of the padded map of each level.
            memory: encoded tokens.

        Returns:
            [B, n, K + 1, D].
        """
        queries = self.across_norm(queries + self.dropout(self._attend_across(queries)))
        queries = queries + positions
        attended = self.cross_attention(
            queries.flatten(1, 2),
            references.flatten(1, 2),
            memory.tokens,
            memory.spatial_shapes,
            memory.level_start_index,
            memory.padding_mask,
        ).view_as(queries)
        queries = self.cross_feed_forward(self.cross_norm(queries + self.dropout(attended)))
        queries = queries + positions
        within = self.within_attention(queries.flatten(0, 1)).view_as(queries)
        return self.within_feed_forward(self.within_norm(queries + self.dropout(within)))

    def _attend_across(self, queries: Tensor) -> Tensor:
        """Self-attention among the n queries of the same type (one keypoint, or the instance)."""
        by_type = queries.transpose(1, 2)  # [B, K + 1, n, D]
        flat = by_type.flatten(0, 1)
        attended, _ = self.across_attention(flat, flat, flat, need_weights=False)
        return attended.view_as(by_type).transpose(1, 2)


class PoseCentricDecoder(nn.Module):
    """Hierarchical decoder with iterative refinement of the keypoints.

    Args:
        num_layers: number of layers.
        embed_dim, num_heads, num_levels, num_points, feedforward_dim, num_keypoints, dropout,
        within_type: as in `PoseCentricDecoderLayer`.

    Raises:
        ValueError: unknown `within_type`.
    """

    def __init__(
        self,
        num_layers: int,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_dim: int,
        num_keypoints: int,
        dropout: float,
        within_type: Literal["graph", "self"],
    ) -> None:
        super().__init__()
        if within_type not in WITHIN_TYPES:
            raise ValueError(
                f"within_type must be one of {', '.join(WITHIN_TYPES)}; got {within_type!r}."
            )
        self.embed_dim = embed_dim
        self.position_mlp = MLP(embed_dim, embed_dim, embed_dim, 2)
        self.layers = nn.ModuleList(
            PoseCentricDecoderLayer(
                embed_dim,
                num_heads,
                num_levels,
                num_points,
                feedforward_dim,
                num_keypoints,
                dropout,
                within_type,
            )
            for _ in range(num_layers)
        )

    def forward(
        self, groups: GroupQueries, memory: EncoderMemory, keypoint_heads: Sequence[nn.Module]
    ) -> list[DecoderOutput]:
        """Decode.

        Args:
            groups: the initial queries and references.
            memory: encoded tokens.
            keypoint_heads: one module per layer, keypoint query → correction of its reference in
                logits [..., 2]. They belong to the heads, which read the same corrections.

        Returns:
            One output per layer.
        """
        queries = torch.cat([groups.instance_queries[:, :, None], groups.keypoint_queries], dim=2)
        references = groups.references
        outputs = []
        for layer, keypoint_head in zip(self.layers, keypoint_heads, strict=True):
            current = references.detach()
            queries = layer(
                queries,
                self._encode_positions(current, memory),
                self._level_references(current, memory),
                memory,
            )
            offsets = keypoint_head(queries[:, :, 1:])
            outputs.append(DecoderOutput(queries[:, :, 0], queries[:, :, 1:], references, offsets))
            references = (inverse_sigmoid(current) + offsets).sigmoid()
        return outputs

    def _encode_positions(self, references: Tensor, memory: EncoderMemory) -> Tensor:
        """[B, n, K, 2] → [B, n, K + 1, D], zero for the instance query."""
        finest = references * memory.valid_ratios[:, None, None, 0]
        positions = self.position_mlp(encode_points(finest, self.embed_dim))
        return F.pad(positions, (0, 0, 1, 0))

    def _level_references(self, references: Tensor, memory: EncoderMemory) -> Tensor:
        """[B, n, K, 2] → [B, n, K + 1, L, 2]; the instance query looks around the centre."""
        center = references.mean(dim=2, keepdim=True)
        references = torch.cat([center, references], dim=2)
        return references[:, :, :, None] * memory.valid_ratios[:, None, None]
