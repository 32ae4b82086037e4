"""Decoding groups of pose queries with iterative refinement of the keypoints.

What all such decoders have in common is here; how the queries of a layer attend to each other and
to the image is the layer's own: `PoseCentricDecoderLayer` (UniPHD), `GroupPoseDecoderLayer`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers.attention import MultiHeadAttention
from models.layers.encoder import EncoderMemory
from models.layers.mlp import MLP, zero_last_layer
from models.layers.position_encoding import encode_points
from models.uniphd.ops.ms_deform_attn import MSDeformAttn
from util.keypoint_ops import inverse_sigmoid


@dataclass(frozen=True)
class GroupQueries:
    """n groups of one instance query and K keypoint queries.

    Attributes:
        instance_queries: [B, n, D].
        keypoint_queries: [B, n, K, D].
        references: [B, n, K, 2] (x, y) in [0, 1]: the keypoints' first guess; detached, unless
            they are learned themselves.
        proposals: what the encoder's proposals predict, by the names of a layer's outputs:
            `pred_logits` [B, n, 2] and `pred_keypoints` [B, n, K, 2] (x, y) in [0, 1]; None where
            the groups do not begin at proposals.
    """

    instance_queries: Tensor
    keypoint_queries: Tensor
    references: Tensor
    proposals: dict[str, Tensor] | None


@dataclass(frozen=True)
class DecoderOutput:
    """What one decoder layer has found.

    Attributes:
        queries: [B, n, K + 1, D], the instance query first.
        references: [B, n, K, 2] (x, y) in [0, 1]: the keypoints as they entered the layer, with
            the gradient of the layer before.
        keypoints: [B, n, K, 2] (x, y) in [0, 1]: the refined keypoints, for heads and losses. Their
            gradient also reaches the layer before, through the references. None from a layer
            without a pose head.
        next_references: the same numbers as `keypoints`, for the next layer: their gradient ends in
            this one. From a layer without a pose head, its own references.
    """

    queries: Tensor
    references: Tensor
    keypoints: Tensor | None
    next_references: Tensor

    @property
    def instance_queries(self) -> Tensor:
        """[B, n, D]."""
        return self.queries[:, :, 0]

    @property
    def keypoint_queries(self) -> Tensor:
        """[B, n, K, D]."""
        return self.queries[:, :, 1:]

    @property
    def centers(self) -> Tensor:
        """[B, n, 2] (x, y) in [0, 1]: the groups' centres as they entered the layer."""
        return self.references.mean(dim=2)


class GroupDecoderLayer(nn.Module):
    """A layer of a group decoder; subclasses say how the queries attend (`attend`).

    Args:
        embed_dim: width D.
        pose_head: whether the layer refines keypoints; otherwise its references stay.
    """

    def __init__(self, embed_dim: int, pose_head: bool) -> None:
        super().__init__()
        self.keypoint_head = None
        if pose_head:
            self.keypoint_head = MLP(embed_dim, embed_dim, 2, 3)
            zero_last_layer(self.keypoint_head)

    def attend(
        self, queries: Tensor, positions: Tensor, references: Tensor, memory: EncoderMemory
    ) -> Tensor:
        """Refine the queries.

        Args:
            queries: [B, n, K + 1, D], the instance query first.
            positions: [B, n, K + 1, D], zero for the instance query.
            references: [B, n, K + 1, L, 2] (x, y) in [0, 1] of the padded map of each level, the
                group's centre first.
            memory: encoded tokens.

        Returns:
            [B, n, K + 1, D].
        """
        raise NotImplementedError

    def forward(
        self, queries: Tensor, references: Tensor, memory: EncoderMemory, position_mlp: MLP
    ) -> DecoderOutput:
        """Refine queries and keypoints.

        Args:
            queries: [B, n, K + 1, D], the instance query first.
            references: [B, n, K, 2] (x, y) in [0, 1], as the layer before left them.
            memory: encoded tokens.
            position_mlp: sine encoding of a reference → position of its query, for all layers.
        """
        current = references.detach()
        queries = self.attend(
            queries,
            encode_positions(current, memory, position_mlp),
            level_references(current, memory),
            memory,
        )
        if self.keypoint_head is None:
            return DecoderOutput(queries, references, keypoints=None, next_references=references)
        offsets = self.keypoint_head(queries[:, :, 1:])
        return DecoderOutput(
            queries=queries,
            references=references,
            keypoints=(inverse_sigmoid(references) + offsets).sigmoid(),
            next_references=(inverse_sigmoid(current) + offsets).sigmoid(),
        )


class GroupDecoder(nn.Module):
    """Layers that refine groups of pose queries one after the other.

    Args:
        layers: from the first to the last.
        embed_dim: width D.
        use_checkpointing: recompute activations in the backward pass.
    """

    def __init__(
        self,
        layers: Iterable[GroupDecoderLayer],
        *,
        embed_dim: int,
        use_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.use_checkpointing = use_checkpointing
        self.position_mlp = MLP(embed_dim, embed_dim, embed_dim, 2)
        self.layers = nn.ModuleList(layers)

    def forward(self, groups: GroupQueries, memory: EncoderMemory) -> list[DecoderOutput]:
        """One output per layer."""
        queries = torch.cat([groups.instance_queries[:, :, None], groups.keypoint_queries], dim=2)
        references = groups.references
        outputs = []
        for layer in self.layers:
            if self.use_checkpointing and self.training:
                output = checkpoint(
                    layer, queries, references, memory, self.position_mlp, use_reentrant=False
                )
            else:
                output = layer(queries, references, memory, self.position_mlp)
            queries, references = output.queries, output.next_references
            outputs.append(output)
        return outputs


def encode_positions(references: Tensor, memory: EncoderMemory, position_mlp: MLP) -> Tensor:
    """Positions of the queries: [B, n, K, 2] references → [B, n, K + 1, D], the instance's zero."""
    finest = references * memory.layout.valid_ratios[:, None, None, 0]
    positions = position_mlp(encode_points(finest, position_mlp.layers[0].in_features))
    return F.pad(positions, (0, 0, 1, 0))


def level_references(references: Tensor, memory: EncoderMemory) -> Tensor:
    """[B, n, K, 2] → [B, n, K + 1, L, 2]; the instance query looks around the centre."""
    center = references.mean(dim=2, keepdim=True)
    references = torch.cat([center, references], dim=2)
    return references[:, :, :, None] * memory.layout.valid_ratios[:, None, None]


def attend_across(attention: MultiHeadAttention, queries: Tensor) -> Tensor:
    """Self-attention among the n queries of the same type (one keypoint, or the instance).

    Args:
        attention: among tokens.
        queries: [B, n, K + 1, D].

    Returns:
        [B, n, K + 1, D].
    """
    by_type = queries.transpose(1, 2)  # [B, K + 1, n, D]
    flat = by_type.flatten(0, 1)
    return attention(flat).view_as(by_type).transpose(1, 2)


def attend_to_image(
    attention: MSDeformAttn, queries: Tensor, references: Tensor, memory: EncoderMemory
) -> Tensor:
    """Deformable attention of every query to the image, around its reference.

    Args:
        attention: over the levels of the memory.
        queries: [B, n, K + 1, D].
        references: [B, n, K + 1, L, 2] (x, y) in [0, 1] of the padded map of each level.
        memory: encoded tokens.

    Returns:
        [B, n, K + 1, D].
    """
    return attention(
        queries.flatten(1, 2),
        references.flatten(1, 2),
        memory.tokens,
        memory.layout.spatial_shapes,
        memory.layout.level_start_index,
        memory.layout.padding_mask,
    ).view_as(queries)
