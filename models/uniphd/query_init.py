"""Where the groups of queries begin: at the encoder's best proposals, or at learned places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.encoder import EncoderMemory, LevelLayout, pixel_centers
from models.layers.group_decoder import GroupQueries
from models.layers.mlp import MLP, init_class_bias, zero_last_layer
from models.performance.linear import Linear
from util.errors import UserError
from util.keypoint_ops import inverse_sigmoid

# Width and height of a proposal on the finest level; they double from level to level.
PROPOSAL_SIZE = 0.05


class ProposalChoice(nn.Module):
    """Picks the n most promising encoder tokens.

    Args:
        embed_dim: width D.
        num_groups: n.
    """

    def __init__(self, embed_dim: int, num_groups: int) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.memory_projection = Linear(embed_dim, embed_dim)
        self.memory_norm = nn.LayerNorm(embed_dim)
        self.class_head = Linear(embed_dim, 2)
        init_class_bias(self.class_head)

    def choose(self, memory: EncoderMemory) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The n tokens whose proposals have the highest logit, best first.

        Returns:
            [B, n, 1] int64 which tokens they are,
            [B, n, D] the tokens, projected,
            [B, n, 2] their class logits,
            [B, n, 2] the logits of their proposals' centres (see `make_proposals`).

        Raises:
            UserError: the image has fewer tokens than are to be chosen.
        """
        if memory.tokens.shape[1] < self.num_groups:
            raise UserError(
                f"num_groups={self.num_groups} groups cannot be chosen from "
                f"{memory.tokens.shape[1]} encoder tokens; use larger images or fewer groups."
            )
        center_logits, valid = make_proposals(memory)
        tokens = memory.tokens.masked_fill(~valid[..., None], 0.0)
        tokens = self.memory_norm(self.memory_projection(tokens))
        logits = self.class_head(tokens)
        chosen = logits.amax(-1).topk(self.num_groups, dim=1).indices[..., None]
        tokens, logits, center_logits = (
            values.take_along_dim(chosen, dim=1) for values in (tokens, logits, center_logits)
        )
        return chosen, tokens, logits, center_logits


class QueryInitializer(ProposalChoice):
    """Turns the n most promising encoder tokens into groups of queries each.

    Args:
        embed_dim: width D.
        num_keypoints: K.
        num_groups: n.
    """

    def __init__(self, embed_dim: int, num_keypoints: int, num_groups: int) -> None:
        super().__init__(embed_dim, num_groups)
        self.num_keypoints = num_keypoints
        self.keypoint_head = MLP(embed_dim, 2 * embed_dim, 2 * num_keypoints, 4)
        self.keypoint_embedding = nn.Embedding(num_keypoints, embed_dim)
        zero_last_layer(self.keypoint_head)

    def forward(self, memory: EncoderMemory, instance_query: Tensor) -> GroupQueries:
        """Initialise the groups.

        Args:
            memory: encoded tokens.
            instance_query: [B, D], the prompt's or a learned one; every group starts from it.

        Raises:
            UserError: the image has fewer tokens than there are groups.
        """
        _, tokens, logits, center_logits = self.choose(memory)
        offsets = self.keypoint_head(tokens).unflatten(-1, (self.num_keypoints, 2))
        keypoints = (center_logits[:, :, None] + offsets).sigmoid()
        keypoint_queries = self.keypoint_embedding.weight + tokens.detach()[:, :, None]
        return GroupQueries(
            instance_queries=instance_query[:, None].expand(-1, self.num_groups, -1),
            keypoint_queries=keypoint_queries,
            references=keypoints.detach(),
            proposals={"pred_logits": logits, "pred_keypoints": keypoints},
        )


class LearnedQueries(nn.Module):
    """The same n groups for every image and every prompt (Table 8: no query initialisation).

    Every group has a learned instance query and K learned reference points, its keypoint queries
    are K learned embeddings, the same for all groups as in `QueryInitializer`.  The paper does not
    say more than that they are learned.  The points of a group start together, as those of a
    proposal do, groups anywhere in the image.

    Args:
        embed_dim: width D.
        num_keypoints: K.
        num_groups: n.
    """

    def __init__(self, embed_dim: int, num_keypoints: int, num_groups: int) -> None:
        super().__init__()
        self.instance_embedding = nn.Embedding(num_groups, embed_dim)
        self.keypoint_embedding = nn.Embedding(num_keypoints, embed_dim)
        centers = inverse_sigmoid(torch.rand(num_groups, 1, 2))
        self.reference_logits = nn.Parameter(centers.repeat(1, num_keypoints, 1))

    def forward(self, memory: EncoderMemory, instance_query: Tensor | None) -> GroupQueries:
        """The groups, for every image of the batch.

        Args:
            memory: encoded tokens; they say how many images there are.
            instance_query: the prompt's, which is not used.
        """
        batch = len(memory.tokens)
        groups, dim = self.instance_embedding.weight.shape
        return GroupQueries(
            instance_queries=self.instance_embedding.weight.expand(batch, -1, -1),
            keypoint_queries=self.keypoint_embedding.weight.expand(batch, groups, -1, dim),
            references=self.reference_logits.sigmoid().expand(batch, -1, -1, -1),
            proposals=None,
        )


def make_proposals(memory: EncoderMemory) -> tuple[Tensor, Tensor]:
    """One box proposal per token, as in two-stage Deformable DETR.

    Returns:
        [B, S, 2] logits of the centre (x, y), infinite where the proposal does not count, and
        [B, S] bool, True where it counts: outside the padding, and centre and size
        (`proposal_sizes`) within (0.01, 0.99).
    """
    layout = memory.layout
    center = torch.cat(
        [
            pixel_centers(height, width, layout.valid_ratios[:, level])
            for level, (height, width) in enumerate(layout.shapes)
        ],
        dim=1,
    )
    valid = _is_inside(center).all(-1) & _is_inside(proposal_sizes(layout)) & ~layout.padding_mask
    logits = torch.log(center / (1 - center)).masked_fill(~valid[..., None], float("inf"))
    return logits, valid


def proposal_sizes(layout: LevelLayout) -> Tensor:
    """[S] width and height of the tokens' proposals, as shares of the image."""
    return torch.cat(
        [
            layout.valid_ratios.new_full((height * width,), PROPOSAL_SIZE * 2**level)
            for level, (height, width) in enumerate(layout.shapes)
        ]
    )


def _is_inside(values: Tensor) -> Tensor:
    return (values > 0.01) & (values < 0.99)
