"""Pose-centric hierarchical decoder over group pose queries (Eq. 4)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from models.layers.attention import MultiHeadAttention
from models.layers.encoder import EncoderMemory
from models.layers.group_decoder import GroupDecoderLayer, attend_across, attend_to_image
from models.layers.mlp import FeedForward
from models.uniphd.ops.ms_deform_attn import MSDeformAttn
from util.errors import UserError

# Attention inside a group by the name of the setting: whether it learns an adjacency; None: there
# is no such attention.
WITHIN_TYPES = {"graph": True, "self": False, "none": None}


class GraphAttention(nn.Module):
    """Attention inside a group, its logits biased by the soft adjacency A of Eq. 4.

    Args:
        embed_dim: width D.
        num_heads: attention heads.
        num_nodes: K + 1, the instance query first.
        learned_adjacency: False for plain self-attention (Table 7).
    """

    def __init__(
        self, embed_dim: int, num_heads: int, num_nodes: int, learned_adjacency: bool
    ) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(embed_dim, num_heads)
        self.adjacency = (
            nn.Parameter(torch.full((num_heads, num_nodes, num_nodes), 1e-8))
            if learned_adjacency
            else None
        )

    def forward(self, nodes: Tensor) -> Tensor:
        """[G, K + 1, D] → [G, K + 1, D] for G groups of nodes."""
        return self.attention(nodes, bias=self.adjacency)


class PoseCentricDecoderLayer(GroupDecoderLayer):
    """Across groups, into the image, and within each group.

    Args:
        embed_dim: width D.
        num_heads: attention heads.
        num_levels: feature levels L.
        num_points: samples per head and level.
        feedforward_dim: hidden width of both feed-forward networks.
        num_keypoints: K.
        dropout: of attention and feed-forward outputs.
        within_type: attention within a group: "graph" for the learned adjacency, "self" for plain
            self-attention, "none" for none (Table 7); the second feed-forward network stays.
        pose_head: see `GroupDecoderLayer`.

    Raises:
        UserError: unknown `within_type`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_heads: int,
        num_levels: int,
        num_points: int,
        feedforward_dim: int,
        num_keypoints: int,
        dropout: float,
        within_type: Literal["graph", "self", "none"],
        pose_head: bool = True,
    ) -> None:
        super().__init__(embed_dim, pose_head)
        if within_type not in WITHIN_TYPES:
            raise UserError(
                f"within_type must be one of {', '.join(WITHIN_TYPES)}; got {within_type!r}."
            )
        self.across_attention = MultiHeadAttention(embed_dim, num_heads)
        self.across_norm = nn.LayerNorm(embed_dim)
        self.cross_attention = MSDeformAttn(
            embed_dim=embed_dim,
            num_levels=num_levels,
            num_heads=num_heads,
            num_points=num_points,
        )
        self.cross_norm = nn.LayerNorm(embed_dim)
        self.cross_feed_forward = FeedForward(embed_dim, feedforward_dim, dropout)
        self.within_attention = None
        learned_adjacency = WITHIN_TYPES[within_type]
        if learned_adjacency is not None:
            self.within_attention = GraphAttention(
                embed_dim, num_heads, num_keypoints + 1, learned_adjacency
            )
            self.within_norm = nn.LayerNorm(embed_dim)
        self.within_feed_forward = FeedForward(embed_dim, feedforward_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def attend(
        self, queries: Tensor, positions: Tensor, references: Tensor, memory: EncoderMemory
    ) -> Tensor:
        """See `GroupDecoderLayer.attend`.

        The positions are added twice, and both times they stay in the residual stream.
        """
        across = attend_across(self.across_attention, queries)
        queries = self.across_norm(queries + self.dropout(across))
        queries = queries + positions
        attended = attend_to_image(self.cross_attention, queries, references, memory)
        queries = self.cross_feed_forward(self.cross_norm(queries + self.dropout(attended)))
        queries = queries + positions
        if self.within_attention is not None:
            within = self.within_attention(queries.flatten(0, 1)).view_as(queries)
            queries = self.within_norm(queries + self.dropout(within))
        return self.within_feed_forward(queries)
