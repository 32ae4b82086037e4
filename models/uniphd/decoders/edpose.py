"""ED-Pose's decoder in UniPHD's frame: Uni-ED-Pose of Table 2 (ED-Pose: Yang et al., ICLR 2023).

Every query has a box (cx, cy, width, height) in place of a point.  The first layers look for people
with one query each; then every person that goes on becomes a group of a human query and K keypoint
queries, whose boxes are small ones around the keypoints.

What the two papers leave open, and how it is here:

- The human queries begin at the encoder's best box proposals, each as the sum of the prompt's
  instance query and a learned embedding (`HumanQueryInitializer`).  There are as many as groups,
  unless the setting `num_human_queries` says more.
- ED-Pose trains with denoising queries, noisy boxes of the true people.  There are none here: the
  UniPHD paper does not speak of them, and a prompt means one person.
- References are detached between layers, and predictions reach back into the layer before, as in
  UniPHD.  The sizes of the keypoints' boxes alone keep their gradient all the way: no loss judges
  them, so that it is the only one they have.
- Visibility heads are those of UniPHD, in the layers with keypoints.  There is no further norm
  between a layer and its heads.

At full size (Swin-T, RoBERTa-base, 20 human queries) these are 175,654,294 parameters; 175.7 M are
published.  Without the human queries' learned embeddings there would be 175,649,174, with 100 of
them 175,674,774, with ED-Pose's 900 of them 175,879,574.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.layers.attention import MultiHeadAttention
from models.layers.encoder import EncoderMemory
from models.layers.mlp import MLP, FeedForward, init_class_bias, zero_last_layer
from models.layers.position_encoding import encode_boxes
from models.performance.linear import Linear
from models.uniphd.decoders.human_queries import HumanQueries
from models.uniphd.ops.ms_deform_attn import MSDeformAttn
from util.keypoint_ops import inverse_sigmoid


@dataclass(frozen=True)
class BoxLayerOutput:
    """What one decoder layer has found; T is 1 in the human layers and K + 1 after them.

    Attributes:
        queries: [B, n, T, D], the human query first.
        references: [B, n, T, 4] cxcywh in [0, 1]: the queries' boxes as they entered the layer,
            with the gradient of the layer before.
        next_references: [B, n, T, 4] the refined boxes, for the next layer; their gradient ends in
            this one, but for that of the keypoints' sizes.
        predictions: by the names of the model's outputs, see `EDPoseDecoder`.
    """

    queries: Tensor
    references: Tensor
    next_references: Tensor
    predictions: dict[str, Tensor]

    @property
    def instance_queries(self) -> Tensor:
        """[B, n, D]."""
        return self.queries[:, :, 0]

    @property
    def centers(self) -> Tensor:
        """[B, n, 2] (x, y) in [0, 1]: the centres of the people's boxes as they entered."""
        return self.references[:, :, 0, :2]


