"""Group Pose's decoder layer: within a group, across groups, into the image (Sec. 3.2)."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers.attention import MultiHeadAttention
from models.layers.encoder import EncoderMemory
from models.layers.group_decoder import GroupDecoderLayer, attend_across, attend_to_image
from models.layers.mlp import FeedForward
from models.uniphd.ops.ms_deform_attn import MSDeformAttn


class GroupPoseDecoderLayer(GroupDecoderLayer):
    """Two self-attentions, one inside each group and one among queries of the same type.

    Args:
        embed_dim: width D.
        num_heads: attention heads.
        num_levels: feature levels L.
        num_points: samples per head and level.
        feedforward_dim: hidden width of the feed-forward network.
        dropout: of attention and feed-forward outputs.
        pose_head: see `GroupDecoderLayer`.
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
        pose_head: bool = True,
    ) -> None:
        super().__init__(embed_dim, pose_head)
        self.within_attention = MultiHeadAttention(embed_dim, num_heads)
        self.within_norm = nn.LayerNorm(embed_dim)
        self.across_attention = MultiHeadAttention(embed_dim, num_heads)
        self.across_norm = nn.LayerNorm(embed_dim)
        self.cross_attention = MSDeformAttn(
            embed_dim=embed_dim,
            num_levels=num_levels,
            num_heads=num_heads,
            num_points=num_points,
        )
        self.cross_norm = nn.LayerNorm(embed_dim)
        self.feed_forward = FeedForward(embed_dim, feedforward_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def attend(
        self, queries: Tensor, positions: Tensor, references: Tensor, memory: EncoderMemory
    ) -> Tensor:
        """See `GroupDecoderLayer.attend`.

        The positions are added twice, and both times they stay in the residual stream.
        """
        queries = queries + positions
        nodes = queries.flatten(0, 1)
        within = self.within_attention(nodes)
        queries = self.within_norm(queries + self.dropout(within.view_as(queries)))
        across = attend_across(self.across_attention, queries)
        queries = self.across_norm(queries + self.dropout(across))
        queries = queries + positions
        attended = attend_to_image(self.cross_attention, queries, references, memory)
        return self.feed_forward(self.cross_norm(queries + self.dropout(attended)))