class BoxDecoderLayer(nn.Module):
    """Self-attention among all queries, attention to the image inside their boxes, and heads.

    As a human layer, for queries of people alone, or with keypoints.

    Args:
        embed_dim: width D.
        num_heads: attention heads.
        num_levels: feature levels L.
        num_points: samples per head and level.
        feedforward_dim: hidden width of the feed-forward network.
        dropout: of attention and feed-forward outputs.
        has_keypoints: whether there are keypoint queries.
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
        has_keypoints: bool,
    ) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(embed_dim, num_heads)
        self.self_norm = nn.LayerNorm(embed_dim)
        self.cross_attention = MSDeformAttn(
            embed_dim=embed_dim,
            num_levels=num_levels,
            num_heads=num_heads,
            num_points=num_points,
        )
        self.cross_norm = nn.LayerNorm(embed_dim)
        self.feed_forward = FeedForward(embed_dim, feedforward_dim, dropout)
        self.dropout = nn.Dropout(dropout)
        self.class_head = Linear(embed_dim, 2)
        self.box_head = MLP(embed_dim, embed_dim, 4, 3)
        init_class_bias(self.class_head)
        zero_last_layer(self.box_head)
        self.has_keypoints = has_keypoints
        if has_keypoints:
            self.keypoint_head = MLP(embed_dim, embed_dim, 2, 3)
            self.visibility_head = Linear(embed_dim, 1)
            zero_last_layer(self.keypoint_head)

    def forward(
        self,
        queries: Tensor,
        references: Tensor,
        memory: EncoderMemory,
        position_mlp: MLP,
        size_head: MLP | None = None,
        mask: Tensor | None = None,
    ) -> BoxLayerOutput:
        """Refine queries and boxes.

        Args:
            queries: [B, n, T, D], the human query first.
            references: [B, n, T, 4] cxcywh in [0, 1], as the layer before left them.
            memory: encoded tokens.
            position_mlp: sine encoding of a box → position of its query, for all layers.
            size_head: keypoint query → change of its box's size, for all layers; None: it stays.
            mask: [n * T, n * T] added to the logits of the self-attention.
        """
        current = _detach_judged(references)
        queries = self._attend(queries, current, memory, position_mlp, mask)
        changes = self._changes(queries, size_head)
        refined = (inverse_sigmoid(references) + changes).sigmoid()
        predictions = {
            "pred_logits": self.class_head(queries[:, :, 0]),
            "pred_boxes": refined[:, :, 0],
        }
        if self.has_keypoints:
            predictions["pred_keypoints"] = refined[:, :, 1:, :2]
            predictions["pred_keypoints_visi"] = self.visibility_head(queries[:, :, 1:]).squeeze(-1)
        return BoxLayerOutput(
            queries=queries,
            references=references,
            next_references=(inverse_sigmoid(current) + changes).sigmoid(),
            predictions=predictions,
        )

    def _attend(
        self,
        queries: Tensor,
        references: Tensor,
        memory: EncoderMemory,
        position_mlp: MLP,
        mask: Tensor | None,
    ) -> Tensor:
        """[B, n, T, D] → the same; see `forward`.

        Unlike UniPHD's, positions are added to what asks and is asked for only, and do not stay.
        """
        layout = memory.layout
        tokens = queries.flatten(1, 2)  # [B, n * T, D]
        boxes = references.flatten(1, 2)
        ratios = layout.valid_ratios.repeat(1, 1, 2)  # [B, L, 4]
        in_levels = boxes[:, :, None] * ratios[:, None]
        features = encode_boxes(in_levels[:, :, 0], queries.shape[-1])
        positions = position_mlp(features)
        placed = tokens + positions
        attended = self.self_attention(placed, placed, tokens, bias=mask)
        tokens = self.self_norm(tokens + self.dropout(attended))
        attended = self.cross_attention(
            tokens + positions,
            in_levels[..., :2],
            memory.tokens,
            layout.spatial_shapes,
            layout.level_start_index,
            layout.padding_mask,
            reference_sizes=in_levels[..., 2:],
        )
        tokens = self.feed_forward(self.cross_norm(tokens + self.dropout(attended)))
        return tokens.view_as(queries)

    def _changes(self, queries: Tensor, size_head: MLP | None) -> Tensor:
        """[B, n, T, D] → [B, n, T, 4] what is added to the boxes' logits."""
        of_people = self.box_head(queries[:, :, :1])
        if not self.has_keypoints:
            return of_people
        keypoint_queries = queries[:, :, 1:]
        places = self.keypoint_head(keypoint_queries)
        sizes = torch.zeros_like(places) if size_head is None else size_head(keypoint_queries)
        return torch.cat([of_people, torch.cat([places, sizes], dim=-1)], dim=2)


class EDPoseDecoder(nn.Module):
    """Human layers, the expansion of the best people into groups, and layers with keypoints.

    Every layer's predictions have `pred_logits` [B, n, 2] and `pred_boxes` [B, n, 4] cxcywh in
    [0, 1], in the human layers of h queries; those after them also `pred_keypoints` [B, n, K, 2]
    (x, y) in [0, 1] and `pred_keypoints_visi` [B, n, K] logits.

    Args:
        layers: from the first to the last: one or more human layers, then one or more with
            keypoints.
        embed_dim: width D.
        num_keypoints: K.
        num_groups: n.
        use_checkpointing: recompute activations in the backward pass.
    """

    def __init__(
        self,
        layers: Iterable[BoxDecoderLayer],
        *,
        embed_dim: int,
        num_keypoints: int,
        num_groups: int,
        use_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.use_checkpointing = use_checkpointing
        self.position_mlp = MLP(2 * embed_dim, embed_dim, embed_dim, 2)
        self.layers = nn.ModuleList(layers)
        self.expansion = Expansion(embed_dim, num_keypoints)
        # The last layer's sizes of the keypoints' boxes would be for nobody.
        self.size_head = None
        if sum(layer.has_keypoints for layer in self.layers) > 1:
            self.size_head = MLP(embed_dim, embed_dim, 2, 3)
            zero_last_layer(self.size_head)
        self.register_buffer("mask", group_mask(num_groups, num_keypoints), persistent=False)

    def forward(self, humans: HumanQueries, memory: EncoderMemory) -> list[BoxLayerOutput]:
        """One output per layer."""
        queries, references = humans.queries[:, :, None], humans.boxes[:, :, None]
        outputs: list[BoxLayerOutput] = []
        for layer in self.layers:
            if layer.has_keypoints and queries.shape[2] == 1:
                queries, references = self.expansion(outputs[-1], self.num_groups)
            size_head = self.size_head if layer is not self.layers[-1] else None
            mask = self.mask if layer.has_keypoints else None
            arguments = (queries, references, memory, self.position_mlp, size_head, mask)
            if self.use_checkpointing and self.training:
                output = checkpoint(layer, *arguments, use_reentrant=False)
            else:
                output = layer(*arguments)
            queries, references = output.queries, output.next_references
            outputs.append(output)
        return outputs


class Expansion(nn.Module):
    """The people with the highest logits, each as a group of 1 + K queries with boxes.

    Args:
        embed_dim: width D.
        num_keypoints: K.
    """

    def __init__(self, embed_dim: int, num_keypoints: int) -> None:
        super().__init__()
        self.keypoint_embedding = nn.Embedding(num_keypoints, embed_dim)
        self.keypoint_head = MLP(embed_dim, embed_dim, 2, 3)
        self.size_logits = nn.Parameter(torch.zeros(num_keypoints, 2))
        zero_last_layer(self.keypoint_head)

    def forward(self, humans: BoxLayerOutput, num_groups: int) -> tuple[Tensor, Tensor]:
        """Queries [B, n, K + 1, D] and their boxes [B, n, K + 1, 4] of the best n people."""
        logits = humans.predictions["pred_logits"].amax(-1)
        chosen = logits.topk(num_groups, dim=1).indices[..., None, None]
        people = humans.queries.take_along_dim(chosen, dim=1)  # [B, n, 1, D]
        boxes = humans.next_references.take_along_dim(chosen, dim=1)  # [B, n, 1, 4]
        queries = people + self.keypoint_embedding.weight
        centers, sizes = boxes.split(2, dim=-1)
        places = (inverse_sigmoid(centers) + self.keypoint_head(queries)).sigmoid()
        sizes = self.size_logits.sigmoid() * sizes.detach()
        of_keypoints = torch.cat([places, sizes.expand_as(places)], dim=-1)
        return torch.cat([people, queries], dim=2), torch.cat([boxes, of_keypoints], dim=2)


class OwnPredictions(nn.Module):
    """Stands for `PredictionHeads` where every decoder layer has heads of its own."""

    def forward(self, outputs: Sequence[BoxLayerOutput]) -> list[dict[str, Tensor]]:
        """Predictions of every layer."""
        return [output.predictions for output in outputs]


def group_mask(num_groups: int, num_keypoints: int) -> Tensor:
    """Who sees whom: everybody its own group, human queries also those of the other groups.

    Returns:
        [n (K + 1), n (K + 1)] 0 where the row's query sees the column's, else -inf.
    """
    count = num_keypoints + 1
    own = torch.eye(num_groups, dtype=torch.bool)
    own = own.repeat_interleave(count, dim=0).repeat_interleave(count, dim=1)
    is_human = torch.zeros(num_groups * count, dtype=torch.bool)
    is_human[::count] = True
    sees = own | (is_human[:, None] & is_human)
    return torch.zeros(sees.shape).masked_fill(~sees, -float("inf"))


def _detach_judged(references: Tensor) -> Tensor:
    """[B, n, T, 4] boxes without gradient but that of the keypoints' sizes, which have no loss."""
    humans, keypoints = references[:, :, :1].detach(), references[:, :, 1:]
    keypoints = torch.cat([keypoints[..., :2].detach(), keypoints[..., 2:]], dim=-1)
    return torch.cat([humans, keypoints], dim=2)
